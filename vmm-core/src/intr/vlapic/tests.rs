//! Tests of the virtual local APIC.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

use super::{Config, DeliveryMode, Destination, Ipi, VLapic};
use crate::fault::GuestFault;
use crate::intr::inbox::{Inbox, route};
use proptest::prelude::{any, prop, proptest};

use std::sync::Arc;
use std::vec::Vec;

const TSC_KHZ: u32 = 2_500_000;
/// TSC ticks for one tick of the undivided APIC timer.
const TICK: u64 = 100;

fn lapic(vcpu: u32) -> VLapic {
    let config = Config {
        apic_id: 2 * vcpu,
        bootstrap: vcpu == 0,
        tsc_khz: TSC_KHZ,
        phys_bits: 39,
    };
    VLapic::new(config)
}

fn write(lapic: &mut VLapic, offset: u64, value: u32) -> super::Actions {
    lapic.mmio_write(offset, 4, u64::from(value), 0)
}

fn read(lapic: &mut VLapic, offset: u64) -> u32 {
    u32::try_from(lapic.mmio_read(offset, 4, 0)).unwrap()
}

fn enabled(vcpu: u32) -> VLapic {
    let mut lapic = lapic(vcpu);
    assert!(write(&mut lapic, 0xf0, 0x1ff).software_enabled);
    lapic
}

fn in_x2apic_mode(vcpu: u32) -> VLapic {
    let mut lapic = lapic(vcpu);
    let base = lapic.msr_read(0x1b, 0).unwrap();
    let _ = lapic.msr_write(0x1b, base | 1 << 10, 0).unwrap();
    let _ = lapic.msr_write(0x80f, 0x1ff, 0).unwrap();
    lapic
}

/// Delivers fixed messages of vCPU `sender` as the vCPU loop does.
fn deliver(ipi: Ipi, sender: usize, inboxes: &[Arc<Inbox>]) -> Vec<usize> {
    let targets: Vec<usize> = route(ipi, sender, inboxes.iter().map(|inbox| &**inbox)).collect();
    for &target in &targets {
        inboxes[target].post(ipi.vector);
    }
    targets
}

#[test]
fn reset_values() {
    let mut lapic = lapic(3);
    assert_eq!(lapic.msr_read(0x1b, 0), Ok(0xfee0_0800));
    assert_eq!(read(&mut lapic, 0x20), 6 << 24);
    assert_eq!(read(&mut lapic, 0x30), 0x0005_0014);
    assert_eq!(read(&mut lapic, 0xf0), 0xff);
    assert_eq!(read(&mut lapic, 0xe0), 0xffff_ffff);
    for lvt in (0x320..=0x370).step_by(16) {
        assert_eq!(read(&mut lapic, lvt), 0x1_0000);
    }
    for zero in [0x80, 0xa0, 0xd0, 0x280, 0x300, 0x310, 0x380, 0x390, 0x3e0] {
        assert_eq!(read(&mut lapic, zero), 0);
    }
    assert_eq!(self::lapic(0).msr_read(0x1b, 0), Ok(0xfee0_0900));
    assert_eq!(lapic.mmio_base(), Some(0xfee0_0000));
}

#[test]
fn interrupts_nest_by_priority() {
    let mut lapic = enabled(0);
    let inbox = lapic.inbox().clone();
    assert!(inbox.post(0x41) && !inbox.post(0x41) && inbox.post(0x52));
    assert_eq!(lapic.pending_vector(), Some(0x52));
    lapic.acknowledge(0x52);
    assert_eq!(lapic.pending_vector(), None);
    assert_eq!(read(&mut lapic, 0xa0), 0x50);
    assert_eq!(read(&mut lapic, 0x220), 1 << 1);
    assert_eq!(read(&mut lapic, 0x120), 1 << 0x12);
    inbox.post(0x61);
    assert_eq!(lapic.pending_vector(), Some(0x61));
    lapic.acknowledge(0x61);
    assert_eq!(write(&mut lapic, 0xb0, 0), super::Actions::default());
    assert_eq!(read(&mut lapic, 0xa0), 0x50);
    lapic.end_of_interrupt();
    assert_eq!(lapic.pending_vector(), Some(0x41));
}

#[test]
fn an_interrupt_that_was_not_delivered_comes_again() {
    let mut lapic = enabled(0);
    lapic.accept(0x41);
    lapic.acknowledge(0x41);
    assert_eq!(lapic.pending_vector(), None);
    lapic.unacknowledge(0x41);
    assert_eq!(lapic.pending_vector(), Some(0x41));
    assert_eq!(read(&mut lapic, 0x120), 0);
}

