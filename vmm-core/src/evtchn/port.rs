//! One port of a domain: what it is bound to and where its events go.

use abi::event_channel::{fifo, status, virq};
use abi::{DomId, EvtchnPort, VcpuId, Virq};

/// A back end that runs inside the hypervisor and serves a port, as a remote domain would.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// The console ring.
    Console,
    /// The xenstore ring.
    Store,
}

impl Service {
    /// Services there are.
    pub const COUNT: usize = 2;

    /// The service's place in a table of [`Service::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Console => 0,
            Self::Store => 1,
        }
    }

    /// The port at which the service appears to sit, in domain 0.
    #[must_use]
    pub const fn remote_port(self) -> EvtchnPort {
        match self {
            Self::Console => EvtchnPort(1),
            Self::Store => EvtchnPort(2),
        }
    }
}

/// One queue of one of a domain's devices, whose back end is inside the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceQueue {
    /// The device's place in the domain's list.
    pub device: u16,
    /// The queue's number.
    pub queue: u16,
}

impl DeviceQueue {
    /// The port at which the back end appears to sit, in domain 0.
    const fn remote_port(self) -> EvtchnPort {
        const FIRST: u32 = 16;
        const QUEUES: u32 = 16;
        let device = (self.device as u32).saturating_mul(QUEUES);
        EvtchnPort(
            FIRST
                .saturating_add(device)
                .saturating_add(self.queue as u32),
        )
    }
}

/// What a port is bound to.
///
/// ```text
///            alloc_unbound            peer binds
/// Free ----------------------> Unbound <------> Interdomain, Device
///   ^ \_ bind_virq, bind_ipi _    |   peer closes    |
///   |                         v   v                  v
///   +------------------------- close, reset ---------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing; the port may be handed out.
    Free,
    /// Nothing yet; the remote domain may bind it.
    Unbound {
        /// The domain it waits for.
        remote: DomId,
    },
    /// A port of another domain, or another one of the same.
    Interdomain {
        /// The remote domain.
        dom: DomId,
        /// Its port.
        port: EvtchnPort,
    },
    /// A back end inside the hypervisor.
    Service(Service),
    /// A device's back end inside the hypervisor, which bound it as a domain would have.
    Device(DeviceQueue),
    /// A virtual interrupt.
    Virq(Virq),
    /// Interrupts among the domain's own vCPUs.
    Ipi,
}

/// Whom a virtual interrupt is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VirqScope {
    /// Each vCPU has its own.
    Vcpu,
    /// The domain as a whole.
    Domain,
    /// One domain of the system, which handles it for all.
    Global,
}

impl VirqScope {
    /// The scope of a virtual interrupt.
    #[must_use]
    pub fn of(number: Virq) -> Self {
        match number {
            virq::TIMER | virq::DEBUG | virq::XENOPROF | virq::XENPMU => Self::Vcpu,
            virq::ARGO => Self::Domain,
            _ => Self::Global,
        }
    }
}

/// A FIFO queue: of which vCPU, at which priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct QueueId {
    pub(super) vcpu: VcpuId,
    pub(super) priority: u8,
}

/// One port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub(super) state: State,
    /// The queue its next event goes to; in two-level mode only the vCPU counts.
    pub(super) target: QueueId,
    /// The queue it was last put on; survives closing, since the guest's word may still be
    /// linked there.
    pub(super) last: QueueId,
    /// An event came while the port had no event word yet.
    pub(super) early: bool,
}

impl Port {
    pub(super) const FREE: Self = {
        let home = QueueId {
            vcpu: VcpuId(0),
            priority: fifo::PRIORITY_DEFAULT,
        };
        Self {
            state: State::Free,
            target: home,
            last: home,
            early: false,
        }
    };

    /// True when the port is bound to something.
    pub(super) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Free)
    }

    /// The status a guest sees: its code and two words that depend on it.
    pub(super) const fn describe(&self) -> (u32, u32, u32) {
        match self.state {
            State::Free => (status::CLOSED, 0, 0),
            State::Unbound { remote } => (status::UNBOUND, remote.0 as u32, 0),
            State::Interdomain { dom, port } => (status::INTERDOMAIN, dom.0 as u32, port.0),
            State::Service(service) => (
                status::INTERDOMAIN,
                DomId::CONTROL.0 as u32,
                service.remote_port().0,
            ),
            State::Device(queue) => (
                status::INTERDOMAIN,
                DomId::CONTROL.0 as u32,
                queue.remote_port().0,
            ),
            State::Virq(number) => (status::VIRQ, number.0, 0),
            State::Ipi => (status::IPI, 0, 0),
        }
    }
}
