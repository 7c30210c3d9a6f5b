//! FIFO delivery to a guest that takes its events as Linux does.

extern crate std;
use std::vec::Vec;

use abi::Errno;
use abi::event_channel::fifo::{LINK_MASK, LINKED, MASKED, PENDING};
use proptest::prelude::{any, prop_assert_eq, proptest};

use super::{
    EvtchnPort, EvtchnTable, OTHER, PageRef, SeqCst, VcpuId, Wake, page, shared_info, table,
    upcall, virq,
};

/// The guest's half of the FIFO protocol on one vCPU.
pub(super) struct Guest {
    pub(super) array: Vec<PageRef>,
    pub(super) control: PageRef,
    heads: [u32; 16],
}

impl Guest {
    pub(super) fn new(array: Vec<PageRef>, control: PageRef) -> Self {
        Self {
            array,
            control,
            heads: [0; 16],
        }
    }

    pub(super) fn word(&self, port: u32) -> &core::sync::atomic::AtomicU32 {
        self.array[port as usize / 1024].u32(port as usize % 1024 * 4)
    }

    /// Handles everything that is ready; the ports in the order in which they came.
    pub(super) fn handle(&mut self) -> Vec<u32> {
        let mut handled = Vec::new();
        let mut ready = self.control.u32(0).swap(0, SeqCst);
        while ready != 0 {
            let priority = ready.trailing_zeros();
            if let Some(port) = self.take(priority, &mut ready) {
                handled.push(port);
            }
            ready |= self.control.u32(0).swap(0, SeqCst);
        }
        handled
    }

    fn take(&mut self, priority: u32, ready: &mut u32) -> Option<u32> {
        let slot = priority as usize;
        if self.heads[slot] == 0 {
            self.heads[slot] = self.control.u32(8 + slot * 4).load(SeqCst);
        }
        let port = self.heads[slot];
        let next = self.word(port).fetch_and(!(LINKED | LINK_MASK), SeqCst) & LINK_MASK;
        if next == 0 {
            *ready &= !(1 << priority);
        }
        self.heads[slot] = next;
        let word = self.word(port).load(SeqCst);
        if word & PENDING == 0 || word & MASKED != 0 {
            return None;
        }
        self.word(port).fetch_and(!PENDING, SeqCst);
        Some(port)
    }
}

fn fifo_table(vcpus: u32) -> (EvtchnTable, Guest) {
    let (mut table, _) = table(vcpus);
    let (control, array) = (page(), page());
    assert_eq!(table.init_control(VcpuId(0), control.clone(), 0), Ok(17));
    assert_eq!(table.expand_array(array.clone()), Ok(Wake::NONE));
    (table, Guest::new([array].into(), control))
}

#[test]
fn events_come_in_order_of_priority_then_of_sending() {
    let (mut table, mut guest) = fifo_table(1);
    let ports: [_; 4] = core::array::from_fn(|_| table.bind_ipi(VcpuId(0)).unwrap());
    assert_eq!(table.set_priority(ports[3], 0), Ok(()));
    assert_eq!(table.deliver(ports[2]), upcall(0));
    for port in [ports[0], ports[1], ports[3], ports[2]] {
        // The upcall is pending already.
        assert_eq!(table.deliver(port), Wake::NONE);
    }
    let expected = [ports[3], ports[2], ports[0], ports[1]].map(|port| port.0);
    assert_eq!(guest.handle(), expected);
    assert_eq!(guest.handle(), []);
}

#[test]
fn a_masked_event_is_queued_by_unmask() {
    let (mut table, mut guest) = fifo_table(1);
    let port = table.bind_virq(virq::TIMER, VcpuId(0)).unwrap();
    guest.word(port.0).store(MASKED, SeqCst);
    assert_eq!(table.deliver(port), Wake::NONE);
    assert_eq!(guest.handle(), []);
    assert_eq!(table.unmask(port), Ok(upcall(0)));
    assert_eq!(guest.handle(), [port.0]);
    assert_eq!(table.unmask(port), Ok(Wake::NONE));
}

#[test]
fn arguments_of_the_set_up_calls_are_checked() {
    let (mut table, _) = table(2);
    let unbound = table.alloc_unbound(OTHER).unwrap();
    assert_eq!(table.expand_array(page()), Err(Errno::Eopnotsupp));
    assert_eq!(table.set_priority(unbound, 3), Err(Errno::Enosys));
    for offset in [4096 - 64, 4, u32::MAX] {
        assert_eq!(
            table.init_control(VcpuId(0), page(), offset),
            Err(Errno::Einval)
        );
    }
    assert_eq!(table.init_control(VcpuId(2), page(), 0), Err(Errno::Enoent));
    assert!(!table.is_fifo());
    assert_eq!(table.init_control(VcpuId(1), page(), 4096 - 72), Ok(17));
    assert_eq!(table.init_control(VcpuId(1), page(), 0), Err(Errno::Einval));
    assert_eq!(table.set_priority(unbound, 16), Err(Errno::Einval));
    assert_eq!(table.set_priority(EvtchnPort(64), 3), Err(Errno::Einval));
    assert_eq!(table.set_priority(EvtchnPort(0), 3), Err(Errno::Eacces));
    assert_eq!(table.set_priority(EvtchnPort(9), 3), Err(Errno::Eacces));
    assert_eq!(table.set_priority(unbound, 15), Ok(()));
}

