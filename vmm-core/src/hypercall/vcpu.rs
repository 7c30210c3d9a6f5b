//! `HYPERVISOR_vcpu_op` (`public/vcpu.h`).

use core::sync::atomic::Ordering;

use abi::vcpu::{
    CompatRunstateInfo, DOWN, GET_PHYSID, GET_RUNSTATE_INFO, INITIALISE, IS_UP,
    REGISTER_RUNSTATE_MEMORY_AREA, REGISTER_RUNSTATE_PHYS_AREA, REGISTER_VCPU_INFO,
    REGISTER_VCPU_TIME_MEMORY_AREA, REGISTER_VCPU_TIME_PHYS_AREA, RegisterArea, RegisterVcpuInfo,
    RunstateInfo, SEND_NMI, SET_PERIODIC_TIMER, SET_SINGLESHOT_TIMER, STOP_PERIODIC_TIMER,
    STOP_SINGLESHOT_TIMER, UP, VcpuTimeInfo,
};
use abi::{Errno, Gfn, VcpuId};

use super::args::Pinned;
use super::{Args, Ctx, HypercallOutcome, initial, int, low_half, timer};
use crate::domain::VcpuRef;
use crate::exit::Next;
use crate::mm::span::Span;
use crate::time::Tsc;
use crate::vcpu::{Signals, VcpuInfo, runstate};

#[inline(never)]
pub(super) fn op(ctx: &mut Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, vcpu, arg, ..] = args;
    let id = VcpuId(int(vcpu));
    if ctx.domain().vcpu(id).is_none() {
        return Errno::Enoent.into();
    }
    ctx.v.recheck_deadlines();
    match low_half(command) {
        SET_SINGLESHOT_TIMER => timer::set_singleshot(ctx, id, arg).into(),
        STOP_SINGLESHOT_TIMER => timer::stop_singleshot(ctx, id).into(),
        SET_PERIODIC_TIMER => timer::set_periodic(ctx, id, arg).into(),
        STOP_PERIODIC_TIMER => timer::stop_periodic(ctx, id).into(),
        GET_PHYSID => Errno::Einval.into(),
        other => match VcpuRef::new(ctx.domain(), id) {
            Some(vcpu) => op_on(ctx, other, &vcpu, arg),
            None => Errno::Enoent.into(),
        },
    }
}

/// The commands that need to reach the vCPU they name.
fn op_on(ctx: &mut Ctx<'_, '_>, command: u64, vcpu: &VcpuRef, arg: u64) -> HypercallOutcome {
    match command {
        REGISTER_VCPU_INFO => register_info(ctx, vcpu, arg),
        REGISTER_RUNSTATE_MEMORY_AREA => register_runstate(ctx, vcpu, arg, Space::Linear),
        REGISTER_RUNSTATE_PHYS_AREA => register_runstate(ctx, vcpu, arg, Space::Physical),
        REGISTER_VCPU_TIME_MEMORY_AREA => register_time(ctx, vcpu, arg, Space::Linear),
        REGISTER_VCPU_TIME_PHYS_AREA => register_time(ctx, vcpu, arg, Space::Physical),
        GET_RUNSTATE_INFO => get_runstate(ctx, vcpu, arg),
        INITIALISE => initialise(ctx, vcpu, arg),
        UP => up(vcpu),
        DOWN => return down(ctx, vcpu),
        // One that is told to go down is down, though it may first have to get a pCPU to do so.
        IS_UP => Ok(u64::from(!vcpu.signals().contains(Signals::DOWN))),
        SEND_NMI if arg != 0 => Err(Errno::Einval),
        SEND_NMI => {
            if vcpu.inbox.post_nmi() {
                vcpu.kick();
            }
            Ok(0)
        }
        _ => Err(Errno::Enosys),
    }
    .into()
}

/// Gives an offline vCPU the state it will start with.
fn initialise(ctx: &Ctx<'_, '_>, vcpu: &VcpuRef, arg: u64) -> Result<u64, Errno> {
    if vcpu.info.lock().is_none() {
        // A vCPU beyond the shared page registers its information first.
        return Err(Errno::Einval);
    }
    let context = ctx.read(arg)?;
    if vcpu.initialised.load(Ordering::SeqCst) {
        return Err(Errno::Eexist);
    }
    let limits = initial::Limits {
        cr4_allowed: ctx.v.cpu.cr4_allowed,
        cr3_end: ctx.domain().p2m.read().gfn_end().gpa().raw(),
    };
    let state = initial::parse(&context, limits)?;
    if vcpu.initialise(state) {
        Ok(0)
    } else {
        Err(Errno::Eexist)
    }
}

