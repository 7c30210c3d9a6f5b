//! The guest pages that a vCPU's hypercalls and emulated instructions touched last, so that
//! touching them again costs no walk of the extended page tables.
//!
//! Guest frame to host page only: how the guest translates linear addresses is its own affair and
//! looked up each time. An entry is good for one state of one p2m, which has a number of its own
//! ([`P2m::generation`]); whatever takes a page or a permission away gives the p2m a new one.
#![expect(
    unsafe_code,
    reason = "opens pages that the p2m is known to map still"
)]

use core::cell::Cell;
use core::ptr::NonNull;

use abi::Gfn;

use super::P2m;
use crate::mm::directmap::{self, Window};

/// Pages remembered, one for each value of the lowest bits of the frame number.
const PAGES: usize = 32;
/// No guest frame.
const NOTHING: u64 = u64::MAX;
/// In [`Entry::page`]: the guest may write the page.
const WRITABLE: usize = 1;

/// The pages that were touched last.
#[derive(Debug)]
pub struct PageCache {
    /// The state of a p2m that all entries belong to.
    generation: Cell<u64>,
    entries: [Entry; PAGES],
}

#[derive(Debug)]
struct Entry {
    gfn: Cell<u64>,
    /// Invariant: unless `gfn` is [`NOTHING`], the address in the direct map of the page that the
    /// p2m of `generation` maps there, present, and [`WRITABLE`] if the guest may write it.
    page: Cell<usize>,
}

impl Default for PageCache {
    fn default() -> Self {
        Self::new()
    }
}

impl PageCache {
    /// Remembers nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            generation: Cell::new(0),
            entries: [const {
                Entry {
                    gfn: Cell::new(NOTHING),
                    page: Cell::new(0),
                }
            }; PAGES],
        }
    }

    #[inline(always)]
    fn entry(&self, gfn: Gfn) -> &Entry {
        &self.entries[directmap::to_usize(gfn.raw()) % PAGES]
    }

    #[cold]
    fn forget_all(&self) {
        for entry in &self.entries {
            entry.gfn.set(NOTHING);
        }
    }
}

/// A domain's memory, opened page by page.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Pages<'a> {
    p2m: &'a P2m,
    cache: &'a PageCache,
}

impl<'a> Pages<'a> {
    #[inline(always)]
    pub(in crate::mm) const fn new(p2m: &'a P2m, cache: &'a PageCache) -> Self {
        Self { p2m, cache }
    }

    /// The bytes of a guest frame, if it has any, and whether the guest may write them.
    #[inline(always)]
    pub(in crate::mm) fn page(&self, gfn: Gfn) -> Option<(Window<'a>, bool)> {
        let entry = self.cache.entry(gfn);
        if entry.gfn.get() != gfn.raw() || self.cache.generation.get() != self.p2m.generation {
            return self.find(gfn);
        }
        let page = entry.page.get();
        // SAFETY: by the invariant on `page`, whose p2m this is.
        let window = unsafe { self.open(page & !WRITABLE) };
        Some((window, page & WRITABLE != 0))
    }

    /// Looks a page up and remembers it.
    #[cold]
    #[inline(never)]
    fn find(&self, gfn: Gfn) -> Option<(Window<'a>, bool)> {
        if self.cache.generation.get() != self.p2m.generation {
            self.cache.forget_all();
            self.cache.generation.set(self.p2m.generation);
        }
        let (mfn, writable) = self.p2m.page(gfn)?;
        let address = directmap::ptr(mfn.hpa()).as_ptr().expose_provenance();
        let entry = self.cache.entry(gfn);
        entry.gfn.set(gfn.raw());
        entry
            .page
            .set(address | if writable { WRITABLE } else { 0 });
        // SAFETY: the p2m maps the page now.
        let window = unsafe { self.open(address) };
        Some((window, writable))
    }

    /// A window on the page at `address`.
    ///
    /// # Safety
    /// It is that of a page in the direct map that `self.p2m` maps, present.
    #[inline(always)]
    unsafe fn open(&self, address: usize) -> Window<'a> {
        let pointer = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: a page of the direct map is not at address 0.
        let base = unsafe { NonNull::new_unchecked(pointer) };
        // SAFETY: the p2m holds the frame and, being borrowed, goes on doing so during `'a`. It
        // is RAM in the direct map, as all frames of the frame table; guest RAM and pages shared
        // with a guest never hold plain Rust data.
        unsafe { Window::new(base) }
    }
}
