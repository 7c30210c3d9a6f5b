//! A granted page that the hypervisor has in use: what copies, and back ends inside it, work on.

use alloc::sync::Arc;

use abi::grant_table::status;
use abi::{GrantRef, Mfn, PAGE_SIZE};
use pv_drivers::shared_page::SharedPage;

use super::ops::Party;
use super::pin::{Granted, Status, Use};
use crate::mm::directmap::Window;

/// Something that leads to a domain that grants, for as long as it lives.
pub trait Granter {
    /// The domain's part in grants.
    fn party(&self) -> Party<'_>;
}

impl Granter for Party<'_> {
    fn party(&self) -> Party<'_> {
        *self
    }
}

impl<G: Granter> Granter for &G {
    #[inline]
    fn party(&self) -> Party<'_> {
        (*self).party()
    }
}

impl<G: Granter> Granter for Arc<G> {
    #[inline]
    fn party(&self) -> Party<'_> {
        (**self).party()
    }
}

/// A granted page in use, which the granter cannot take back meanwhile. Dropping the value ends
/// the use; that and the beginning take locks of the granter's, so neither is done under one.
///
/// It outlives the granter's end, and then keeps alive what `G` does.
#[derive(Debug)]
pub struct HeldPage<G: Granter> {
    granter: G,
    gref: GrantRef,
    write: bool,
    granted: Granted,
}

impl<G: Granter> HeldPage<G> {
    /// Begins a use of an entry of `granter`'s.
    ///
    /// # Errors
    /// The status that map and copy answer with.
    #[inline]
    pub fn new(granter: G, what: Use) -> Result<Self, Status> {
        let granted = granter.party().pin(what)?;
        Ok(Self {
            granter,
            gref: what.gref,
            write: what.write,
            granted,
        })
    }

    /// The frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.granted.page.mfn()
    }

    /// The page, for a back end that shares it with the granter; `None` if not all of it is granted.
    /// Only a use to write gives the right to write it.
    #[must_use]
    pub fn page(&self) -> Option<&SharedPage> {
        self.bytes(0, PAGE_SIZE).ok().map(|_| &*self.granted.page)
    }

    /// The page's bytes, if those that are wanted are granted.
    #[inline]
    pub(super) fn bytes(&self, offset: usize, length: usize) -> Result<Window<'_>, Status> {
        let start = usize::from(self.granted.start);
        let granted = start
            ..=start
                .saturating_add(self.granted.length.into())
                .min(PAGE_SIZE);
        if granted.contains(&offset) && granted.contains(&offset.saturating_add(length)) {
            Ok(self.granted.page.window())
        } else {
            Err(status::GENERAL_ERROR)
        }
    }
}

impl<G: Granter> Drop for HeldPage<G> {
    fn drop(&mut self) {
        self.granter.party().unpin(self.gref, self.write);
    }
}
