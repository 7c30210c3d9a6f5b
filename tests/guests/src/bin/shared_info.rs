//! The shared page: where it is put, moved, and what it leaves behind.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use abi::hypercall::VCPU_OP;
use abi::memory::SPACE_SHARED_INFO;
use abi::shared_info::vcpu_info;
use abi::vcpu::{REGISTER_VCPU_INFO, RegisterVcpuInfo};
use abi::{Errno, VcpuId};
use guests::memory::Page;
use guests::report::Report;
use guests::xen::{self, SharedInfo};
use guests::{check, check_eq, cpu};
use pv_drivers::guest::{clock, event_channel};
use zerocopy::FromZeros;

guests::main!(run);

static FIRST: Page = Page::new();
static SECOND: Page = Page::new();
static OWN_INFO: Page = Page::new();

fn run(t: &mut Report) {
    FIRST
        .view()
        .u64(0)
        .store(0x1122_3344_5566_7788, Ordering::Relaxed);
    let (Ok(first), Ok(port)) = (
        SharedInfo::map_at(FIRST.gfn()),
        event_channel::bind_ipi(VcpuId(0)),
    ) else {
        check!(t, false, "mapping the page and binding a port");
        return;
    };
    let before = FIRST.view().u64(0).load(Ordering::Relaxed);
    check!(
        t,
        before != 0x1122_3344_5566_7788,
        "the page took the place of the RAM there"
    );
    let start = first.now();
    check!(t, start > 0, "the clock is valid at once");
    first.mask(port);
    check_eq!(t, event_channel::send(port), Ok(0), "sending");
    check!(t, first.is_pending(port), "pending in the page");

    let Ok(second) = SharedInfo::map_at(SECOND.gfn()) else {
        check!(t, false, "moving the page");
        return;
    };
    check!(t, second.is_pending(port), "what was pending moved along");
    check!(t, second.now() >= start, "the clock goes on");
    // Nothing is left at the old place: the page is one and the same.
    check_eq!(
        t,
        cpu::read64(FIRST.address()),
        Ok(u64::MAX),
        "the old place is empty"
    );
    check_eq!(
        t,
        cpu::write64(FIRST.address(), 0),
        Ok(()),
        "writing there goes nowhere"
    );
    check!(t, second.clear_pending(port), "pending in the new place");
    check_eq!(t, event_channel::send(port), Ok(0), "sending again");
    check!(t, second.is_pending(port), "events go to the new place");

    let bad = xen::add_to_physmap(SPACE_SHARED_INFO, 1, SECOND.gfn().raw());
    check!(
        t,
        bad.is_err_and(|refused| refused == Errno::Einval),
        "a second frame ({bad:?})"
    );
    let far = xen::add_to_physmap(SPACE_SHARED_INFO, 0, 1 << 50);
    check!(
        t,
        far.is_err(),
        "a frame beyond the address space ({far:?})"
    );
    check!(
        t,
        second.now() >= start,
        "refused calls leave the page where it is"
    );
    // Memory comes back where the page was.
    check_eq!(
        t,
        xen::populate_physmap(&[FIRST.gfn().raw()]),
        Ok(1),
        "memory at the old place"
    );
    check_eq!(t, cpu::read64(FIRST.address()), Ok(0), "it comes zeroed");

    own_place(t);
}

/// `VCPUOP_register_vcpu_info`: the vCPU's part moves to a page of the guest's.
fn own_place(t: &mut Report) {
    const OFFSET: u32 = 256;
    let mut place = RegisterVcpuInfo::new_zeroed();
    place.mfn = OWN_INFO.gfn().raw();
    place.offset = OFFSET;
    let mut register = || {
        xen::call(
            VCPU_OP,
            [REGISTER_VCPU_INFO, 0, (&raw mut place) as u64, 0, 0],
        )
    };
    check_eq!(t, register(), Ok(0), "a place of its own for vCPU 0");
    let again = register();
    check!(
        t,
        again.is_err_and(|refused| refused == Errno::Einval),
        "a second time ({again:?})"
    );

    let view = OWN_INFO.view();
    let at = OFFSET as usize;
    let selector = view.u64(at + vcpu_info::PENDING_SEL).load(Ordering::SeqCst);
    check_eq!(
        t,
        selector,
        u64::MAX,
        "every word of events is to be looked at"
    );
    check_eq!(t, view.u8(at).load(Ordering::SeqCst), 1, "an upcall is due");
    let record = clock::snapshot(view, at);
    check!(t, record.tsc_to_system_mul != 0, "the clock is there too");
    let now = clock::system_time(&record, cpu::rdtsc());
    check!(t, now > 0 && now < 1 << 50, "and tells the time ({now})");
}
