//! What a guest can tell of how it is scheduled: its runstates, and a clock that all domains
//! share.

use abi::cpuid;
use abi::hypercall::VCPU_OP;
use abi::vcpu::{GET_RUNSTATE_INFO, RunstateInfo};
use zerocopy::FromZeros;

use crate::{cpu, xen};

/// Nanoseconds that this vCPU has been running, runnable, blocked and offline.
///
/// # Panics
/// When the hypervisor refuses to tell.
#[must_use]
pub fn runstates() -> [u64; 4] {
    let mut info = RunstateInfo::new_zeroed();
    let vcpu = cpu::index() as u64;
    let reply = xen::call(
        VCPU_OP,
        [GET_RUNSTATE_INFO, vcpu, (&raw mut info) as u64, 0, 0],
    );
    match reply {
        Ok(_) => info.time,
        Err(refused) => panic!("no runstates: {refused:?}"),
    }
}

/// The host's TSC, by what Xen's CPUID leaf of the time says.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    offset: u64,
    khz: u64,
}

impl HostClock {
    /// Finds the clock.
    #[must_use]
    pub fn find() -> Self {
        let [low, high, ..] = cpu::cpuid(cpuid::BASE + 3, 1);
        let [khz, ..] = cpu::cpuid(cpuid::BASE + 3, 2);
        Self {
            offset: u64::from(high) << 32 | u64::from(low),
            khz: u64::from(khz),
        }
    }

    /// Now, in ticks.
    #[inline]
    #[must_use]
    pub fn now(self) -> u64 {
        cpu::rdtsc().wrapping_sub(self.offset)
    }

    /// Ticks in so many microseconds.
    #[must_use]
    pub const fn ticks(self, us: u64) -> u64 {
        us * self.khz / 1000
    }

    /// Microseconds in so many ticks.
    #[must_use]
    pub const fn us(self, ticks: u64) -> u64 {
        ticks * 1000 / self.khz
    }
}
