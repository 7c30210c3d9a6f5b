//! A guest's end of the ring.

use super::{REPLIES, REQUESTS};
use crate::byte_ring::{Broken, Consumer, Producer};
use crate::shared_page::SharedPage;

/// The front end. Every call takes the page, which its owner holds.
#[derive(Clone, Debug)]
pub struct Front {
    requests: Producer,
    replies: Consumer,
}

impl Front {
    /// Connects to a ring page.
    #[must_use]
    pub fn connect(page: &SharedPage) -> Self {
        Self {
            requests: Producer::attach(REQUESTS, page),
            replies: Consumer::attach(REPLIES, page),
        }
    }

    /// Sends as much of `bytes` as the ring has room for, and says how much that was. A
    /// notification is due when it is not 0.
    ///
    /// # Errors
    /// [`Broken`] when the store's index makes no sense.
    pub fn send(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, Broken> {
        self.requests.push(page, bytes)
    }

    /// Bytes that wait.
    ///
    /// # Errors
    /// [`Broken`] when the store's index makes no sense.
    pub fn waiting(&self, page: &SharedPage) -> Result<usize, Broken> {
        self.replies.waiting(page)
    }

    /// Takes as many bytes as wait and `out` holds. A notification is due when it is not 0 and
    /// the store may have waited for room.
    ///
    /// # Errors
    /// [`Broken`] when the store's index makes no sense.
    pub fn receive(&mut self, page: &SharedPage, out: &mut [u8]) -> Result<usize, Broken> {
        self.replies.pull(page, out)
    }
}
