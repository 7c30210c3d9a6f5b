//! Two domains of one test that find each other: `peer=N` on the command line names the other's
//! domain id, `first=1` the one that makes the channel both then meet at.

use abi::event_channel::{BIND_INTERDOMAIN, BindInterdomain, status};
use abi::hypercall::EVENT_CHANNEL_OP;
use abi::{DomId, EvtchnPort};
use pv_drivers::guest::{event_channel, sched};
use pv_drivers::hypercall::{Refused, command};
use zerocopy::FromZeros;

use crate::runtime;
use crate::xen::SharedInfo;

/// One of the two, with the channel between them.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The other domain.
    pub peer: DomId,
    /// True for the one that made the channel.
    pub first: bool,
    /// The port where they met, at the first: what number a domain's own first port has is the
    /// same for both.
    pub meeting: EvtchnPort,
    /// This domain's end of it.
    pub port: EvtchnPort,
    shared: SharedInfo,
}

/// Binds a new port to the peer's port `remote`.
///
/// # Errors
/// `-EINVAL` when that does not wait for this domain, `-ESRCH` for no such domain.
pub fn bind(peer: DomId, remote: EvtchnPort) -> Result<EvtchnPort, Refused> {
    let mut argument = BindInterdomain::new_zeroed();
    argument.remote_dom = peer.0;
    argument.remote_port = remote.0;
    command(EVENT_CHANNEL_OP, BIND_INTERDOMAIN, &mut argument)?;
    Ok(EvtchnPort(argument.local_port))
}

/// Waits, while the other vCPUs of the machine go on, until something is so.
pub fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        // Nothing to be done when it is refused but to look again.
        let _ = sched::yield_now();
    }
}

impl Pair {
    /// Meets the other domain.
    ///
    /// # Panics
    /// When the command line names none, or no channel can be had.
    #[must_use]
    pub fn meet() -> Self {
        let shared = SharedInfo::map();
        let (peer, first) = (runtime::domain("peer"), runtime::option("first") == Some(1));
        let own = event_channel::alloc_unbound(peer);
        let Ok(meeting) = own else {
            panic!("no port ({own:?})")
        };
        let port = if first {
            until(|| is_bound(meeting));
            meeting
        } else {
            let _ = event_channel::close(meeting);
            let mut bound = None;
            until(|| {
                bound = bind(peer, meeting).ok();
                bound.is_some()
            });
            bound.unwrap_or(EvtchnPort(0))
        };
        // Binding makes the new end pending.
        shared.clear_pending(port);
        Self {
            peer,
            first,
            meeting,
            port,
            shared,
        }
    }

    /// The page shared with the hypervisor.
    #[must_use]
    pub fn shared(&self) -> SharedInfo {
        self.shared
    }

    /// Tells the other domain that a step is done.
    pub fn tell(&self) {
        // A peer that is gone misses nothing.
        let _ = event_channel::send(self.port);
    }

    /// Goes on when both domains are here, with nothing pending.
    pub fn sync(&self) {
        if self.first {
            self.tell();
            self.wait();
        } else {
            self.wait();
            self.tell();
        }
    }

    /// Waits for the other domain to be done with a step.
    pub fn wait(&self) {
        until(|| self.shared.clear_pending(self.port));
    }
}

/// True while `port` is one end of a channel.
#[must_use]
pub fn is_bound(port: EvtchnPort) -> bool {
    event_channel::status(port).is_ok_and(|state| state.status == status::INTERDOMAIN)
}
