//! What guests ask of consoles beyond their share of one exit, and of devices before these are
//! connected, and what comes in from outside beyond that of one go: the boot pCPU does it, in rounds, a
//! share for each domain and each uplink in every round.
//!
//! A guest can see to it that there is always something left. So between two rounds vCPUs have
//! the pCPU for a while; with none to run, the rounds follow each other.
//!
//! Whoever leaves something first makes that visible and then has the boot pCPU look again
//! ([`PerCpu::reschedule`](crate::percpu::PerCpu::reschedule)).

use core::sync::atomic::{AtomicU64, Ordering};

use crate::storage::claims;
use crate::time::{self, Tsc};
use crate::{backend, console, network};

/// How long vCPUs have the boot pCPU between two rounds, in microseconds.
const REST_US: u64 = 1_000;

/// When the last round ended, in TSC ticks.
static LAST_ROUND: AtomicU64 = AtomicU64::new(0);

/// True when something is left.
#[must_use]
pub fn any() -> bool {
    console::has_more() || backend::has_more() || network::has_more()
}

/// When the next round is due, or a disk is to be looked at; never while nothing is left.
#[must_use]
pub fn due() -> Tsc {
    let last = Tsc(LAST_ROUND.load(Ordering::Relaxed));
    next_round(any(), last, time::ticks_from_us(REST_US)).min(claims::deadline())
}

fn next_round(any: bool, last: Tsc, rest: u64) -> Tsc {
    if any { last.after(rest) } else { Tsc::NEVER }
}

/// A round. Called on the boot pCPU.
pub fn serve() {
    claims::look(Tsc::now());
    console::serve_more();
    backend::serve_more();
    network::serve_more();
    LAST_ROUND.store(Tsc::now().0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::next_round;
    use crate::time::Tsc;

    #[test]
    fn a_round_waits_for_the_rest_after_the_last_one() {
        assert_eq!(next_round(false, Tsc(70), 100), Tsc::NEVER);
        assert_eq!(next_round(true, Tsc(70), 100), Tsc(170));
    }
}
