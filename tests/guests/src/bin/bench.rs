//! Measures round trips by RDTSC and prints `bench: NAME=MEDIAN min=MIN` for each.
//!
//! In an emulator whose time stamp counter counts instructions the figures are instructions, the
//! hypervisor's work included.
#![no_std]
#![no_main]

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::blkif::{self, op};
use abi::event_channel::virq;
use abi::grant_table::{COPY, MAP_GRANT_REF, UNMAP_GRANT_REF, flags, map_flags, status};
use abi::hypercall::{MULTICALL, XEN_VERSION, multicall};
use abi::xenbus::XenbusState;
use abi::{EvtchnPort, GrantRef, VcpuId};
use guests::bench::Bench;
use guests::disk::{Disk, request, segment};
use guests::grants::{self, HOLE as MAP_AT, Side, copy_request, map_request, unmap_request};
use guests::memory::Page;
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, cpu, events, smp, xen};
use pv_drivers::guest::{clock, event_channel, gnttab, sched, timer};
use pv_drivers::hypercall::{Bare, bare};

guests::main!(run);

const SELF: VcpuId = VcpuId(0);
/// Nanoseconds no measurement takes.
const FAR: u64 = 3_600_000_000_000;
/// The number of `xvda`.
const XVDA: u32 = 51712;
/// An address with nothing behind it.
const HOLE: u64 = 0xe000_0000;

static HYPERCALL_PAGE: Page = Page::new();
static BALLOON: Page = Page::new();

/// When vCPU 0 last gave the pCPU away, until the other one sees it.
static LEFT_AT: AtomicU64 = AtomicU64::new(0);
/// How long it took until the other one ran, until vCPU 0 sees it.
static TOOK: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicBool = AtomicBool::new(false);
static GRANTED: Page = Page::new();
static OWN: Page = Page::new();

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let bench = Bench::calibrate();
    // What is measured cannot fail where the other micro-guests pass; its cost is the point.
    bench.measure("xen_version", || {
        let _ = bare(Bare::XenVersion);
    });
    if let Ok(page) = xen::hypercall_page(&HYPERCALL_PAGE) {
        bench.measure("xen_version_by_page", || {
            let _ = xen::call_through(page, 17, [0; 5]);
        });
    }
    bench.measure("unknown_hypercall", || {
        let _ = xen::call(63, [0; 5]);
    });
    bench.measure("cpuid_0", || {
        let _ = cpu::cpuid(0, 0);
    });
    bench.measure("cpuid_1", || {
        let _ = cpu::cpuid(1, 0);
    });
    bench.measure("rdmsr_apic_base", || {
        let _ = cpu::rdmsr(0x1b);
    });
    bench.measure("rdmsr_absent", || {
        let _ = cpu::rdmsr(0x1234_5678);
    });
    bench.measure("in_80", || {
        let _ = cpu::in8(0x80);
    });
    bench.measure("read_hole", || {
        let _ = cpu::read32(HOLE);
    });
    bench.measure("apic_id", || {
        let _ = cpu::read32(0xfee0_0020);
    });
    bench.measure("yield", || {
        let _ = sched::yield_now();
    });
    bench.measure("clock", || {
        let record = clock::snapshot(shared.page(), shared.vcpu_info());
        core::hint::black_box(clock::system_time(&record, cpu::rdtsc()));
    });
    let Ok(port) = event_channel::bind_ipi(SELF) else {
        check!(t, false, "binding an IPI");
        return;
    };
    event(t, bench, shared, port);
    batch(t, bench);
    memory(t, bench);
    timers(t, bench, shared);
    grants(t, bench);
    disk(t, bench);
    switch(t, bench);
}

/// A disk in RAM: one request at a time, and as many as its ring holds.
fn disk(t: &mut Report, bench: Bench) {
    let Some(mut disk) = Disk::find(XVDA) else {
        check!(t, false, "a disk");
        return;
    };
    let whole = [segment(disk.grefs[0], 0, 7)];
    let (read, write) = (request(op::READ, 8, &whole), request(op::WRITE, 8, &whole));
    let mut failed = u64::from(disk.connect() != XenbusState::Connected);
    for (name, request) in [("vbd_read_4096", &read), ("vbd_write_4096", &write)] {
        bench.measure(name, || {
            failed += u64::from(disk.request(request) != blkif::status::OKAY);
        });
    }
    bench.measure("vbd_read_32x4096", || {
        while disk.push(&read) {}
        disk.kick();
        let mut answers = 0;
        while let Some(answer) = disk.response() {
            answers += u64::from(answer.status == blkif::status::OKAY);
        }
        failed += 32 - answers;
    });
    disk.close();
    let disk = RefCell::new(disk);
    let connect = || {
        disk.borrow_mut().connect();
    };
    let close = || {
        disk.borrow_mut().close();
    };
    bench.measure_and_undo("vbd_connect", connect, close);
    check_eq!(t, failed, 0, "failed requests");
}

fn batch(t: &mut Report, bench: Bench) {
    let mut calls = [(); 8].map(|()| multicall::Entry {
        op: XEN_VERSION,
        result: 0,
        args: [0; 6],
    });
    let list = (&raw mut calls) as u64;
    let mut reply = Ok(0);
    bench.measure("multicall_8", || {
        reply = xen::call(MULTICALL, [list, 8, 0, 0, 0]);
    });
    check!(t, reply == Ok(0), "a batch ({reply:?})");
}