fn up(vcpu: &VcpuRef) -> Result<u64, Errno> {
    if !vcpu.initialised.load(Ordering::SeqCst) {
        return Err(Errno::Einval);
    }
    vcpu.online();
    Ok(0)
}

fn down(ctx: &Ctx<'_, '_>, vcpu: &VcpuRef) -> HypercallOutcome {
    if ctx.v.vcpu.is(vcpu) {
        return HypercallOutcome::DoneThen(0, Next::Offline);
    }
    vcpu.signal(Signals::DOWN);
    HypercallOutcome::Done(0)
}

/// Moves a vCPU's `vcpu_info` to a place of the guest's choice.
fn register_info(ctx: &mut Ctx<'_, '_>, vcpu: &VcpuRef, arg: u64) -> Result<u64, Errno> {
    let request: RegisterVcpuInfo = ctx.read(arg)?;
    let domain = ctx.domain();
    let offset = domain.evtchn.lock().check_info_offset(request.offset)?;
    let page = domain
        .pin(Gfn::new(request.mfn))
        .map_err(|_| Errno::Einval)?;
    let info = VcpuInfo::new(page, offset);
    let wake = {
        let mut table = domain.evtchn.lock();
        let wake = table.move_info(vcpu.id, info.page.clone(), offset)?;
        info.publish_time(&domain.time_record(vcpu));
        *vcpu.info.lock() = Some(info.clone());
        wake
    };
    if ctx.v.vcpu.is(vcpu) {
        ctx.v.cpu.info = Some(info);
    } else {
        vcpu.signal(Signals::INFO_MOVED);
    }
    ctx.v.wake(wake);
    Ok(0)
}

/// What kind of address names an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Space {
    Linear,
    Physical,
}

fn register_runstate(
    ctx: &Ctx<'_, '_>,
    vcpu: &VcpuRef,
    arg: u64,
    space: Space,
) -> Result<u64, Errno> {
    let RegisterArea { address } = ctx.read(arg)?;
    let address = area_address(ctx, space, address);
    let wide = ctx.domain().wide.load(Ordering::Relaxed);
    let size = if wide {
        size_of::<RunstateInfo>()
    } else {
        size_of::<CompatRunstateInfo>()
    };
    let area = span(ctx, space, address, size)?.map(|place| runstate::Area::new(place, wide));
    let mut account = vcpu.runstate.lock();
    account.area = area;
    account.publish(false);
    Ok(0)
}

/// The address of an area. Of a linear one a 32-bit caller fills the low half only.
const fn area_address(ctx: &Ctx<'_, '_>, space: Space, address: u64) -> u64 {
    match space {
        Space::Linear if !ctx.wide => low_half(address),
        Space::Linear | Space::Physical => address,
    }
}

fn get_runstate(ctx: &Ctx<'_, '_>, vcpu: &VcpuRef, arg: u64) -> Result<u64, Errno> {
    let now = ctx.domain().clock.system_time(Tsc::now());
    let snapshot = vcpu.runstate.lock().snapshot(now);
    let kind = u32::from(snapshot.kind as u8);
    let info = RunstateInfo::new(kind, snapshot.entered_ns, snapshot.spent_ns);
    if ctx.wide {
        ctx.write(arg, &info)?;
    } else {
        ctx.write(arg, &CompatRunstateInfo::from(info))?;
    }
    Ok(0)
}

/// Sets where a vCPU has the second copy of its time.
fn register_time(ctx: &Ctx<'_, '_>, vcpu: &VcpuRef, arg: u64, space: Space) -> Result<u64, Errno> {
    let RegisterArea { address } = ctx.read(arg)?;
    let address = area_address(ctx, space, address);
    let place = span(ctx, space, address, size_of::<VcpuTimeInfo>())?;
    vcpu.clock.set_second(place);
    ctx.domain().publish_vcpu_time(vcpu);
    Ok(0)
}

/// The memory at an address; none at address 0.
fn span(ctx: &Ctx<'_, '_>, space: Space, address: u64, size: usize) -> Result<Option<Span>, Errno> {
    if address == 0 {
        return Ok(None);
    }
    let Pinned { pages, offset } = match space {
        Space::Linear => ctx.pin_linear(address, size)?,
        Space::Physical => ctx.pin_physical(address, size)?,
    };
    Span::new(pages, offset, size)
        .map(Some)
        .ok_or(Errno::Einval)
}
