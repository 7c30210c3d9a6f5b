//! The front end's domain as a back end sees it: the pages it grants to domain 0, and the event
//! channels that it offers to domain 0. A driver domain would see as much.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;

use abi::{DomId, EvtchnPort, GrantRef};
use pv_drivers::grants::Grants;
use pv_drivers::net::Unusable;
use pv_drivers::ring::Broken;
use pv_drivers::shared_page::SharedPage;

use crate::domain::Domain;
use crate::evtchn::DeviceQueue;
use crate::grant::{Granted, HeldPage, Use};
use crate::mm::page::PageRef;
use crate::network::Member;
use crate::storage::Origin;
use crate::time::Tsc;

/// Why a connection to a front end cannot be, or cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// A key in its directory is missing, no number, or asks for too much.
    Key(&'static str),
    /// A page is not granted to domain 0 for writing.
    Grant(GrantRef),
    /// A port does not wait for domain 0.
    Port(EvtchnPort),
    /// An index of a ring makes no sense.
    Index,
    /// A slot of a ring makes no sense.
    Slot,
    /// The network has no place for it: its address is taken.
    Network,
    /// There is no memory.
    Memory,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "the front end's key {key} is no good"),
            Self::Grant(gref) => write!(f, "grant {gref} of the ring is no good"),
            Self::Port(port) => write!(f, "port {port} is no good"),
            Self::Index => f.write_str("ring index out of range"),
            Self::Slot => f.write_str("a slot of its ring makes no sense"),
            Self::Network => f.write_str("its address is taken on the network"),
            Self::Memory => f.write_str("out of memory"),
        }
    }
}

impl From<Broken> for Refusal {
    fn from(_: Broken) -> Self {
        Self::Index
    }
}

impl From<Unusable> for Refusal {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Index => Self::Index,
            Unusable::Slot => Self::Slot,
        }
    }
}

/// The front end's domain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front<'d> {
    domain: &'d Arc<Domain>,
    /// Of which of its devices.
    slot: u16,
}

/// A page of the front end's that stays mapped until [`Front::unmap`].
#[derive(Debug)]
#[must_use]
pub(super) struct Mapped {
    page: PageRef,
    gref: GrantRef,
}

impl Deref for Mapped {
    type Target = SharedPage;

    fn deref(&self) -> &SharedPage {
        &self.page
    }
}

impl<'d> Front<'d> {
    pub(super) const fn new(domain: &'d Arc<Domain>, slot: u16) -> Self {
        Self { domain, slot }
    }

    /// The device as a member of a network.
    pub(super) fn member(&self) -> Member {
        Member {
            domain: self.domain.id,
            device: self.slot,
        }
    }

    /// The domain's system time, in nanoseconds.
    pub(super) fn now(&self) -> u64 {
        self.domain.clock.system_time(Tsc::now())
    }

    /// A queue of the device, for an answer that comes later.
    pub(super) fn origin(&self, queue: u16, connection: u64) -> Origin {
        Origin {
            domain: Arc::clone(self.domain),
            queue: self.queue(queue),
            connection,
        }
    }

    /// Takes a page into use for as long as the value lives, even beyond the connection.
    pub(super) fn hold(&self, gref: GrantRef, write: bool) -> Option<HeldPage<Arc<Domain>>> {
        HeldPage::new(Arc::clone(self.domain), whole(gref, write)).ok()
    }

    /// Maps a page of a ring.
    pub(super) fn map(&self, gref: GrantRef) -> Result<Mapped, Refusal> {
        let mut table = self.domain.grants.lock();
        let granted = table.pin(whole(gref, true), |gfn| self.domain.pin(gfn).ok());
        let Granted { page, .. } = granted.map_err(|_| Refusal::Grant(gref))?;
        Ok(Mapped { page, gref })
    }

    /// Ends a mapping.
    pub(super) fn unmap(&self, mapped: Mapped) {
        let Mapped { page, gref } = mapped;
        drop(page);
        self.domain.grants.lock().unpin(gref, true);
    }

    fn queue(&self, queue: u16) -> DeviceQueue {
        DeviceQueue {
            device: self.slot,
            queue,
        }
    }

    /// Binds the front end's port to a queue.
    pub(super) fn bind(&self, port: EvtchnPort, queue: u16) -> Result<(), Refusal> {
        let bound = self
            .domain
            .evtchn
            .lock()
            .bind_device(port, self.queue(queue));
        bound.map_err(|_| Refusal::Port(port))
    }

    /// Lets go of a port.
    pub(super) fn unbind(&self, port: EvtchnPort, queue: u16) {
        self.domain
            .evtchn
            .lock()
            .unbind_device(port, self.queue(queue));
    }
}

impl Grants for Front<'_> {
    fn with_page<R>(
        &self,
        gref: GrantRef,
        write: bool,
        act: impl FnOnce(&SharedPage) -> R,
    ) -> Option<R> {
        let held = HeldPage::new(&**self.domain, whole(gref, write)).ok()?;
        held.page().map(act)
    }
}

/// A use of a whole page.
const fn whole(gref: GrantRef, write: bool) -> Use {
    Use {
        gref,
        grantee: DomId::CONTROL,
        write,
        whole: true,
    }
}
