//! Event channels of one domain (`public/event_channel.h`).
//!
//! [`EvtchnTable`] knows the domain's ports, what each is bound to, and how its events reach the
//! guest: through bitmaps in the shared page ([`two_level`]) or, once the guest has given a
//! vCPU a control block, through queues ([`fifo`]). It knows no registers and no other domain:
//! an operation that concerns a peer says so in its result ([`Sent`], [`Closed`]), and one that
//! wakes vCPUs returns a [`Wake`]. The hypercalls are in [`crate::hypercall`].
//!
//! Everything read back from shared pages is a single bit or a link of the guest's own making:
//! a hostile guest can lose or repeat its own events and nothing more.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod bind;
mod deliver;
mod fifo;
mod poll;
mod port;
#[cfg(test)]
mod tests;
mod two_level;
mod wake;

use alloc::boxed::Box;
use alloc::vec::Vec;

use abi::event_channel::virq;
use abi::shared_info::{self, LEGACY_MAX_VCPUS};
use abi::{DomId, Errno, EvtchnPort, VcpuId};

pub use poll::Poll;
pub use port::{DeviceQueue, Service, State, VirqScope};
pub use two_level::Width;
pub use wake::{MAX_VCPUS, VcpuSet, Wake};

use crate::mm::page::PageRef;
use fifo::Fifo;
use poll::Polled;
use port::Port;
use two_level::{Bitmaps, InfoView};

/// Ports that come into use together, as far as a guest can tell (Xen has so many in a page).
const PORT_GROUP: usize = 64;

/// The ports of a domain and the way to its vCPUs.
#[derive(Debug)]
pub struct EvtchnTable {
    /// By number; port 0 is never bound. Grows as ports are opened.
    ports: Vec<Port>,
    /// The highest port that may be opened.
    limit: EvtchnPort,
    /// Ports open now.
    open: u32,
    /// No port below this one is free.
    lowest_free: u32,
    vcpus: Box<[VcpuEvents]>,
    /// vCPUs that sleep in a poll.
    pollers: VcpuSet,
    /// Ports of the hypervisor's own back ends, 0 for none.
    services: [EvtchnPort; Service::COUNT],
    shared_info: PageRef,
    width: Width,
    /// There once the domain has switched to FIFO events.
    fifo: Option<Fifo>,
}

/// What the table keeps per vCPU.
#[derive(Debug)]
struct VcpuEvents {
    /// Ports of the vCPU's virtual interrupts, 0 for none.
    virqs: [EvtchnPort; virq::COUNT as usize],
    /// Where its `vcpu_info` is, unless still in the shared page.
    moved_info: Option<(PageRef, usize)>,
    polled: Polled,
}

/// What a send did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the event may still have to reach its peer"]
pub enum Sent {
    /// The event was for the domain itself, or for nobody.
    Local(Wake),
    /// The event is for another domain's port: call [`EvtchnTable::deliver_from`] there.
    Peer(Peer),
    /// The event is for a back end in the hypervisor.
    Service(Service),
    /// The event is for the back end of a device, in the hypervisor.
    Device(DeviceQueue),
}

/// The remote end of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The remote domain.
    pub dom: DomId,
    /// Its port.
    pub port: EvtchnPort,
}

/// What a close left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a peer must learn that its channel was closed"]
pub struct Closed {
    /// The port that was closed.
    pub port: EvtchnPort,
    /// The other end: call [`EvtchnTable::peer_closed`] there.
    pub peer: Option<Peer>,
}

/// What a guest may know of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// One of [`abi::event_channel::status`].
    pub status: u32,
    /// The vCPU its events go to.
    pub vcpu: VcpuId,
    /// The remote domain, or the virtual interrupt.
    pub detail: u32,
    /// The remote port.
    pub remote_port: u32,
}

