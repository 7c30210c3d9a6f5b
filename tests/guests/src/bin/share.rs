//! Works without a pause and tells, at each full half second of the host's clock, how much it has
//! done and how long it ran and waited: whoever reads it compares domains.
#![no_std]
#![no_main]

use core::hint::black_box;

use guests::report::Report;
use guests::sched::{HostClock, runstates};
use guests::{check, runtime, say};

guests::main!(run);

/// Microseconds between two reports.
const PERIOD: u64 = 500_000;

fn run(t: &mut Report) {
    let clock = HostClock::find();
    let period = clock.ticks(PERIOD);
    let reports = runtime::option("reports").unwrap_or(10);
    let first = clock.now() / period + 1;
    let mut work = 0_u64;
    for at in first..first + reports {
        while clock.now() < at * period {
            work = black_box(work + 1);
        }
        let ([running, runnable, ..], us) = (runstates(), clock.us(clock.now()));
        say!("share: at={at} us={us} running={running} runnable={runnable} work={work}");
    }
    check!(t, work > 0, "work was done");
}
