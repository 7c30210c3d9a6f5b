//! The store's end of the ring.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use abi::xs_wire::{
    CONNECTED, CONNECTION, ERROR, ERROR_NONE, ERROR_PROTO, ERROR_RINGIDX, FEATURE_ERROR,
    FEATURE_RECONNECTION, RECONNECT, SERVER_FEATURES,
};

use super::{REPLIES, REQUESTS};
use crate::byte_ring::{Broken, Consumer, Producer};
use crate::shared_page::SharedPage;

/// Why the store stops to listen to a guest, which finds it in the page's `error`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A ring index made no sense.
    RingIndex,
    /// A request was longer than any may be.
    Protocol,
}

impl From<Broken> for Fault {
    fn from(_: Broken) -> Self {
        Self::RingIndex
    }
}

/// The back end of one domain's way to the store. Every call takes the page, which its owner
/// holds.
#[derive(Clone, Debug)]
pub struct Back {
    requests: Consumer,
    replies: Producer,
}

impl Back {
    /// Connects to a ring page.
    #[must_use]
    pub fn connect(page: &SharedPage) -> Self {
        page.u32(SERVER_FEATURES)
            .store(FEATURE_RECONNECTION | FEATURE_ERROR, Release);
        Self {
            requests: Consumer::attach(REQUESTS, page),
            replies: Producer::attach(REPLIES, page),
        }
    }

    /// True while the guest asks for a fresh start.
    #[must_use]
    pub fn wants_reconnect(page: &SharedPage) -> bool {
        page.u32(CONNECTION).load(Acquire) == RECONNECT
    }

    /// Empties both rings and tells the guest so.
    pub fn reconnect(&mut self, page: &SharedPage) {
        for index in [REQUESTS.cons, REQUESTS.prod, REPLIES.cons, REPLIES.prod] {
            page.u32(index).store(0, Relaxed);
        }
        page.u32(ERROR).store(ERROR_NONE, Relaxed);
        *self = Self::connect(page);
        page.u32(CONNECTION).store(CONNECTED, Release);
    }

    /// Tells the guest why it is not listened to any more.
    pub fn report(page: &SharedPage, fault: Fault) {
        let code = match fault {
            Fault::RingIndex => ERROR_RINGIDX,
            Fault::Protocol => ERROR_PROTO,
        };
        page.u32(ERROR).store(code, Release);
    }

    /// Takes as many bytes as wait and `out` holds.
    ///
    /// # Errors
    /// [`Broken`] when the guest's index makes no sense; nothing was taken.
    pub fn take(&mut self, page: &SharedPage, out: &mut [u8]) -> Result<usize, Broken> {
        self.requests.pull(page, out)
    }

    /// Gives the guest as much of `bytes` as its ring has room for.
    ///
    /// # Errors
    /// [`Broken`] when the guest's index makes no sense; nothing was given.
    pub fn give(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, Broken> {
        self.replies.push(page, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Front;
    use super::{Back, Fault};
    use crate::byte_ring::Broken;
    use crate::test_page::TestPage;
    use abi::xs_wire::{CONNECTION, ERROR, RECONNECT, REQ_PROD, SERVER_FEATURES};
    use core::sync::atomic::Ordering::SeqCst;

    #[test]
    fn both_ends_understand_each_other() {
        let page = TestPage::new();
        let mut back = Back::connect(&page.view());
        assert_eq!(page.view().u32(SERVER_FEATURES).load(SeqCst), 3);
        let mut front = Front::connect(&page.view());
        assert_eq!(front.send(&page.view(), b"question"), Ok(8));
        let mut bytes = [0; 16];
        assert_eq!(back.take(&page.view(), &mut bytes), Ok(8));
        assert_eq!(&bytes[..8], b"question");
        assert_eq!(back.give(&page.view(), b"answer"), Ok(6));
        assert_eq!(front.receive(&page.view(), &mut bytes), Ok(6));
        assert_eq!(&bytes[..6], b"answer");
    }

    #[test]
    fn a_guest_can_start_anew_whatever_it_did_before() {
        let page = TestPage::new();
        let mut back = Back::connect(&page.view());
        page.view().u32(REQ_PROD).store(5000, SeqCst);
        assert_eq!(back.take(&page.view(), &mut [0; 4]), Err(Broken));
        Back::report(&page.view(), Fault::RingIndex);
        assert_eq!(page.view().u32(ERROR).load(SeqCst), 2);
        assert!(!Back::wants_reconnect(&page.view()));
        page.view().u32(CONNECTION).store(RECONNECT, SeqCst);
        assert!(Back::wants_reconnect(&page.view()));
        back.reconnect(&page.view());
        assert!(!Back::wants_reconnect(&page.view()));
        assert_eq!(page.view().u32(ERROR).load(SeqCst), 0);
        let mut front = Front::connect(&page.view());
        assert_eq!(front.send(&page.view(), b"ab"), Ok(2));
        assert_eq!(back.take(&page.view(), &mut [0; 4]), Ok(2));
    }
}
