//! `HYPERVISOR_sched_op` and `HYPERVISOR_vm_assist` (`public/sched.h`, `public/xen.h`).

use core::sync::atomic::Ordering;

use abi::sched::{
    BLOCK, CompatPoll, PIN_OVERRIDE, POLL, POLL_MAX_PORTS, Poll, REMOTE_SHUTDOWN, RemoteShutdown,
    SHUTDOWN, SHUTDOWN_CODE, Shutdown, WATCHDOG, Watchdog, YIELD,
};
use abi::vm_assist::{DISABLE, ENABLE, RUNSTATE_UPDATE_FLAG};
use abi::{DomId, Errno, EvtchnPort};

use super::{Args, Ctx, HypercallOutcome, low_half};
use crate::domain::{ShutdownReason, list};
use crate::evtchn;
use crate::exit::Next;
use crate::time::{Tsc, ticks_from_us};

#[inline(never)]
pub(super) fn op(ctx: &mut Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, arg, ..] = args;
    ctx.v.recheck_deadlines();
    match low_half(command) {
        YIELD => HypercallOutcome::DoneThen(0, Next::Yield),
        BLOCK => HypercallOutcome::DoneThen(0, Next::Block),
        POLL => poll(ctx, arg).unwrap_or_else(HypercallOutcome::from),
        SHUTDOWN => shutdown(ctx, arg).into(),
        WATCHDOG => watchdog(ctx, arg).into(),
        SHUTDOWN_CODE => shutdown_code(ctx, arg).into(),
        REMOTE_SHUTDOWN => remote_shutdown(ctx, arg).into(),
        PIN_OVERRIDE => Errno::Eperm.into(),
        _ => Errno::Enosys.into(),
    }
}

/// The domain ends; the vCPU learns of it before it enters the guest again.
fn shutdown(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let Shutdown { reason } = ctx.read(arg)?;
    ctx.domain().shut_down(ShutdownReason::from_raw(reason));
    Ok(0)
}

/// Notes the reason for the shutdown to come, whatever that will say.
fn shutdown_code(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let Shutdown { reason } = ctx.read(arg)?;
    ctx.domain()
        .life
        .note_reason(ShutdownReason::from_raw(reason));
    Ok(0)
}

/// Ending another domain, or itself this way, is the control domain's business.
fn remote_shutdown(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request: RemoteShutdown = ctx.read(arg)?;
    match list::by_id(DomId(request.domid)) {
        Some(_) => Err(Errno::Eperm),
        None => Err(Errno::Esrch),
    }
}

/// Waits until one of the ports is pending, an upcall comes, or the time is over.
fn poll(ctx: &mut Ctx<'_, '_>, arg: u64) -> Result<HypercallOutcome, Errno> {
    let request: Poll = ctx.read_either::<Poll, CompatPoll>(arg)?;
    if request.nr_ports > POLL_MAX_PORTS {
        return Err(Errno::Einval);
    }
    let mut numbers = [0u32; POLL_MAX_PORTS as usize];
    let numbers = numbers
        .get_mut(..request.nr_ports as usize)
        .ok_or(Errno::Einval)?;
    ctx.read_slice(request.ports, numbers)?;
    let mut ports = [EvtchnPort(0); POLL_MAX_PORTS as usize];
    for (port, number) in ports.iter_mut().zip(numbers.iter()) {
        *port = EvtchnPort(*number);
    }
    let ports = ports.get(..numbers.len()).unwrap_or_default();
    let started = ctx
        .domain()
        .evtchn
        .lock()
        .start_poll(ctx.v.vcpu.id, ports)?;
    if started == evtchn::Poll::Ready {
        return Ok(HypercallOutcome::Done(0));
    }
    ctx.v.cpu.polling = true;
    ctx.v.cpu.timers.poll = match request.timeout {
        0 => Tsc::NEVER,
        timeout => ctx.domain().clock.instant(timeout),
    };
    Ok(HypercallOutcome::DoneThen(0, Next::Block))
}

/// Starts, sets again or gives back a watchdog of the domain.
fn watchdog(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let Watchdog { id, timeout } = ctx.read(arg)?;
    let ticks = ticks_from_us(u64::from(timeout).saturating_mul(1_000_000));
    let deadline = (timeout != 0).then(|| Tsc::now().after(ticks));
    let watchdogs = &ctx.domain().watchdogs;
    match (id, deadline) {
        // One that is to bite in no time does so.
        (0, deadline) => watchdogs.start(deadline.unwrap_or_else(Tsc::now)),
        (id, deadline) => watchdogs.set(id, deadline).map(|()| 0),
    }
}

/// Turns a feature of the domain on or off.
#[inline(never)]
pub(super) fn vm_assist(ctx: &Ctx<'_, '_>, args: Args) -> Result<u64, Errno> {
    let [command, kind, ..] = args;
    if low_half(kind) != RUNSTATE_UPDATE_FLAG {
        return Err(Errno::Einval);
    }
    let bit = 1u32 << RUNSTATE_UPDATE_FLAG;
    let assists = &ctx.domain().vm_assist;
    match low_half(command) {
        ENABLE => assists.fetch_or(bit, Ordering::Relaxed),
        DISABLE => assists.fetch_and(!bit, Ordering::Relaxed),
        _ => return Err(Errno::Enosys),
    };
    Ok(0)
}