#[test]
fn task_priority_holds_interrupts_back() {
    let mut lapic = enabled(0);
    lapic.accept(0x41);
    let _ = write(&mut lapic, 0x80, 0x4f);
    assert_eq!(lapic.pending_vector(), None);
    assert_eq!(lapic.cr8(), 4);
    lapic.set_cr8(3);
    assert_eq!(read(&mut lapic, 0x80), 0x30);
    assert_eq!(lapic.pending_vector(), Some(0x41));
}

#[test]
fn linux_starts_a_processor() {
    let mut bsp = enabled(0);
    let ap = lapic(1);
    let inboxes = [bsp.inbox().clone(), ap.inbox().clone()];
    let _ = write(&mut bsp, 0x310, 2 << 24);
    let init = write(&mut bsp, 0x300, 0xc500).ipi.unwrap();
    assert_eq!(
        (init.mode, init.destination),
        (DeliveryMode::Init, Destination::Physical(2))
    );
    assert_eq!(deliver(init, 0, &inboxes), [1]);
    assert_eq!(
        write(&mut bsp, 0x300, 0x8500).ipi,
        None,
        "de-assert does nothing"
    );
    let startup = write(&mut bsp, 0x300, 0x0699).ipi.unwrap();
    assert_eq!(
        (startup.mode, startup.vector),
        (DeliveryMode::Startup, 0x99)
    );
    assert_eq!(read(&mut bsp, 0x300), 0x0699, "delivery status reads idle");
}

#[test]
fn destinations() {
    let mut lapics = [enabled(0), enabled(1), enabled(2)];
    for (n, lapic) in (0..).zip(&mut lapics) {
        let _ = write(lapic, 0xd0, 1 << (24 + n));
    }
    let inboxes: Vec<_> = lapics.iter().map(|lapic| lapic.inbox().clone()).collect();
    let mut send = |high: u32, low: u32| {
        let _ = write(&mut lapics[1], 0x310, high);
        let ipi = write(&mut lapics[1], 0x300, low).ipi.unwrap();
        deliver(ipi, 1, &inboxes)
    };
    assert_eq!(send(4 << 24, 0x40), [2]);
    assert_eq!(send(0xff << 24, 0x40), [0, 1, 2]);
    assert_eq!(send(9 << 24, 0x40), [0; 0]);
    assert_eq!(send(5 << 24, 0x840), [0, 2], "flat logical");
    assert_eq!(send(5 << 24, 0x940), [0], "lowest priority goes to one");
    assert_eq!(send(0, 0x4_0040), [1], "self");
    assert_eq!(send(0, 0x8_0040), [0, 1, 2], "all");
    assert_eq!(send(0, 0xc_0040), [0, 2], "all but self");
    let _ = write(&mut lapics[2], 0xe0, 0x0fff_ffff);
    let _ = write(&mut lapics[2], 0xd0, 0x22 << 24);
    assert!(
        inboxes[2].matches(Destination::Logical(0x23), false),
        "cluster"
    );
    assert!(!inboxes[2].matches(Destination::Logical(0x32), false));
    assert!(!inboxes[2].matches(Destination::Logical(0x21), false));
}

#[test]
fn x2apic_destinations() {
    let mut sender = in_x2apic_mode(0);
    let far = in_x2apic_mode(12);
    assert_eq!(sender.msr_read(0x802, 0), Ok(0));
    let inboxes = [sender.inbox().clone(), far.inbox().clone()];
    let ipi = sender
        .msr_write(0x830, 24 << 32 | 0x50, 0)
        .unwrap()
        .ipi
        .unwrap();
    assert_eq!(deliver(ipi, 0, &inboxes), [1]);
    let ipi = sender
        .msr_write(0x830, 0x1_0100 << 32 | 0x850, 0)
        .unwrap()
        .ipi
        .unwrap();
    assert_eq!(deliver(ipi, 0, &inboxes), [1], "cluster 1, member 8");
    let ipi = sender
        .msr_write(0x830, 0xffff_ffff << 32 | 0x50, 0)
        .unwrap()
        .ipi
        .unwrap();
    assert_eq!(deliver(ipi, 0, &inboxes), [0, 1]);
    let ipi = sender.msr_write(0x83f, 0x77, 0).unwrap().ipi.unwrap();
    assert_eq!(deliver(ipi, 0, &inboxes), [0]);
    assert_eq!(sender.pending_vector(), Some(0x77));
    assert_eq!(sender.msr_read(0x830, 0), Ok(0xffff_ffff_0000_0050));
}

