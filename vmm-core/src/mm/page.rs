//! A counted hold on one frame, with a view of its bytes.
#![expect(unsafe_code, reason = "makes the shared view of a frame it holds")]

use core::mem::ManuallyDrop;
use core::ops::Deref;

use abi::Mfn;
use pv_drivers::shared_page::SharedPage;

use super::directmap::{self, Window};
use super::frame::{Owner, frames};

/// A hold on one frame: the frame is not freed as long as any lives.
///
/// Dereferences to the [`SharedPage`] through which the hypervisor reads and writes it. A copy of
/// that view must not outlive the hold.
#[derive(Debug)]
pub struct PageRef {
    mfn: Mfn,
    /// Invariant: the view of `mfn`, on which this value counts as one hold.
    page: SharedPage,
}

impl PageRef {
    /// Allocates a zeroed frame; the returned hold is its only one.
    #[must_use]
    pub fn alloc(owner: Owner) -> Option<Self> {
        frames().alloc_zeroed(0, owner).map(Self::adopt)
    }

    /// The frame.
    #[inline]
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// The frame's owner.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        frames().owner(self.mfn)
    }

    /// The view of the frame's bytes; for code that keeps it beside the hold.
    #[inline]
    #[must_use]
    pub const fn page(&self) -> SharedPage {
        self.page
    }

    /// The frame's bytes, for copies of many.
    #[inline]
    #[must_use]
    pub fn window(&self) -> Window<'_> {
        // SAFETY: by the invariant on `page` the frame is RAM in the direct map without plain
        // Rust data; the hold keeps it for as long as `self` is borrowed.
        unsafe { Window::new(directmap::ptr(self.mfn.hpa())) }
    }

    /// Zeroes the frame.
    pub fn clear(&self) {
        // SAFETY: as in `window`.
        unsafe { directmap::zero(self.mfn, 1) };
    }

    /// Adds a hold on a frame of guest memory or one that is shared with a guest.
    ///
    /// # Panics
    /// When the frame is not allocated.
    pub(super) fn hold(mfn: Mfn) -> Self {
        frames().get(mfn);
        Self::adopt(mfn)
    }

    /// Turns a hold somebody already has on a page of guest memory into a `PageRef`.
    pub(super) fn adopt(mfn: Mfn) -> Self {
        // SAFETY: a frame is page-aligned and, by the frame table's contract, RAM in the direct
        // map; the hold keeps it allocated. Frames for holds are allocated alone or as guest
        // memory, so no plain Rust data lives in them.
        let page = unsafe { SharedPage::new(directmap::ptr(mfn.hpa())) };
        Self { mfn, page }
    }

    /// Gives the hold away, to be kept as a frame number.
    pub(super) fn into_mfn(self) -> Mfn {
        ManuallyDrop::new(self).mfn
    }
}

impl Deref for PageRef {
    type Target = SharedPage;

    fn deref(&self) -> &SharedPage {
        &self.page
    }
}

impl Clone for PageRef {
    fn clone(&self) -> Self {
        Self::hold(self.mfn)
    }
}

impl Drop for PageRef {
    fn drop(&mut self) {
        frames().put(self.mfn);
    }
}
