//! The back end's side of a ring.

use core::ops::Deref;

use abi::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};

use super::index::{Index as _, publish, rearm};
use super::{Broken, Memory};
use crate::shared_page::SharedPage;

/// Takes requests, gives responses.
#[derive(Debug)]
pub struct Back<P> {
    memory: Memory<P>,
    /// Requests taken.
    req_cons: u32,
    /// Responses put in.
    rsp_prod: u32,
    /// Responses that the front end can see.
    published: u32,
}

impl<P: Deref<Target = SharedPage>> Back<P> {
    /// Takes a ring up where its responses stand.
    #[must_use]
    pub fn attach(memory: Memory<P>) -> Self {
        let start = memory.head().u32(RSP_PROD).get();
        Self {
            memory,
            req_cons: start,
            rsp_prod: start,
            published: start,
        }
    }

    /// Requests that wait.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn waiting(&self) -> Result<u32, Broken> {
        self.believe(self.memory.head().u32(REQ_PROD).get())
    }

    /// How many requests `prod` announces. With those that have no response yet they must have
    /// room in the ring.
    fn believe(&self, prod: u32) -> Result<u32, Broken> {
        let waiting = prod.wrapping_sub(self.req_cons);
        let room = self.memory.count().saturating_sub(self.outstanding());
        if waiting <= room {
            Ok(waiting)
        } else {
            Err(Broken)
        }
    }

    /// Requests taken that have no response yet.
    #[must_use]
    pub const fn outstanding(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// Copies the next request out; false when there is none.
    ///
    /// # Errors
    /// [`Broken`]; nothing was taken.
    pub fn take(&mut self, out: &mut [u8]) -> Result<bool, Broken> {
        if self.waiting()? == 0 {
            return Ok(false);
        }
        self.memory.read(self.req_cons, out);
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(true)
    }

    /// Puts a response in, for one of the requests that have none. The front end sees it after
    /// [`Back::publish`].
    pub fn respond(&mut self, response: &[u8]) {
        debug_assert!(self.outstanding() != 0, "a response without a request");
        if self.outstanding() != 0 {
            self.memory.write(self.rsp_prod, response);
            self.rsp_prod = self.rsp_prod.wrapping_add(1);
        }
    }

    /// Shows the front end the responses put in; true when it is to get an event.
    #[must_use = "the front end may sleep until it is told"]
    pub fn publish(&mut self) -> bool {
        let old = core::mem::replace(&mut self.published, self.rsp_prod);
        if old == self.rsp_prod {
            return false;
        }
        let head = self.memory.head();
        publish(head.u32(RSP_PROD), head.u32(RSP_EVENT), old, self.rsp_prod)
    }

    /// Asks for an event at the next request, and then looks: true when requests wait already.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn rearm(&mut self) -> Result<bool, Broken> {
        let head = self.memory.head();
        let prod = rearm(head.u32(REQ_PROD), head.u32(REQ_EVENT), self.req_cons);
        Ok(self.believe(prod)? != 0)
    }

    /// Gives the pages back.
    pub fn into_pages(self) -> impl Iterator<Item = P> {
        self.memory.into_pages()
    }
}