#[test]
fn x2apic_refuses_what_is_reserved() {
    let mut lapic = in_x2apic_mode(5);
    assert_eq!(lapic.mmio_base(), None);
    assert_eq!(lapic.msr_read(0x80d, 0), Ok(1 << 10));
    for msr in [
        0x80b, 0x80e, 0x809, 0x80c, 0x831, 0x83f, 0x82f, 0x800, 0x8ff,
    ] {
        assert_eq!(lapic.msr_read(msr, 0), Err(GuestFault::GP0), "{msr:#x}");
    }
    let refused = [
        (0x802, 0),
        (0x80b, 1),
        (0x828, 1),
        (0x808, 0x100),
        (0x80d, 0),
        (0x80f, 0x200),
        (0x830, 0x1000),
        (0x838, 1 << 32),
        (0x83e, 4),
        (0x832, 0x1000),
        (0x839, 0),
        (0x8ff, 0),
    ];
    for (msr, value) in refused {
        assert_eq!(
            lapic.msr_write(msr, value, 0),
            Err(GuestFault::GP0),
            "{msr:#x}"
        );
    }
}

#[test]
fn x2apic_msrs_need_the_mode() {
    let mut lapic = enabled(0);
    assert_eq!(lapic.msr_read(0x802, 0), Err(GuestFault::GP0));
    assert_eq!(lapic.msr_write(0x80b, 0, 0), Err(GuestFault::GP0));
    assert_eq!(lapic.msr_read(0x900, 0), Err(GuestFault::GP0));
}

#[test]
fn mode_transitions() {
    const XAPIC: u64 = 0xfee0_0900;
    const X2APIC: u64 = 0xfee0_0d00;
    const DISABLED: u64 = 0xfee0_0100;
    let mut lapic = lapic(0);
    let mut write = |value| lapic.msr_write(0x1b, value, 0).map(|_| ());
    for refused in [
        DISABLED | 1 << 10,
        XAPIC | 1,
        XAPIC | 1 << 9,
        XAPIC | 1 << 39,
    ] {
        assert_eq!(write(refused), Err(GuestFault::GP0));
    }
    assert_eq!(
        write(0xfed0_0900),
        Err(GuestFault::GP0),
        "the page does not move"
    );
    assert_eq!(write(X2APIC), Ok(()));
    assert_eq!(write(XAPIC), Err(GuestFault::GP0));
    assert_eq!(write(DISABLED), Ok(()));
    assert_eq!(write(X2APIC), Err(GuestFault::GP0));
    assert_eq!(write(XAPIC), Ok(()));
}

#[test]
fn a_disabled_apic_hears_nothing() {
    let mut lapic = enabled(0);
    let _ = lapic.msr_write(0x1b, 0xfee0_0100, 0).unwrap();
    assert!(!lapic.is_enabled());
    assert_eq!(lapic.mmio_base(), None);
    let inbox = lapic.inbox().clone();
    assert!(!inbox.post(0x40) && !inbox.post_nmi());
    assert!(!inbox.matches(Destination::Everyone, false));
    let _ = lapic.msr_write(0x1b, 0xfee0_0900, 0).unwrap();
    assert_eq!(read(&mut lapic, 0xf0), 0xff, "back in its reset state");
}

#[test]
fn software_disable_masks_and_refuses() {
    let mut lapic = enabled(0);
    let _ = write(&mut lapic, 0x370, 0xfe);
    let inbox = lapic.inbox().clone();
    inbox.post(0x60);
    let _ = write(&mut lapic, 0xf0, 0xff);
    assert_eq!(read(&mut lapic, 0x370), 0x1_00fe);
    let _ = write(&mut lapic, 0x370, 0xfe);
    assert_eq!(
        read(&mut lapic, 0x370),
        0x1_00fe,
        "stays masked while disabled"
    );
    assert!(!inbox.post(0x70));
    assert!(inbox.post_nmi(), "NMIs still arrive");
    assert_eq!(lapic.pending_vector(), Some(0x60), "what was pending stays");
}

