//! A #DB that raises a #DB in its own delivery, for ever: the watchdog must end it, and nobody
//! else must notice.
#![no_std]
#![no_main]

use abi::hypercall::SCHED_OP;
use abi::sched::{WATCHDOG, Watchdog};
use guests::memory::Page;
use guests::report::Report;
use guests::{check, check_eq, debug};
use pv_drivers::hypercall::command;

guests::main!(run);

static STACK: Page = Page::new();

fn run(t: &mut Report) {
    let mut request = Watchdog { id: 0, timeout: 1 };
    check_eq!(
        t,
        command(SCHED_OP, WATCHDOG, &mut request),
        Ok(1),
        "the watchdog"
    );
    debug::storm(STACK.address() + abi::PAGE_SIZE as u64);
    check!(t, false, "the storm has passed");
}