impl EvtchnTable {
    /// The table of a new domain: no ports, two-level events in the 64-bit layout, each vCPU's
    /// information in the shared page as far as it has room.
    ///
    /// `limit` is the highest port the domain may open.
    #[must_use]
    pub fn new(limit: u32, vcpus: u32, shared_info: PageRef) -> Self {
        let events = || VcpuEvents {
            virqs: [EvtchnPort(0); virq::COUNT as usize],
            moved_info: None,
            polled: Polled::Nothing,
        };
        Self {
            ports: alloc::vec![Port::FREE],
            limit: EvtchnPort(limit.min(abi::event_channel::fifo::NR_CHANNELS.saturating_sub(1))),
            open: 0,
            lowest_free: 1,
            vcpus: (0..vcpus.min(MAX_VCPUS)).map(|_| events()).collect(),
            pollers: VcpuSet::EMPTY,
            services: [EvtchnPort(0); Service::COUNT],
            shared_info,
            width: Width::Bits64,
            fifo: None,
        }
    }

    /// Says how wide the guest's shared structures are.
    pub fn set_width(&mut self, width: Width) {
        self.width = width;
    }

    /// True once the domain uses FIFO events.
    #[must_use]
    pub const fn is_fifo(&self) -> bool {
        self.fifo.is_some()
    }

    /// What a guest may know of a port.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a port beyond those the domain has had.
    pub fn status(&self, port: EvtchnPort) -> Result<Status, Errno> {
        self.check_port(port)?;
        let port = self.ports.get(port.0 as usize).unwrap_or(&Port::FREE);
        let (status, detail, remote_port) = port.describe();
        Ok(Status {
            status,
            vcpu: port.target.vcpu,
            detail,
            remote_port,
        })
    }

    /// What an open port is bound to.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a port that is not open.
    pub fn state(&self, port: EvtchnPort) -> Result<State, Errno> {
        Ok(self.open_port(port)?.state)
    }

    /// The port a back end in the hypervisor serves.
    #[must_use]
    pub fn service_port(&self, service: Service) -> Option<EvtchnPort> {
        self.services
            .get(service.index())
            .copied()
            .filter(|port| port.0 != 0)
    }

    fn check_vcpu(&self, vcpu: VcpuId) -> Result<(), Errno> {
        if (vcpu.0 as usize) < self.vcpus.len() {
            Ok(())
        } else {
            Err(Errno::Enoent)
        }
    }

    /// Checks that a port is among those that have been in use: they come in groups.
    fn check_port(&self, port: EvtchnPort) -> Result<(), Errno> {
        let groups = self.ports.len().div_ceil(PORT_GROUP);
        if (port.0 as usize) < groups.saturating_mul(PORT_GROUP) {
            Ok(())
        } else {
            Err(Errno::Einval)
        }
    }

    /// The highest port usable in the present mode.
    fn highest(&self) -> u32 {
        match self.fifo {
            Some(_) => self.limit.0,
            None => self.limit.0.min(self.width.channels().saturating_sub(1)),
        }
    }

    fn open_port(&self, port: EvtchnPort) -> Result<&Port, Errno> {
        self.ports
            .get(port.0 as usize)
            .filter(|port| port.is_open())
            .ok_or(Errno::Einval)
    }

    fn open_port_mut(&mut self, port: EvtchnPort) -> Result<&mut Port, Errno> {
        self.ports
            .get_mut(port.0 as usize)
            .filter(|port| port.is_open())
            .ok_or(Errno::Einval)
    }

    fn bitmaps(&self) -> Bitmaps {
        Bitmaps {
            page: self.shared_info.page(),
            width: self.width,
        }
    }

    /// Where a vCPU's information is; none for a vCPU that has no room in the shared page and
    /// has not registered a place.
    fn info(&self, vcpu: VcpuId) -> Option<InfoView> {
        let events = self.vcpus.get(vcpu.0 as usize)?;
        if let Some((page, offset)) = &events.moved_info {
            return Some((page.page(), *offset));
        }
        let slot = (vcpu.0 < LEGACY_MAX_VCPUS).then_some(vcpu.0 as usize)?;
        let offset = slot.saturating_mul(shared_info::vcpu_info::SIZE);
        Some((self.shared_info.page(), offset))
    }
}
