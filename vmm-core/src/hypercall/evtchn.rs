//! `HYPERVISOR_event_channel_op` (`public/event_channel.h`).

use alloc::sync::Arc;
use core::mem::offset_of;

use abi::event_channel::{
    ALLOC_UNBOUND, AllocUnbound, BIND_INTERDOMAIN, BIND_IPI, BIND_PIRQ, BIND_VCPU, BIND_VIRQ,
    BindInterdomain, BindIpi, BindPirq, BindVcpu, BindVirq, CLOSE, EXPAND_ARRAY, ExpandArray,
    INIT_CONTROL, InitControl, Port, RESET, RESET_CONT, Reset, SEND, SET_PRIORITY, STATUS,
    SetPriority, Status, UNMASK,
};
use abi::{DomId, Errno, EvtchnPort, Gfn, VcpuId, Virq};
use spin::MutexGuard;

use super::{Args, Ctx, HypercallOutcome, low_half};
use crate::domain::{Domain, list};
use crate::evtchn::{Closed, DeviceQueue, EvtchnTable, Peer, Sent, Service};
use crate::{backend, console, store};

/// Ports that a reset closes before it lets other work have a turn.
const RESET_BATCH: u32 = 64;
/// Steps that a ring is served in one exit at most.
const SERVE_STEPS: u32 = 64;

#[inline(never)]
pub(super) fn op(ctx: &mut Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, arg, ..] = args;
    match low_half(command) {
        SEND => return send(ctx, args),
        UNMASK => unmask(ctx, arg),
        BIND_INTERDOMAIN => bind_interdomain(ctx, arg),
        BIND_VIRQ => bind_virq(ctx, arg),
        BIND_IPI => bind_ipi(ctx, arg),
        BIND_VCPU => bind_vcpu(ctx, arg),
        // No guest has physical interrupts, so whichever is named is none.
        BIND_PIRQ => ctx.read::<BindPirq>(arg).and(Err(Errno::Einval)),
        CLOSE => close(ctx, arg),
        STATUS => status(ctx, arg),
        ALLOC_UNBOUND => alloc_unbound(ctx, arg),
        INIT_CONTROL => init_control(ctx, arg),
        EXPAND_ARRAY => expand_array(ctx, arg),
        SET_PRIORITY => set_priority(ctx, arg),
        RESET | RESET_CONT => return reset(ctx, args),
        _ => Err(Errno::Enosys),
    }
    .map(|()| 0)
    .into()
}

fn table<'v>(ctx: &Ctx<'_, 'v>) -> MutexGuard<'v, EvtchnTable> {
    ctx.domain().evtchn.lock()
}

fn port_argument(ctx: &Ctx<'_, '_>, arg: u64) -> Result<EvtchnPort, Errno> {
    ctx.read::<Port>(arg)
        .map(|argument| EvtchnPort(argument.port))
}

fn send(ctx: &mut Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [_, arg, ..] = args;
    match deliver(ctx, arg) {
        Ok(None) => HypercallOutcome::Done(0),
        Ok(Some(asked)) => serve(ctx, args, asked),
        Err(errno) => errno.into(),
    }
}

/// Whom in the hypervisor an event asks for something.
#[derive(Clone, Copy)]
enum Asked {
    Store,
    Device(DeviceQueue),
}

/// Serves the vCPU's domain as long as nobody else wants the pCPU or the vCPU, and not for ever. The
/// guest repeats its call for the rest.
#[inline(never)]
fn serve(ctx: &mut Ctx<'_, '_>, args: Args, asked: Asked) -> HypercallOutcome {
    for _ in 0..SERVE_STEPS {
        let more = match asked {
            Asked::Store => store::serve(ctx.domain()),
            Asked::Device(queue) => backend::kick(ctx.domain(), queue),
        };
        if !more {
            return HypercallOutcome::Done(0);
        }
        if ctx.v.is_wanted_elsewhere() {
            break;
        }
    }
    HypercallOutcome::Preempted(args)
}

/// Delivers an event; whom it asks if that is done in steps.
#[inline(always)]
fn deliver(ctx: &Ctx<'_, '_>, arg: u64) -> Result<Option<Asked>, Errno> {
    let port = port_argument(ctx, arg)?;
    let sent = table(ctx).send(port)?;
    match sent {
        Sent::Local(wake) => ctx.v.wake(wake),
        Sent::Peer(peer) => {
            if let Some(remote) = list::by_id(peer.dom) {
                let sender = Peer {
                    dom: ctx.domain().id,
                    port,
                };
                let wake = remote.evtchn.lock().deliver_from(peer.port, sender);
                remote.wake(wake);
            }
        }
        Sent::Service(Service::Console) => console::serve(ctx.domain()),
        Sent::Service(Service::Store) => return Ok(Some(Asked::Store)),
        Sent::Device(queue) => return Ok(Some(Asked::Device(queue))),
    }
    Ok(None)
}

fn unmask(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let port = port_argument(ctx, arg)?;
    let wake = table(ctx).unmask(port)?;
    ctx.v.wake(wake);
    Ok(())
}

