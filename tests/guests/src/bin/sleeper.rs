//! Sleeps for long and then works without a pause: having slept, it gets no more than its share.
#![no_std]
#![no_main]

use abi::VcpuId;
use guests::report::Report;
use guests::sched::runstates;
use guests::xen::SharedInfo;
use guests::{check, cpu, events, runtime, say};
use pv_drivers::guest::timer;

guests::main!(run);

const SELF: VcpuId = VcpuId(0);
const MS: u64 = 1_000_000;
const SLEEP: u64 = 600 * MS;
const WORK: u64 = 200 * MS;

fn run(t: &mut Report) {
    // Its fluid share in thousandths, and the context-switch allowance in microseconds.
    let share = runtime::option("share").unwrap_or(1000);
    let allowance = runtime::option("allowance").unwrap_or(5000) * 1000;
    let shared = SharedInfo::map();
    let Some(port) = events::handle_timer(t) else {
        return;
    };
    let fluid = WORK * share / 1000;
    for round in 1..=2 {
        let handled = events::count(port);
        let set = timer::set_singleshot(SELF, shared.now() + SLEEP);
        check!(t, set == Ok(0), "a timer ({set:?})");
        events::sleep_past(port, handled);
        let (begun, [ran_before, waited_before, ..]) = (shared.now(), runstates());
        while shared.now() < begun + WORK {
            let _ = cpu::rdtsc();
        }
        let (passed, [ran, waited, ..]) = (shared.now() - begun, runstates());
        let (ran, waited) = (ran - ran_before, waited - waited_before);
        say!("round {round}: {ran} ns run and {waited} ns waited of {passed} ns, fluid {fluid} ns");
        check!(
            t,
            ran <= fluid + allowance + allowance / 5,
            "{ran} ns after a sleep, where {fluid} ns are fair"
        );
        check!(
            t,
            ran + 3 * allowance >= fluid,
            "{ran} ns after a sleep, where {fluid} ns are fair: too little"
        );
        check!(
            t,
            passed.abs_diff(ran + waited) < passed / 100,
            "{passed} ns passed, {} ns told",
            ran + waited
        );
    }
}
