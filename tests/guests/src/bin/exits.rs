//! Does each frequent operation many times between two marks, for somebody who counts this guest's
//! exits from outside: a nested hypervisor's own hypervisor.
//!
//! A mark is an OUT to a port of its own, which an exit's details name: `0x5e00 + 2 * n` before the
//! operations of phase `n` and the next port after them. Then `phase: NAME=COUNT` for each, in
//! order. The first phase does nothing and shows what marks cost.
#![no_std]
#![no_main]

use core::cell::Cell;

use abi::event_channel::virq;
use abi::{EvtchnPort, VcpuId};

use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, cpu, events, say};
use pv_drivers::guest::{event_channel, sched, timer};
use pv_drivers::hypercall::{Bare, bare};

guests::main!(run);

const SELF: VcpuId = VcpuId(0);
/// The first mark's port.
const MARKS: u16 = 0x5e00;
/// Operations of a phase, and before it, so that everything is mapped.
const ROUNDS: u32 = 100;
const WARM_UP: u32 = 8;
/// Nanoseconds until a timer that a busy guest waits for: longer than a nested exit takes in an
/// emulator, shorter than the outer hypervisor's own ticks.
const SOON: u64 = 2_000_000;
/// Nanoseconds until a timer that an idle guest waits for.
const LATER: u64 = 20_000_000;
/// Nanoseconds no run takes.
const FAR: u64 = 3_600_000_000_000;
/// Where untouched memory starts, and its 2 MiB pages that are touched.
const UNTOUCHED: u64 = 32 << 20;
const LARGE_PAGE: u64 = 2 << 20;
const PAGES: u64 = 24;

/// Names and counts of the phases done.
struct Phases {
    done: [(&'static str, u32); 16],
    count: u16,
}

impl Phases {
    fn phase(&mut self, name: &'static str, rounds: u32, mut operation: impl FnMut()) {
        let mark = MARKS + 2 * self.count;
        let _ = cpu::out8(mark, 0);
        for _ in 0..rounds {
            operation();
        }
        let _ = cpu::out8(mark + 1, 0);
        self.done[usize::from(self.count)] = (name, rounds);
        self.count += 1;
    }

    fn warm(&mut self, name: &'static str, mut operation: impl FnMut()) {
        for _ in 0..WARM_UP {
            operation();
        }
        self.phase(name, ROUNDS, operation);
    }
}

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let mut phases = Phases {
        done: [("", 0); 16],
        count: 0,
    };
    phases.warm("nothing", || {});
    phases.warm("hypercall", || {
        let _ = bare(Bare::XenVersion);
    });
    phases.warm("cpuid", || {
        let _ = cpu::cpuid(1, 0);
    });
    phases.warm("rdmsr", || {
        let _ = cpu::rdmsr(0x1b);
    });
    phases.warm("yield", || {
        let _ = sched::yield_now();
    });
    let Ok(port) = event_channel::bind_ipi(SELF) else {
        check!(t, false, "binding an IPI");
        return;
    };
    let Ok(ticks) = event_channel::bind_virq(virq::TIMER, SELF) else {
        check!(t, false, "binding the timer");
        return;
    };
    events::handle_callbacks(t);
    shared.clear_mask(port);
    shared.clear_mask(ticks);
    cpu::enable_interrupts();
    phases.warm("event_to_self", || {
        let _ = event_channel::send(port);
    });
    check!(
        t,
        events::count(port) == u64::from(ROUNDS + WARM_UP),
        "an event for each send"
    );
    timers(&mut phases, shared, ticks);
    cpu::disable_interrupts();
    let next = Cell::new(UNTOUCHED);
    phases.phase("first_touch_2m", u32::try_from(PAGES).unwrap_or(0), || {
        let _ = cpu::write8(next.get(), 1);
        next.set(next.get() + LARGE_PAGE);
    });
    for (name, rounds) in phases.done.iter().take(phases.count.into()) {
        say!("phase: {name}={rounds}");
    }
}

fn timers(phases: &mut Phases, shared: SharedInfo, port: EvtchnPort) {
    phases.warm("set_timer", || {
        let _ = timer::set_singleshot(SELF, shared.now() + FAR);
    });
    phases.warm("set_timer_and_tick_while_busy", || {
        let handled = events::count(port);
        let _ = timer::set_singleshot(SELF, shared.now() + SOON);
        while events::count(port) == handled {
            core::hint::spin_loop();
        }
    });
    phases.warm("set_timer_and_tick_while_idle", || {
        let handled = events::count(port);
        let _ = timer::set_singleshot(SELF, shared.now() + LATER);
        events::sleep_past(port, handled);
    });
}