#[test]
fn illegal_vectors_are_two_errors() {
    let mut lapic = enabled(0);
    let inboxes = [lapic.inbox().clone()];
    let ipi = write(&mut lapic, 0x300, 0x4_0005).ipi.unwrap();
    deliver(ipi, 0, &inboxes);
    assert_eq!(read(&mut lapic, 0x280), 0, "not before a write latches it");
    let _ = write(&mut lapic, 0x280, 0);
    assert_eq!(read(&mut lapic, 0x280), 0x60);
    let _ = write(&mut lapic, 0x280, 0);
    assert_eq!(read(&mut lapic, 0x280), 0);
    assert_eq!(lapic.pending_vector(), None);
}

#[test]
fn error_interrupt_with_an_illegal_vector_ends() {
    let mut lapic = enabled(0);
    let _ = write(&mut lapic, 0x370, 0x3);
    let _ = write(&mut lapic, 0x300, 0x4_0005);
    let _ = write(&mut lapic, 0x280, 0);
    assert_eq!(read(&mut lapic, 0x280), 0x60);
    let _ = write(&mut lapic, 0x370, 0xfe);
    let _ = write(&mut lapic, 0x300, 0x4_0005);
    assert_eq!(lapic.pending_vector(), Some(0xfe));
}

#[test]
fn one_shot_timer() {
    let mut lapic = enabled(0);
    let _ = write(&mut lapic, 0x3e0, 0b1011);
    let _ = write(&mut lapic, 0x320, 0x40);
    let _ = lapic.mmio_write(0x380, 4, 1000, 5_000);
    let end = 5_000 + 1000 * TICK;
    assert_eq!(lapic.next_deadline(), Some(end));
    assert_eq!(lapic.mmio_read(0x390, 4, 5_000 + 250 * TICK), 750);
    assert!(!lapic.expire(end - 1));
    assert!(lapic.expire(end) && !lapic.expire(end));
    assert_eq!(lapic.pending_vector(), Some(0x40));
    assert_eq!(
        (lapic.next_deadline(), lapic.mmio_read(0x390, 4, end)),
        (None, 0)
    );
}

#[test]
fn divided_timer_keeps_its_count_when_the_divider_changes() {
    let mut lapic = enabled(0);
    let _ = write(&mut lapic, 0x320, 0x40);
    let _ = write(&mut lapic, 0x380, 1000);
    assert_eq!(
        lapic.next_deadline(),
        Some(2000 * TICK),
        "divides by 2 after reset"
    );
    let _ = lapic.mmio_write(0x3e0, 4, 0b1010, 1000 * TICK);
    assert_eq!(lapic.next_deadline(), Some(1000 * TICK + 500 * 128 * TICK));
    assert_eq!(lapic.mmio_read(0x390, 4, 1000 * TICK), 500);
}

#[test]
fn periodic_timer_skips_missed_periods() {
    let mut lapic = enabled(0);
    let _ = write(&mut lapic, 0x3e0, 0b1011);
    let _ = write(&mut lapic, 0x320, 0x2_0040);
    let _ = write(&mut lapic, 0x380, 10_000);
    let period = 10_000 * TICK;
    assert!(lapic.expire(period));
    assert_eq!(lapic.next_deadline(), Some(2 * period));
    assert!(lapic.expire(5 * period + 17));
    assert_eq!(lapic.next_deadline(), Some(6 * period));
}

#[test]
fn masked_timer_passes_in_silence() {
    let mut lapic = enabled(0);
    let _ = write(&mut lapic, 0x380, 10);
    assert_eq!(lapic.next_deadline(), None);
    let _ = lapic.mmio_write(0x320, 4, 0x40, 1_000_000);
    assert!(!lapic.expire(2_000_000));
    assert_eq!(lapic.pending_vector(), None);
}

#[test]
fn tsc_deadline_timer() {
    let mut lapic = enabled(0);
    let _ = lapic.msr_write(0x6e0, 500, 0).unwrap();
    assert_eq!(lapic.msr_read(0x6e0, 0), Ok(0), "not in that mode");
    let _ = write(&mut lapic, 0x320, 0x4_0040);
    let _ = lapic.msr_write(0x6e0, 500, 0).unwrap();
    assert_eq!(
        (lapic.next_deadline(), lapic.msr_read(0x6e0, 0)),
        (Some(500), Ok(500))
    );
    let _ = write(&mut lapic, 0x380, 10);
    assert_eq!(
        lapic.next_deadline(),
        Some(500),
        "the count is another mode's"
    );
    assert!(lapic.expire(501));
    assert_eq!(lapic.msr_read(0x6e0, 0), Ok(0));
    let _ = lapic.msr_write(0x6e0, 700, 0).unwrap();
    let _ = write(&mut lapic, 0x320, 0x40);
    assert_eq!(lapic.next_deadline(), None, "leaving the mode disarms");
}