fn bind_interdomain(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: BindInterdomain = ctx.read(arg)?;
    let me = ctx.domain();
    let remote_port = EvtchnPort(request.remote_port);
    let (port, wake) = if is_self(ctx, request.remote_dom) {
        let peer = Peer {
            dom: me.id,
            port: remote_port,
        };
        let mut table = table(ctx);
        table.check_bindable(remote_port, me.id)?;
        let port = table.open_interdomain(peer)?;
        table.bind_peer(remote_port, Peer { dom: me.id, port });
        (port, table.deliver(port))
    } else {
        let remote = list::by_id(DomId(request.remote_dom)).ok_or(Errno::Esrch)?;
        let peer = Peer {
            dom: remote.id,
            port: remote_port,
        };
        let (mut mine, mut theirs) = lock_both(me, &remote);
        theirs.check_bindable(remote_port, me.id)?;
        let port = mine.open_interdomain(peer)?;
        theirs.bind_peer(remote_port, Peer { dom: me.id, port });
        (port, mine.deliver(port))
    };
    // The peer may have sent before the channel was complete.
    ctx.v.wake(wake);
    ctx.write_field(arg, offset_of!(BindInterdomain, local_port), &port.0)
}

/// Locks the tables of two different domains, the one with the lower id first.
fn lock_both<'d>(
    mine: &'d Domain,
    theirs: &'d Domain,
) -> (MutexGuard<'d, EvtchnTable>, MutexGuard<'d, EvtchnTable>) {
    if mine.id < theirs.id {
        let first = mine.evtchn.lock();
        (first, theirs.evtchn.lock())
    } else {
        let first = theirs.evtchn.lock();
        (mine.evtchn.lock(), first)
    }
}

fn bind_virq(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: BindVirq = ctx.read(arg)?;
    let port = table(ctx).bind_virq(Virq(request.virq), VcpuId(request.vcpu))?;
    ctx.write_field(arg, offset_of!(BindVirq, port), &port.0)
}

fn bind_ipi(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: BindIpi = ctx.read(arg)?;
    let port = table(ctx).bind_ipi(VcpuId(request.vcpu))?;
    ctx.write_field(arg, offset_of!(BindIpi, port), &port.0)
}

fn bind_vcpu(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: BindVcpu = ctx.read(arg)?;
    table(ctx).bind_vcpu(EvtchnPort(request.port), VcpuId(request.vcpu))
}

fn close(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let port = port_argument(ctx, arg)?;
    let closed = table(ctx).close(port)?;
    tell_peer(ctx.domain(), closed);
    Ok(())
}

/// Tells the other end that its channel was closed.
fn tell_peer(me: &Arc<Domain>, closed: Closed) {
    if let Some(peer) = closed.peer
        && let Some(remote) = list::by_id(peer.dom)
    {
        let end = Peer {
            dom: me.id,
            port: closed.port,
        };
        remote.evtchn.lock().peer_closed(peer.port, end);
    }
}

fn status(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let mut argument: Status = ctx.read(arg)?;
    ctx.check_own(argument.dom)?;
    let status = table(ctx).status(EvtchnPort(argument.port))?;
    argument.status = status.status;
    argument.vcpu = status.vcpu.0;
    argument.detail = status.detail;
    argument.remote_port = status.remote_port;
    ctx.write(arg, &argument)
}

fn alloc_unbound(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: AllocUnbound = ctx.read(arg)?;
    ctx.check_own(request.dom)?;
    let remote = if is_self(ctx, request.remote_dom) {
        ctx.domain().id
    } else {
        DomId(request.remote_dom)
    };
    let port = table(ctx).alloc_unbound(remote)?;
    ctx.write_field(arg, offset_of!(AllocUnbound, port), &port.0)
}

fn init_control(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: InitControl = ctx.read(arg)?;
    let vcpu = VcpuId(request.vcpu);
    ctx.domain().vcpu(vcpu).ok_or(Errno::Enoent)?;
    let page = ctx
        .domain()
        .pin(Gfn::new(request.control_gfn))
        .map_err(|_| Errno::Einval)?;
    let link_bits = table(ctx).init_control(vcpu, page, request.offset)?;
    ctx.write_field(arg, offset_of!(InitControl, link_bits), &link_bits)
}

fn expand_array(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: ExpandArray = ctx.read(arg)?;
    if !table(ctx).is_fifo() {
        return Err(Errno::Eopnotsupp);
    }
    let page = ctx
        .domain()
        .pin(Gfn::new(request.array_gfn))
        .map_err(|_| Errno::Einval)?;
    let wake = table(ctx).expand_array(page)?;
    ctx.v.wake(wake);
    Ok(())
}

fn set_priority(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let request: SetPriority = ctx.read(arg)?;
    table(ctx).set_priority(EvtchnPort(request.port), request.priority)
}

/// Closes every port, a batch at a time; a repeated call goes on with what is still open.
fn reset(ctx: &Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [_, arg, ..] = args;
    let checked = ctx
        .read::<Reset>(arg)
        .and_then(|reset| ctx.check_own(reset.dom));
    if let Err(errno) = checked {
        return errno.into();
    }
    let mut from = EvtchnPort(0);
    for _ in 0..RESET_BATCH {
        let closed = table(ctx).close_next(from);
        let Some(closed) = closed else {
            return match table(ctx).finish_reset() {
                Ok(()) => HypercallOutcome::Done(0),
                // Another vCPU opened a port meanwhile.
                Err(errno) => errno.into(),
            };
        };
        from = closed.port;
        tell_peer(ctx.domain(), closed);
    }
    HypercallOutcome::Preempted(args)
}

fn is_self(ctx: &Ctx<'_, '_>, dom: u16) -> bool {
    DomId(dom) == DomId::SELF || DomId(dom) == ctx.domain().id
}
