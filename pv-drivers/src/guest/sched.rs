//! Giving the CPU away and ending the domain (`SCHEDOP_*`).

use abi::hypercall::SCHED_OP;
use abi::sched::{SHUTDOWN, Shutdown};

pub use crate::hypercall::poll;
use crate::hypercall::{Bare, Reply, bare, command};

/// Lets others run.
///
/// # Errors
/// None that a conforming hypervisor returns.
pub fn yield_now() -> Reply {
    bare(Bare::Yield)
}

/// Sleeps until an event is pending for this vCPU.
///
/// # Errors
/// None that a conforming hypervisor returns.
pub fn block() -> Reply {
    bare(Bare::Block)
}

/// Ends the domain for `reason`, one of [`abi::sched::reason`]. Comes back only when the
/// hypervisor refuses, or after a suspend.
///
/// # Errors
/// None that a conforming hypervisor returns.
pub fn shutdown(reason: u8) -> Reply {
    command(
        SCHED_OP,
        SHUTDOWN,
        &mut Shutdown {
            reason: u32::from(reason),
        },
    )
}
