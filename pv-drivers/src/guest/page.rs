//! Pages that a guest shares.

use core::ops::Deref;

use abi::Gfn;

use crate::shared_page::SharedPage;

/// A page of the guest's own, for a ring or for data: a view of it, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct OwnPage {
    view: SharedPage,
    gfn: Gfn,
}

impl OwnPage {
    /// The page at `gfn`, which `view` shows.
    #[must_use]
    pub const fn new(view: SharedPage, gfn: Gfn) -> Self {
        Self { view, gfn }
    }

    /// Its frame.
    #[must_use]
    pub const fn gfn(&self) -> Gfn {
        self.gfn
    }
}

impl Deref for OwnPage {
    type Target = SharedPage;

    fn deref(&self) -> &SharedPage {
        &self.view
    }
}
