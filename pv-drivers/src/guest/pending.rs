//! Two-level events of a guest that takes no interrupts for them: it looks, and sleeps until there
//! is something to see (`SCHEDOP_poll`).
//!
//! ```text
//! loop: take each port and serve what is behind it; wait
//! ```
//!
//! An event that comes after its port was taken makes the next wait return at once.

use core::sync::atomic::Ordering::SeqCst;

use abi::EvtchnPort;
use abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING};

use crate::guest::sched;
use crate::hypercall::Reply;
use crate::shared_page::SharedPage;

/// Words of the bitmaps.
const WORDS: usize = 64;

/// The bitmaps in the page that the guest shares with the hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    shared_info: SharedPage,
}

impl Pending {
    /// Masks all ports, so that none of them asks for an upcall.
    #[must_use]
    pub fn masked(shared_info: SharedPage) -> Self {
        for word in 0..WORDS {
            let mask = shared_info.u64(EVTCHN_MASK + word * 8);
            mask.store(u64::MAX, SeqCst);
        }
        Self { shared_info }
    }

    /// Whether there was an event of `port` since it was taken last.
    #[must_use = "the event is forgotten"]
    pub fn take(&self, port: EvtchnPort) -> bool {
        let word = (port.0 / 64) as usize % WORDS;
        let bit = 1 << (port.0 % 64);
        let pending = self.shared_info.u64(EVTCHN_PENDING + word * 8);
        pending.fetch_and(!bit, SeqCst) & bit != 0
    }

    /// Sleeps until there is an event of one of `ports`, or system time reaches `deadline` (0:
    /// never), in nanoseconds. May come back early.
    ///
    /// # Errors
    /// `-EINVAL` for a port that is not open.
    pub fn wait(&self, ports: &[EvtchnPort], deadline: u64) -> Reply {
        sched::poll(ports, deadline)
    }
}
