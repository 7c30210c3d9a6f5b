//! What each kind of device does.

use alloc::boxed::Box;
use core::fmt;

use abi::EvtchnPort;
use pv_drivers::blk::{IoError, Tag};
use xenstore::Error;

use super::front::{Front, Refusal};
use super::keys::{Announcement, Keys};
use super::vbd::Vbd;
use super::vif::Vif;
use crate::storage::Origin;

/// What serving a queue left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outcome {
    /// The front end's port, when it is to be told.
    pub(super) notify: Option<EvtchnPort>,
    /// Requests are left, beyond one step.
    pub(super) more: bool,
}

/// The device itself.
#[derive(Debug)]
pub(super) enum Driver {
    /// A disk.
    Vbd(Vbd),
    /// A network interface.
    Vif(Box<Vif>),
}

impl Driver {
    /// The directory's name in the xenstore.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Vbd(_) => "vbd",
            Self::Vif(_) => "vif",
        }
    }

    /// The most queues that it has, at most 32.
    pub(super) fn queues(&self) -> u16 {
        match self {
            Self::Vbd(vbd) => vbd.queues(),
            Self::Vif(vif) => vif.queues(),
        }
    }

    /// Writes what a front end has to know before it says anything.
    pub(super) fn announce(&self, keys: &mut Announcement<'_>) -> Result<(), Error> {
        match self {
            Self::Vbd(vbd) => vbd.announce(keys),
            Self::Vif(vif) => vif.announce(keys),
        }
    }

    /// Connects to what the front end says: rings and event channels. If that fails, nothing is
    /// held that [`Driver::disconnect`] does not let go.
    pub(super) fn connect(&self, keys: &Keys<'_, '_>, front: Front<'_>) -> Result<(), Refusal> {
        match self {
            Self::Vbd(vbd) => vbd.connect(keys, front),
            Self::Vif(vif) => vif.connect(keys, front),
        }
    }

    /// Writes what a front end has to know before it goes to work.
    pub(super) fn describe(&self, keys: &mut Keys<'_, '_>) -> Result<(), Error> {
        match self {
            Self::Vbd(vbd) => vbd.describe(keys),
            Self::Vif(_) => Ok(()),
        }
    }

    /// Lets go of all that is the front end's.
    pub(super) fn disconnect(&self, front: Front<'_>) {
        match self {
            Self::Vbd(vbd) => vbd.disconnect(front),
            Self::Vif(vif) => vif.disconnect(front),
        }
    }

    /// Lets go of what the domain, which has ended, has left in the device.
    pub(super) fn clear(&self, give_way: impl FnMut()) {
        match self {
            Self::Vbd(vbd) => vbd.clear(give_way),
            Self::Vif(_) => {}
        }
    }

    /// Carries out a step of what waits in a queue.
    pub(super) fn serve(&self, front: Front<'_>, queue: u16) -> Result<Outcome, Refusal> {
        match self {
            Self::Vbd(vbd) => vbd.serve(front, queue),
            Self::Vif(vif) => vif.serve(front, queue),
        }
    }

    /// A disk of the machine is done with a request of a queue's.
    pub(super) fn answer(
        &self,
        front: Front<'_>,
        origin: &Origin,
        tag: Tag,
        result: Result<(), IoError>,
    ) -> Result<Outcome, Refusal> {
        match self {
            Self::Vbd(vbd) => vbd.answer(front, origin, tag, result),
            Self::Vif(_) => Ok(Outcome::default()),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vbd(vbd) => vbd.fmt(f),
            Self::Vif(vif) => vif.fmt(f),
        }
    }
}
