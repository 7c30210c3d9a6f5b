//! Sets a watchdog and does not look after it: the domain ends by it while the guest spins.
#![no_std]
#![no_main]

use abi::hypercall::SCHED_OP;
use abi::sched::WATCHDOG;
use abi::sched::Watchdog;
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check_eq, say};
use pv_drivers::hypercall::command;

guests::main!(run);

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let mut request = Watchdog { id: 0, timeout: 1 };
    check_eq!(
        t,
        command(SCHED_OP, WATCHDOG, &mut request),
        Ok(1),
        "the first watchdog"
    );
    say!("spinning until it bites");
    shared.spin_until(u64::MAX);
}