fn memory(t: &mut Report, bench: Bench) {
    let frames = [BALLOON.gfn().raw()];
    let (mut given, mut got) = (Ok(0), Ok(0));
    bench.measure_and_undo(
        "decrease_1",
        || given = xen::decrease_reservation(&frames),
        || got = xen::populate_physmap(&frames),
    );
    check!(t, (given, got) == (Ok(1), Ok(1)), "one page out and in");
    let _ = xen::decrease_reservation(&frames);
    bench.measure_and_undo(
        "populate_1",
        || got = xen::populate_physmap(&frames),
        || given = xen::decrease_reservation(&frames),
    );
    check!(t, (given, got) == (Ok(1), Ok(1)), "one page in and out");
}

/// The other vCPU: gives the pCPU back again and again, and notes how long it took to come here.
fn partner() {
    while !DONE.load(Ordering::SeqCst) {
        let now = cpu::rdtsc();
        let since = LEFT_AT.swap(0, Ordering::SeqCst);
        if since != 0 {
            TOOK.store(now.wrapping_sub(since), Ordering::SeqCst);
        }
        let _ = sched::yield_now();
    }
}

/// From one vCPU to another on the same pCPU.
fn switch(t: &mut Report, bench: Bench) {
    let started = smp::start_by_hypercall(partner);
    check!(t, started.is_ok(), "the second vCPU ({started:?})");
    let mut missed = 0_u32;
    bench.collect("yield_to_another", || {
        LEFT_AT.store(cpu::rdtsc(), Ordering::SeqCst);
        for _ in 0..1000 {
            let _ = sched::yield_now();
            match TOOK.swap(0, Ordering::SeqCst) {
                0 => missed += 1,
                ticks => return ticks,
            }
        }
        0
    });
    DONE.store(true, Ordering::SeqCst);
    check!(t, missed < 1000, "the other vCPU ran ({missed} times not)");
}

fn event(t: &mut Report, bench: Bench, shared: SharedInfo, port: EvtchnPort) {
    shared.mask(port);
    bench.measure("send_masked", || {
        let _ = event_channel::send(port);
        shared.clear_pending(port);
    });
    bench.measure("send_pending", || {
        let _ = event_channel::send(port);
    });
    bench.measure("evtchn_status", || {
        let _ = core::hint::black_box(event_channel::status(port));
    });
    shared.clear_pending(port);
    shared.clear_mask(port);
    events::handle_callbacks(t);
    cpu::enable_interrupts();
    bench.measure("send_to_self", || {
        let _ = event_channel::send(port);
    });
    check!(t, events::count(port) > 0, "events came");
    cpu::disable_interrupts();
}

fn timers(t: &mut Report, bench: Bench, shared: SharedInfo) {
    let far = shared.now() + FAR;
    bench.measure("set_singleshot", || {
        let _ = timer::set_singleshot(SELF, far);
    });
    bench.measure("stop_singleshot", || {
        let _ = timer::stop_singleshot(SELF);
    });
    bench.measure("set_timer_op", || {
        let _ = timer::set_timer(far);
    });
    let Ok(port) = event_channel::bind_virq(virq::TIMER, SELF) else {
        check!(t, false, "binding the timer");
        return;
    };
    bench.collect("timer_wake_hlt_lateness", || {
        let record = clock::snapshot(shared.page(), shared.vcpu_info());
        let due = cpu::rdtsc() + 20_000;
        let handled = events::count(port);
        let _ = timer::set_singleshot(SELF, clock::system_time(&record, due));
        events::sleep_past(port, handled);
        events::last(port).saturating_sub(due)
    });
}

/// What other domains do, this one does with a page of its own: nothing in the way knows.
fn grants(t: &mut Report, bench: Bench) {
    let gref = GrantRef(8);
    let me = xen::domid();
    check!(t, grants::table().is_ok(), "the grant table");
    grants::write_entry(gref, flags::PERMIT_ACCESS, me, GRANTED.gfn());
    let (source, dest) = (Side::Grant(me, gref, 0), Side::Frame(OWN.gfn(), 0));
    for (name, length) in [("grant_copy_4096", 4096), ("grant_copy_64", 64)] {
        let mut request = [copy_request(source, dest, length)];
        bench.measure(name, || {
            let _ = grants::operate(COPY, &mut request);
        });
        check_eq!(t, request[0].status, status::OKAY, "{name}");
    }
    let mut many = [(); 16].map(|()| copy_request(source, dest, 4096));
    bench.measure("grant_copy_16x4096", || {
        let _ = grants::operate(COPY, &mut many);
    });
    let good = many.iter().all(|done| done.status == status::OKAY);
    check!(t, good, "all copies of an array");
    let handle = Cell::new(0);
    let map = || {
        let mut request = [map_request(me, gref, MAP_AT, map_flags::HOST_MAP)];
        let _ = grants::operate(MAP_GRANT_REF, &mut request);
        handle.set(request[0].handle);
    };
    let unmap = || {
        let mut request = [unmap_request(handle.get(), MAP_AT)];
        let _ = grants::operate(UNMAP_GRANT_REF, &mut request);
    };
    bench.measure_and_undo("grant_map", map, unmap);
    check_eq!(
        t,
        cpu::read64(MAP_AT.gpa().raw()),
        Ok(u64::MAX),
        "the page is gone"
    );
    map();
    bench.measure_and_undo("grant_unmap", unmap, map);
    check_eq!(
        t,
        cpu::read64(MAP_AT.gpa().raw()),
        Ok(0),
        "the page is mapped"
    );
    unmap();
    let mut request = [map_request(me, GrantRef(9), MAP_AT, map_flags::HOST_MAP)];
    bench.measure("grant_map_refused", || {
        let _ = grants::operate(MAP_GRANT_REF, &mut request);
    });
    bench.measure("grant_query_size", || {
        let _ = gnttab::query_size();
    });
}
