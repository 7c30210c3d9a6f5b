//! The timers that raise `VIRQ_TIMER`: `HYPERVISOR_set_timer_op` and the timer commands of
//! `HYPERVISOR_vcpu_op` (`public/xen.h`, `public/vcpu.h`).
//!
//! A vCPU sets its own one-shot timer only. Its periodic timer may be set by others too, which ask
//! it to do so.

use abi::vcpu::{CompatSetSingleshotTimer, MIN_PERIOD_NS, SetPeriodicTimer, SetSingleshotTimer};
use abi::{Errno, VcpuId};

use core::sync::atomic::Ordering;

use super::{Args, Ctx};
use crate::domain::VcpuRef;
use crate::time::Tsc;
use crate::vcpu::Signals;

/// A timeout further ahead than this is taken for a clock that went wrong.
const FAR_NS: u64 = 1 << 50;
/// The longest period (`STIME_DELTA_MAX`).
const MAX_PERIOD_NS: u64 = u64::MAX >> 2;
/// What such a timeout is shortened to.
const SOON_NS: u64 = 100_000_000;

/// Sets the one-shot timer to an absolute system time, or stops it.
#[inline(never)]
pub(super) fn set_timer_op(ctx: &mut Ctx<'_, '_>, args: Args) -> Result<u64, Errno> {
    let [low, high, ..] = args;
    ctx.v.recheck_deadlines();
    // A 64-bit value takes two registers of a 32-bit caller.
    let timeout = if ctx.wide { low } else { high << 32 | low };
    let clock = &ctx.domain().clock;
    let now = || clock.system_time(Tsc::now());
    ctx.v.cpu.timers.singleshot = match deadline(timeout, now) {
        Some(ns) => clock.instant(ns),
        None => Tsc::NEVER,
    };
    Ok(0)
}

/// When a timer set to `timeout` fires; never for 0.
#[inline(always)]
fn deadline(timeout: u64, now: impl Fn() -> u64) -> Option<u64> {
    match timeout {
        0 => None,
        1..FAR_NS => Some(timeout),
        FAR_NS.. => Some(far_deadline(timeout, now())),
    }
}

#[cold]
fn far_deadline(timeout: u64, now: u64) -> u64 {
    let absurd = i64::try_from(timeout).is_err() || timeout.saturating_sub(now) >= FAR_NS;
    if absurd {
        now.saturating_add(SOON_NS)
    } else {
        timeout
    }
}

pub(super) fn set_singleshot(ctx: &mut Ctx<'_, '_>, vcpu: VcpuId, arg: u64) -> Result<u64, Errno> {
    check_self(ctx, vcpu)?;
    let request = ctx.read_either::<SetSingleshotTimer, CompatSetSingleshotTimer>(arg)?;
    // A time that has passed fires at once.
    ctx.v.cpu.timers.singleshot = ctx.domain().clock.instant(request.timeout_abs_ns);
    Ok(0)
}

pub(super) fn stop_singleshot(ctx: &mut Ctx<'_, '_>, vcpu: VcpuId) -> Result<u64, Errno> {
    check_self(ctx, vcpu)?;
    ctx.v.cpu.timers.singleshot = Tsc::NEVER;
    Ok(0)
}

pub(super) fn set_periodic(ctx: &mut Ctx<'_, '_>, vcpu: VcpuId, arg: u64) -> Result<u64, Errno> {
    let request: SetPeriodicTimer = ctx.read(arg)?;
    if !(MIN_PERIOD_NS..=MAX_PERIOD_NS).contains(&request.period_ns) {
        return Err(Errno::Einval);
    }
    set_period(ctx, vcpu, request.period_ns)
}

pub(super) fn stop_periodic(ctx: &mut Ctx<'_, '_>, vcpu: VcpuId) -> Result<u64, Errno> {
    set_period(ctx, vcpu, 0)
}

/// Sets a vCPU's periodic timer; another vCPU than the caller does that itself when it next runs.
fn set_period(ctx: &mut Ctx<'_, '_>, vcpu: VcpuId, ns: u64) -> Result<u64, Errno> {
    if ctx.v.shared.id == vcpu {
        ctx.v.set_period(ns);
    } else {
        let vcpu = VcpuRef::new(ctx.domain(), vcpu).ok_or(Errno::Enoent)?;
        vcpu.period.store(ns, Ordering::SeqCst);
        vcpu.signal(Signals::TIMERS);
    }
    Ok(0)
}

fn check_self(ctx: &Ctx<'_, '_>, vcpu: VcpuId) -> Result<(), Errno> {
    if ctx.v.shared.id == vcpu {
        Ok(())
    } else {
        Err(Errno::Einval)
    }
}

#[cfg(test)]
mod tests {
    use super::{FAR_NS, SOON_NS, deadline};

    #[test]
    fn a_timer_fires_when_asked_or_soon_if_that_is_absurd() {
        assert_eq!(deadline(0, || 50), None);
        assert_eq!(deadline(100, || 50), Some(100));
        assert_eq!(deadline(20, || 50), Some(20));
        assert_eq!(deadline(50 + FAR_NS, || 50), Some(50 + SOON_NS));
        let late = 3 * FAR_NS;
        assert_eq!(deadline(late + 7, || late), Some(late + 7));
        assert_eq!(deadline(-1i64 as u64, || 50), Some(50 + SOON_NS));
    }
}
