//! Ends its domain with the reason for a restart.
#![no_std]
#![no_main]

use abi::sched::reason;
use guests::report::Report;
use guests::{runtime, say};

guests::main!(run);

fn run(_t: &mut Report) {
    say!("about to restart");
    runtime::end(reason::REBOOT);
}
