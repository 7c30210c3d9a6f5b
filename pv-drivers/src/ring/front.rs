//! The front end's side of a ring.

use core::ops::Deref;

use abi::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};

use super::index::{Index as _, publish, rearm};
use super::{Broken, Memory};
use crate::shared_page::SharedPage;

/// Gives requests, takes responses.
#[derive(Debug)]
pub struct Front<P> {
    memory: Memory<P>,
    /// Requests put in.
    req_prod: u32,
    /// Requests that the back end can see.
    published: u32,
    /// Responses taken.
    rsp_cons: u32,
}

impl<P: Deref<Target = SharedPage>> Front<P> {
    /// Begins with an empty ring, in pages that nobody else uses yet.
    #[must_use]
    pub fn new(memory: Memory<P>) -> Self {
        let head = memory.head();
        for (index, value) in [(REQ_PROD, 0), (RSP_PROD, 0), (REQ_EVENT, 1), (RSP_EVENT, 1)] {
            head.u32(index).set(value);
        }
        Self {
            memory,
            req_prod: 0,
            published: 0,
            rsp_cons: 0,
        }
    }

    /// Requests that have room.
    #[must_use]
    pub const fn room(&self) -> u32 {
        let used = self.req_prod.wrapping_sub(self.rsp_cons);
        self.memory.count().saturating_sub(used)
    }

    /// Puts a request in; false when the ring is full. The back end sees it after
    /// [`Front::publish`].
    pub fn push(&mut self, request: &[u8]) -> bool {
        if self.room() == 0 {
            return false;
        }
        self.memory.write(self.req_prod, request);
        self.req_prod = self.req_prod.wrapping_add(1);
        true
    }

    /// Shows the back end the requests put in; true when it is to get an event.
    #[must_use = "the back end may sleep until it is told"]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.published, self.req_prod);
        if old == self.req_prod {
            return false;
        }
        let head = self.memory.head();
        publish(head.u32(REQ_PROD), head.u32(REQ_EVENT), old, self.req_prod)
    }

    /// How many responses `prod` announces: no more than there are requests without one.
    fn believe(&self, prod: u32) -> Result<u32, Broken> {
        let waiting = prod.wrapping_sub(self.rsp_cons);
        if waiting <= self.published.wrapping_sub(self.rsp_cons) {
            Ok(waiting)
        } else {
            Err(Broken)
        }
    }

    /// Copies the next response out; false when there is none.
    ///
    /// # Errors
    /// [`Broken`]; nothing was taken.
    pub fn take(&mut self, out: &mut [u8]) -> Result<bool, Broken> {
        if self.believe(self.memory.head().u32(RSP_PROD).get())? == 0 {
            return Ok(false);
        }
        self.memory.read(self.rsp_cons, out);
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(true)
    }

    /// Asks for an event at the next response, and then looks: true when responses wait already.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn rearm(&mut self) -> Result<bool, Broken> {
        let head = self.memory.head();
        let prod = rearm(head.u32(RSP_PROD), head.u32(RSP_EVENT), self.rsp_cons);
        Ok(self.believe(prod)? != 0)
    }

    /// Gives the pages back.
    pub fn into_pages(self) -> impl Iterator<Item = P> {
        self.memory.into_pages()
    }

    /// Goes on as if so much had passed already.
    #[cfg(test)]
    pub(super) const fn set_indices(&mut self, start: u32) {
        (self.req_prod, self.published, self.rsp_cons) = (start, start, start);
    }
}
