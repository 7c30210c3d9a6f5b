//! The guest pages that a vCPU's hypercalls and emulated instructions touched last, so that
//! touching them again costs no walk of the extended page tables.
//!
//! Guest frame to host page only: how the guest translates linear addresses is its own affair and
//! looked up each time, along [`walks`](super::walks). An entry is good for one state of one p2m;
//! whatever takes a page or a permission away begins a new one (`state`). Of the last few states the
//! p2m still knows what went at their end, so that all else stays good.
#![expect(unsafe_code, reason = "opens pages that the p2m is known to map still")]

use core::cell::Cell;
use core::ptr::NonNull;

use abi::Gfn;
use invariant::invariant;

use super::P2m;
use super::walks::Walks;
use crate::mm::directmap::{self, Window};

/// Pages remembered, one for each value of the lowest bits of the frame number.
const PAGES: usize = 32;
/// In [`Entry::page`]: the guest may write the page.
pub(super) const WRITABLE: usize = 1;

/// The pages that were touched last.
#[derive(Debug)]
pub struct PageCache {
    /// The number of the p2m's state that all entries belong to.
    state: Cell<u64>,
    /// How many [`Pages`] use it now.
    open: Cell<u32>,
    entries: [Entry; PAGES],
    /// Of the same state.
    pub(super) walks: Walks,
}

#[derive(Debug)]
struct Entry {
    /// The guest frame; [`other_than`] those that belong here while there is none, so that no
    /// number a guest may think of is found.
    gfn: Cell<u64>,
    /// Invariant: if `gfn` belongs here, the address in the direct map of the page that the p2m
    /// maps there in `state`, exposed, and [`WRITABLE`] if the guest may write it.
    page: Cell<usize>,
}

/// The entry of a guest frame.
#[inline(always)]
const fn index(gfn: u64) -> usize {
    directmap::to_usize(gfn) % PAGES
}

/// A number that belongs to another entry than this one does: the lowest bits are others.
#[inline(always)]
const fn other_than(gfn: u64) -> u64 {
    !gfn
}

impl Default for PageCache {
    fn default() -> Self {
        Self::new()
    }
}

impl PageCache {
    /// Remembers nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Cell::new(0),
            open: Cell::new(0),
            entries: core::array::from_fn(|index| Entry {
                gfn: Cell::new(other_than(index as u64)),
                page: Cell::new(0),
            }),
            walks: Walks::new(),
        }
    }

    /// The guest has run since pages were last looked for by linear address.
    #[inline(always)]
    pub fn look_anew(&self) {
        self.walks.look_anew();
    }

    #[inline(always)]
    fn entry(&self, gfn: Gfn) -> &Entry {
        &self.entries[index(gfn.raw())]
    }

    /// Goes over to another state or another p2m: forgets what went meanwhile, or all there is
    /// when that is not known.
    #[cold]
    #[inline(never)]
    fn catch_up(&self, p2m: &P2m) {
        invariant!(self.open.get() == 0, "one p2m at a time");
        let forget = |gfn: Gfn| {
            self.entry(gfn).gfn.set(other_than(gfn.raw()));
            self.walks.forget_through(gfn);
        };
        if !p2m.state.gone_since(self.state.get(), forget) {
            for (index, entry) in (0..).zip(&self.entries) {
                entry.gfn.set(other_than(index));
            }
            self.walks.forget();
        }
        self.state.set(p2m.state.number());
    }
}

/// A domain's memory, opened page by page.
#[derive(Debug)]
pub(in crate::mm) struct Pages<'a> {
    p2m: &'a P2m,
    /// Invariant: its `state` is that of `p2m` for as long as this value lives.
    cache: &'a PageCache,
}

impl Drop for Pages<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let open = &self.cache.open;
        open.set(open.get().wrapping_sub(1));
    }
}

impl<'a> Pages<'a> {
    /// # Panics
    /// When `cache` is in use already for another p2m.
    #[inline(always)]
    pub(in crate::mm) fn new(p2m: &'a P2m, cache: &'a PageCache) -> Self {
        if cache.state.get() != p2m.state.number() {
            cache.catch_up(p2m);
        }
        cache.open.set(cache.open.get().wrapping_add(1));
        Self { p2m, cache }
    }

    /// The bytes of a guest frame, if it has any.
    #[inline(always)]
    pub(in crate::mm) fn page(&self, gfn: Gfn) -> Option<Window<'a>> {
        let entry = self.cache.entry(gfn);
        if entry.gfn.get() == gfn.raw() || self.find(gfn) {
            // SAFETY: the entry is of this frame.
            Some(unsafe { self.open(entry.page.get()) })
        } else {
            None
        }
    }

    /// The bytes of a guest frame that the guest may write.
    #[inline(always)]
    pub(in crate::mm) fn writable_page(&self, gfn: Gfn) -> Option<Window<'a>> {
        let page = self.page(gfn)?;
        // The entry is that of the page just found.
        let writable = self.cache.entry(gfn).page.get() & WRITABLE != 0;
        writable.then_some(page)
    }

    /// Looks a page up and remembers it; false when there is none.
    #[cold]
    #[inline(never)]
    fn find(&self, gfn: Gfn) -> bool {
        let Some((mfn, writable)) = self.p2m.page(gfn) else {
            return false;
        };
        let address = directmap::ptr(mfn.hpa()).as_ptr().expose_provenance();
        let entry = self.cache.entry(gfn);
        entry.gfn.set(gfn.raw());
        let flag = if writable { WRITABLE } else { 0 };
        entry.page.set(address | flag);
        true
    }

    /// The address of the page that was just found for a guest frame.
    #[inline(always)]
    pub(super) fn address(&self, gfn: Gfn) -> usize {
        self.cache.entry(gfn).page.get() & !WRITABLE
    }

    #[inline(always)]
    pub(super) const fn cache(&self) -> &'a PageCache {
        self.cache
    }

    /// A window on a page.
    ///
    /// # Safety
    /// `page` is that of an [`Entry`] whose `gfn` was looked up or found and belongs there.
    #[inline(always)]
    pub(super) unsafe fn open(&self, page: usize) -> Window<'a> {
        let address = page & !WRITABLE;
        let pointer = core::ptr::with_exposed_provenance_mut(address);
        // SAFETY: by the invariant on `page` the address of a page of the direct map, which is
        // not 0.
        let base = unsafe { NonNull::new_unchecked(pointer) };
        // SAFETY: by the invariants on `page` and `cache` the p2m maps the page. It holds the
        // frame and, being borrowed, goes on doing so during `'a`. The frame is RAM in the direct
        // map, as all of the frame table; guest RAM and pages shared with a guest never hold plain
        // Rust data.
        unsafe { Window::new(base) }
    }
}