#[test]
fn init_resets_all_but_identity() {
    let mut lapic = in_x2apic_mode(1);
    let inbox = lapic.inbox().clone();
    inbox.post(0x40);
    inbox.post_nmi();
    lapic.init();
    assert_eq!(lapic.pending_vector(), None);
    assert!(!inbox.nmi_pending());
    assert_eq!(lapic.msr_read(0x802, 0), Ok(2));
    assert_eq!(lapic.msr_read(0x80f, 0), Ok(0xff));
    assert_eq!(lapic.msr_read(0x1b, 0), Ok(0xfee0_0c00));
}

#[test]
fn odd_accesses() {
    let mut lapic = enabled(0);
    assert_eq!(lapic.mmio_read(0x32, 2, 0), 0x0005);
    assert_eq!(lapic.mmio_read(0x30, 1, 0), 0x14);
    assert_eq!(lapic.mmio_read(0x33, 2, 0), 0);
    assert_eq!(lapic.mmio_read(0x34, 4, 0), 0);
    assert_eq!(lapic.mmio_read(0x30, 8, 0), 0);
    assert_eq!(lapic.mmio_read(u64::MAX, 4, 0), 0);
    let _ = write(&mut lapic, 0x380, 0x1122_3344);
    let _ = lapic.mmio_write(0x381, 1, 0xff, 0);
    assert_eq!(read(&mut lapic, 0x380), 0x1122_ff44);
    let _ = write(&mut lapic, 0x280, 0);
    assert_eq!(read(&mut lapic, 0x280), 0);
    let _ = write(&mut lapic, 0x40, 1);
    let _ = write(&mut lapic, 0x280, 0);
    assert_eq!(read(&mut lapic, 0x280), 0x80, "no such register");
}

proptest! {
    /// Whatever a guest writes, nothing panics, and what is offered may be delivered.
    #[test]
    fn survives_any_guest(
        ops in prop::collection::vec(
            (any::<u8>(), any::<u16>(), any::<u64>(), any::<u64>()), 1..200),
    ) {
        let mut lapic = lapic(1);
        for (kind, place, value, now) in ops {
            let offset = u64::from(place);
            let ipi = match kind % 7 {
                0 => lapic.mmio_write(offset & 0xff0, 4, value, now).ipi,
                1 => lapic.mmio_write(offset, usize::from(kind >> 4), value, now).ipi,
                2 => { let _ = lapic.mmio_read(offset, 4, now); None }
                3 => lapic.msr_write(0x800 | u32::from(place & 0x3f), value, now)
                    .ok().and_then(|actions| actions.ipi),
                4 => { let _ = lapic.msr_read(0x800 | u32::from(place & 0xff), now); None }
                5 => { lapic.expire(now); None }
                _ => {
                    let base = 0xfee0_0000 | (value & 3) << 10;
                    let _ = lapic.msr_write(0x1b, base, now);
                    None
                }
            };
            if let Some(ipi) = ipi.filter(|ipi| lapic.inbox().matches(ipi.destination, true)) {
                lapic.inbox().post(ipi.vector);
            }
            if let Some(vector) = lapic.pending_vector() {
                assert!(vector >= 16);
                if kind & 0x80 != 0 {
                    lapic.acknowledge(vector);
                    assert!(lapic.pending_vector().is_none_or(|next| next >> 4 != vector >> 4));
                }
            }
        }
    }

    /// A posted vector is folded in exactly once, wherever it was posted from.
    #[test]
    fn posted_vectors_arrive(vectors in prop::collection::btree_set(16_u8.., 1..40)) {
        let mut lapic = enabled(0);
        let inbox = lapic.inbox().clone();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for &vector in &vectors {
                    inbox.post(vector);
                }
            });
            for _ in 0..10 {
                lapic.pending_vector();
            }
        });
        let mut seen = Vec::new();
        while let Some(vector) = lapic.pending_vector() {
            lapic.acknowledge(vector);
            lapic.end_of_interrupt();
            seen.push(vector);
        }
        seen.reverse();
        assert_eq!(seen, vectors.into_iter().collect::<Vec<_>>());
    }
}
