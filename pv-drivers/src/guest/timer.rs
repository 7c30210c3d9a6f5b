//! The timers of a vCPU (`VCPUOP_*_timer`, `HYPERVISOR_set_timer_op`).

use abi::VcpuId;
use abi::vcpu::{SET_PERIODIC_TIMER, SET_SINGLESHOT_TIMER, SetPeriodicTimer, SetSingleshotTimer};
use zerocopy::FromZeros;

use crate::hypercall::{Bare, Reply, bare, vcpu_command};

/// Has the timer of the calling vCPU, `vcpu`, fire once when system time reaches `deadline`.
///
/// # Errors
/// `-ENOENT` for no such vCPU, `-EINVAL` for one that is not the caller.
pub fn set_singleshot(vcpu: VcpuId, deadline: u64) -> Reply {
    let mut argument = SetSingleshotTimer::new_zeroed();
    argument.timeout_abs_ns = deadline;
    vcpu_command(SET_SINGLESHOT_TIMER, vcpu.0, &mut argument)
}

/// Stops the one-shot timer of the calling vCPU, `vcpu`.
///
/// # Errors
/// As [`set_singleshot`].
pub fn stop_singleshot(vcpu: VcpuId) -> Reply {
    bare(Bare::StopSingleshotTimer(vcpu))
}

/// Has the timer of `vcpu` fire every `period` nanoseconds.
///
/// # Errors
/// `-ENOENT` for no such vCPU, `-EINVAL` for a period below a millisecond.
pub fn set_periodic(vcpu: VcpuId, period: u64) -> Reply {
    vcpu_command(
        SET_PERIODIC_TIMER,
        vcpu.0,
        &mut SetPeriodicTimer { period_ns: period },
    )
}

/// Stops the periodic timer of `vcpu`.
///
/// # Errors
/// `-ENOENT` for no such vCPU.
pub fn stop_periodic(vcpu: VcpuId) -> Reply {
    bare(Bare::StopPeriodicTimer(vcpu))
}

/// The older call for the calling vCPU's timer: fires at `deadline`, 0 stops it.
///
/// # Errors
/// None that a conforming hypervisor returns.
pub fn set_timer(deadline: u64) -> Reply {
    bare(Bare::SetTimer(deadline))
}
