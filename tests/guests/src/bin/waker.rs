//! Sleeps until a timer, does next to nothing, and sleeps again: how late does it run beside
//! guests that never pause?
#![no_std]
#![no_main]

use abi::VcpuId;
use guests::report::Report;
use guests::sched::{HostClock, runstates};
use guests::xen::SharedInfo;
use guests::{check, events, runtime, say};
use pv_drivers::guest::timer;

guests::main!(run);

const SELF: VcpuId = VcpuId(0);
/// Nanoseconds from one wake to the next: no multiple of anything in the hypervisor.
const PERIOD: u64 = 13_700_000;

fn run(t: &mut Report) {
    // The most microseconds that it may run late.
    let limit = runtime::option("late").unwrap_or(u64::MAX);
    let wakes = runtime::option("wakes").unwrap_or(60);
    let shared = SharedInfo::map();
    let clock = HostClock::find();
    let Some(port) = events::handle_timer(t) else {
        return;
    };
    let [_, waited_before, slept_before, _] = runstates();
    let begun = shared.now();
    let mut worst = 0;
    for _ in 0..wakes {
        let handled = events::count(port);
        let deadline = shared.now() + PERIOD;
        let set = timer::set_singleshot(SELF, deadline);
        check!(t, set == Ok(0), "a timer ({set:?})");
        events::sleep_past(port, handled);
        worst = worst.max(shared.now().saturating_sub(deadline));
    }
    let passed = shared.now() - begun;
    let [_, waited, slept, _] = runstates();
    let (waited, slept) = (waited - waited_before, slept - slept_before);
    say!(
        "late: {} us at worst, {waited} ns waited, {slept} ns slept of {passed} ns",
        worst / 1000
    );
    check!(t, worst / 1000 <= limit, "{} us late", worst / 1000);
    // What it slept longer than it asked for is time it waited, and is told as such.
    let asked = wakes * PERIOD;
    check!(
        t,
        slept.abs_diff(asked) < asked / 100,
        "{slept} ns asleep, {asked} ns asked for"
    );
    check!(
        t,
        waited < worst * wakes,
        "{waited} ns waited, at most {worst} ns each time"
    );
    check!(t, clock.us(clock.now()) > 0, "the host has a clock");
}