#[test]
fn the_array_has_128_pages() {
    let (mut table, _) = fifo_table(1);
    let same = page();
    for _ in 1..128 {
        assert_eq!(table.expand_array(same.clone()), Ok(Wake::NONE));
    }
    assert_eq!(table.expand_array(same), Err(Errno::Enospc));
}

#[test]
fn what_was_pending_before_the_switch_is_delivered_with_the_array() {
    let (mut table, shared) = table(1);
    let port = table.bind_ipi(VcpuId(0)).unwrap();
    assert_eq!(table.deliver(port), upcall(0));
    shared.u8(shared_info::VCPU_INFO).store(0, SeqCst);
    let (control, array) = (page(), page());
    assert_eq!(table.init_control(VcpuId(0), control.clone(), 0), Ok(17));
    assert_eq!(table.expand_array(array.clone()), Ok(upcall(0)));
    assert_eq!(Guest::new([array].into(), control).handle(), [port.0]);
}

#[test]
fn events_for_a_vcpu_without_control_block_are_dropped() {
    let (mut table, guest) = fifo_table(2);
    let port = table.bind_ipi(VcpuId(1)).unwrap();
    assert_eq!(table.deliver(port), Wake::NONE);
    assert_eq!(guest.word(port.0).load(SeqCst), 0);
}

#[test]
fn a_port_still_on_a_queue_is_not_handed_out_again() {
    let (mut table, mut guest) = fifo_table(1);
    let port = table.bind_ipi(VcpuId(0)).unwrap();
    assert_eq!(table.deliver(port), upcall(0));
    assert!(table.close(port).is_ok());
    assert_eq!(table.bind_ipi(VcpuId(0)), Ok(EvtchnPort(port.0 + 1)));
    assert_eq!(guest.handle(), []);
    assert_eq!(table.bind_ipi(VcpuId(0)), Ok(port));
}

proptest! {
    /// No event is lost, whatever the order of sends, priority changes, moves and handling.
    #[test]
    fn every_event_is_handled(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..300),
    ) {
        let (mut table, mut guest) = fifo_table(1);
        for _ in 0..20 {
            table.bind_ipi(VcpuId(0)).unwrap();
        }
        let mut outstanding = std::collections::BTreeSet::new();
        for (what, port, priority) in steps {
            let port = EvtchnPort(1 + u32::from(port % 20));
            match what % 4 {
                0 | 1 => {
                    let _ = table.deliver(port);
                    outstanding.insert(port.0);
                }
                2 => table.set_priority(port, u32::from(priority % 16)).unwrap(),
                _ => {
                    for handled in guest.handle() {
                        outstanding.remove(&handled);
                    }
                    prop_assert_eq!(outstanding.len(), 0);
                }
            }
        }
        for handled in guest.handle() {
            outstanding.remove(&handled);
        }
        prop_assert_eq!(outstanding.len(), 0);
    }
}

/// A guest on another CPU takes events while they are sent: none is lost, and the last send of
/// each port is seen.
#[test]
fn a_guest_that_runs_meanwhile_loses_nothing() {
    const PORTS: u32 = 24;
    const ROUNDS: u32 = 3_000;
    let (mut table, mut guest) = fifo_table(1);
    for _ in 0..PORTS {
        table.bind_ipi(VcpuId(0)).unwrap();
    }
    let sent: std::sync::Arc<Vec<_>> = std::sync::Arc::new(
        (0..=PORTS)
            .map(|_| core::sync::atomic::AtomicU32::new(0))
            .collect(),
    );
    let seen_by_guest = std::sync::Arc::clone(&sent);
    let consumer = std::thread::spawn(move || {
        let mut seen = [0; PORTS as usize + 1];
        let give_up = std::time::Instant::now() + core::time::Duration::from_secs(60);
        while seen[1..].iter().any(|&count| count < ROUNDS) {
            assert!(std::time::Instant::now() < give_up, "an event was lost");
            for port in guest.handle() {
                seen[port as usize] = seen_by_guest[port as usize].load(SeqCst);
            }
        }
    });
    for round in 1..=ROUNDS {
        for port in 1..=PORTS {
            sent[port as usize].store(round, SeqCst);
            let priority = (round / 7 + port) % 3;
            table.set_priority(EvtchnPort(port), priority).unwrap();
            let _ = table.deliver(EvtchnPort(port));
        }
    }
    consumer.join().unwrap();
}
