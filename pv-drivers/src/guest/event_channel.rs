//! Event channels: binding, sending, masking (`EVTCHNOP_*`).

use abi::event_channel::{
    ALLOC_UNBOUND, AllocUnbound, BIND_IPI, BIND_VIRQ, BindIpi, BindVirq, CLOSE, Port, SEND, STATUS,
    Status, UNMASK,
};
use abi::hypercall::EVENT_CHANNEL_OP;
use abi::{DomId, EvtchnPort, VcpuId, Virq};
use zerocopy::FromZeros;

use crate::hypercall::{Refused, Reply, command};

/// Binds a new port that any vCPU of this domain may send to and that notifies `vcpu`.
///
/// # Errors
/// `-ENOENT` for no such vCPU, `-ENOSPC` when no port is left.
pub fn bind_ipi(vcpu: VcpuId) -> Result<EvtchnPort, Refused> {
    let mut argument = BindIpi {
        vcpu: vcpu.0,
        port: 0,
    };
    command(EVENT_CHANNEL_OP, BIND_IPI, &mut argument)?;
    Ok(EvtchnPort(argument.port))
}

/// Binds a virtual interrupt of `vcpu` to a new port.
///
/// # Errors
/// `-EINVAL` for no such interrupt, `-ENOENT` for no such vCPU, `-EEXIST` when it is bound.
pub fn bind_virq(virq: Virq, vcpu: VcpuId) -> Result<EvtchnPort, Refused> {
    let mut argument = BindVirq {
        virq: virq.0,
        vcpu: vcpu.0,
        port: 0,
    };
    command(EVENT_CHANNEL_OP, BIND_VIRQ, &mut argument)?;
    Ok(EvtchnPort(argument.port))
}

/// Makes a port of this domain that `remote` may bind to.
///
/// # Errors
/// `-ENOSPC` when no port is left.
pub fn alloc_unbound(remote: DomId) -> Result<EvtchnPort, Refused> {
    let mut argument = AllocUnbound {
        dom: DomId::SELF.0,
        remote_dom: remote.0,
        port: 0,
    };
    command(EVENT_CHANNEL_OP, ALLOC_UNBOUND, &mut argument)?;
    Ok(EvtchnPort(argument.port))
}

fn on_port(cmd: u64, port: EvtchnPort) -> Reply {
    command(EVENT_CHANNEL_OP, cmd, &mut Port { port: port.0 })
}

/// Notifies whoever is at the other end of `port`.
///
/// # Errors
/// `-EINVAL` when the port cannot be sent to.
pub fn send(port: EvtchnPort) -> Reply {
    on_port(SEND, port)
}

/// Clears the mask of `port` and delivers what is pending.
///
/// # Errors
/// `-EINVAL` for no such port.
pub fn unmask(port: EvtchnPort) -> Reply {
    on_port(UNMASK, port)
}

/// Gives `port` back.
///
/// # Errors
/// `-EINVAL` for a port that is free or not the guest's.
pub fn close(port: EvtchnPort) -> Reply {
    on_port(CLOSE, port)
}

/// What `port` of this domain is bound to.
///
/// # Errors
/// `-EINVAL` for no such port.
pub fn status(port: EvtchnPort) -> Result<Status, Refused> {
    let mut argument = Status::new_zeroed();
    argument.dom = DomId::SELF.0;
    argument.port = port.0;
    command(EVENT_CHANNEL_OP, STATUS, &mut argument)?;
    Ok(argument)
}
