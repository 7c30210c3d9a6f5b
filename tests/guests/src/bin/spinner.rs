//! Never yields: spins with interrupts off, for `ms=` milliseconds or for ever.
#![no_std]
#![no_main]

use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, runtime, say};

guests::main!(run);

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let limit = runtime::option("ms").map_or(u64::MAX, |ms: u64| ms * 1_000_000);
    let end = shared.now().saturating_add(limit);
    say!("spinning");
    shared.spin_until(end);
    check!(t, shared.now() >= end, "time went by");
}
