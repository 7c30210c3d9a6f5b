//! Measures round trips by RDTSC and prints `bench: NAME=MEDIAN min=MIN` for each.
//!
//! In an emulator whose time stamp counter counts instructions the figures are instructions, the
//! hypervisor's work included.
#![no_std]
#![no_main]

use abi::event_channel::virq;
use abi::{EvtchnPort, VcpuId};
use guests::bench::Bench;
use guests::memory::Page;
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, cpu, events, xen};
use pv_drivers::guest::{clock, event_channel, hvm, sched, timer};
use pv_drivers::hypercall::{Bare, bare};

guests::main!(run);

const SELF: VcpuId = VcpuId(0);
/// Nanoseconds no measurement takes.
const FAR: u64 = 3_600_000_000_000;
/// An address with nothing behind it.
const HOLE: u64 = 0xe000_0000;

static HYPERCALL_PAGE: Page = Page::new();

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
    timers(t, bench, shared);
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
    shared.clear_pending(port);
    shared.clear_mask(port);
    events::handle(false);
    let set = hvm::set_callback_vector(events::UPCALL);
    check!(t, set == Ok(0), "callback vector ({set:?})");
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
    bench.measure("timer_wakes_hlt", || {
        let handled = events::count(port);
        let _ = timer::set_singleshot(SELF, shared.now() + 100_000);
        while events::count(port) == handled {
            cpu::wait_for_interrupt();
        }
    });
}
