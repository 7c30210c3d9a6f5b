//! Ends its domain with the reason for a crash.
#![no_std]
#![no_main]

use abi::sched::reason;
use guests::report::Report;
use guests::{runtime, say};

guests::main!(run);

fn run(_t: &mut Report) {
    say!("about to crash");
    runtime::end(reason::CRASH);
}
