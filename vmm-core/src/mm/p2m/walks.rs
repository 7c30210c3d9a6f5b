//! The ways through a guest's page tables that led to a page last, so that going one again costs no
//! more than seeing that it is still the same.
//!
//! Each access by linear address reads all the guest's entries on its way, like the CPU without a
//! TLB. If they are what they were when the way was found good, and so are the registers that
//! decide on it, then it is as good now, and to the same page. The root table may be another one:
//! processes have their own, with the same entries for the kernel.
#![expect(
    unsafe_code,
    reason = "reads page tables that the p2m is known to map still"
)]

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Gfn, Gpa, PAGE_SIZE};

use super::cache::{Pages, WRITABLE};
use crate::mm::directmap::{Window, to_usize};

/// Ways remembered, one for each value of the lowest bits of the page number.
const WAYS: usize = 8;
/// No linear page: none has all bits below its address.
const NOTHING: u64 = u64::MAX;
/// The most entries on a way.
const STEPS: usize = 4;

/// What a way begins with and depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm) struct Start {
    /// CR3.
    pub(in crate::mm) cr3: u64,
    /// The guest-physical address of the entry in the root table that CR3 names.
    pub(in crate::mm) root: Gpa,
    /// The registers that say what entries mean.
    pub(in crate::mm) registers: [u64; 2],
}

/// The ways that were found last.
#[derive(Debug)]
pub(super) struct Walks {
    /// The look that is going on: see [`Walks::look_anew`].
    look: Cell<u64>,
    ways: [Way; WAYS],
}

/// A way that was good for reading.
#[derive(Debug)]
struct Way {
    /// The linear page, as [`Pages::along`] is asked for it.
    page: Cell<u64>,
    /// The look in which it was last found to be the same.
    look: Cell<u64>,
    /// CR3 when it was gone last.
    cr3: Cell<u64>,
    registers: [Cell<u64>; 2],
    /// Invariant: has the [`bit`] of every frame that `steps` and `target` are in, unless `page` is
    /// [`NOTHING`].
    frames: Cell<u64>,
    steps: [Step; STEPS],
    /// As an [`Entry`](super::cache)'s, of the page that it leads to; [`WRITABLE`] if the way is
    /// good for writing, too.
    target: Cell<usize>,
}

/// An entry on a way.
#[derive(Debug)]
struct Step {
    /// Invariant: unless the way's `page` is [`NOTHING`], the address in the direct map of an
    /// aligned 64-bit word in a page that the p2m maps in the cache's `state`.
    word: Cell<usize>,
    entry: Cell<u64>,
}

impl Walks {
    pub(super) const fn new() -> Self {
        Self {
            look: Cell::new(0),
            ways: [const {
                Way {
                    page: Cell::new(NOTHING),
                    look: Cell::new(0),
                    cr3: Cell::new(0),
                    registers: [const { Cell::new(0) }; 2],
                    frames: Cell::new(0),
                    steps: [const {
                        Step {
                            word: Cell::new(0),
                            entry: Cell::new(0),
                        }
                    }; STEPS],
                    target: Cell::new(0),
                }
            }; WAYS],
        }
    }

    pub(super) fn forget(&self) {
        for way in &self.ways {
            way.page.set(NOTHING);
        }
    }

    /// Forgets the ways that a guest frame may be part of.
    pub(super) fn forget_through(&self, gfn: Gfn) {
        for way in &self.ways {
            if way.frames.get() & bit(gfn) != 0 {
                way.page.set(NOTHING);
            }
        }
    }

    /// From now on a way must be seen once more to be the same: the guest has run.
    #[inline(always)]
    pub(super) fn look_anew(&self) {
        self.look.set(self.look.get().wrapping_add(1));
    }

    #[inline(always)]
    fn way(&self, page: u64) -> &Way {
        &self.ways[to_usize(page) / PAGE_SIZE % WAYS]
    }
}

impl Way {
    /// Counts a frame among those of the way.
    #[inline(always)]
    fn add(&self, gfn: Gfn) {
        self.frames.set(self.frames.get() | bit(gfn));
    }
}

/// The bit for a frame, which it shares with others.
const fn bit(gfn: Gfn) -> u64 {
    1 << (gfn.raw() % 64)
}

impl<'a> Pages<'a> {
    /// The page that a linear page was found to be, if the way there is known and the same still.
    /// `page` is its address, with bits below that tell what it is accessed for.
    #[inline(always)]
    pub(in crate::mm) fn along(
        &self,
        page: u64,
        writes: bool,
        start: impl FnOnce() -> Start,
    ) -> Option<Window<'a>> {
        let walks = &self.cache().walks;
        let way = walks.way(page);
        let target = way.target.get();
        if way.page.get() != page || writes && target & WRITABLE == 0 {
            return None;
        }
        let look = walks.look.get();
        if way.look.get() != look {
            if !self.is_the_same(way, start()) {
                return None;
            }
            way.look.set(look);
        }
        // SAFETY: the way is one that was found, since no linear page is `NOTHING`.
        Some(unsafe { self.open(target) })
    }

    /// True when a way that is remembered is still what it was.
    #[inline(always)]
    fn is_the_same(&self, way: &Way, start: Start) -> bool {
        let mut registers = way.registers.iter().zip(start.registers);
        registers.all(|(then, now)| then.get() == now)
            && (way.cr3.get() == start.cr3 || self.set_root(way, start))
            && way.steps.iter().all(|step| {
                let word = core::ptr::with_exposed_provenance_mut::<AtomicU64>(step.word.get());
                // SAFETY: by the invariant on `word`, as the way is remembered, an address in the
                // direct map, which is not 0.
                let word = unsafe { NonNull::new_unchecked(word) };
                // SAFETY: by the invariant on `word` in a page that the p2m maps and, being
                // borrowed, goes on mapping; aligned; atomics may alias a guest's accesses.
                let word = unsafe { word.as_ref() };
                word.load(Ordering::Acquire) == step.entry.get()
            })
    }

    /// Lets the way begin in another root table; false when there is no memory.
    #[cold]
    #[inline(never)]
    fn set_root(&self, way: &Way, Start { cr3, root, .. }: Start) -> bool {
        let [first, ..] = &way.steps;
        let found = self.page(root.gfn()).is_some();
        if found {
            way.add(root.gfn());
            first
                .word
                .set(self.address(root.gfn()) | root.page_offset());
            way.cr3.set(cr3);
        }
        found
    }

    /// Begins a new way to a linear page.
    #[inline(always)]
    pub(in crate::mm) fn set_out(&self, page: u64, start: Start) -> Trail<'_, 'a> {
        let way = self.cache().walks.way(page);
        way.page.set(NOTHING);
        way.frames.set(0);
        way.cr3.set(start.cr3);
        for (then, now) in way.registers.iter().zip(start.registers) {
            then.set(now);
        }
        Trail { pages: self, way }
    }
}

/// A way while it is found.
#[derive(Debug)]
pub(in crate::mm) struct Trail<'p, 'a> {
    pages: &'p Pages<'a>,
    way: &'p Way,
}

impl Trail<'_, '_> {
    /// Reads entry `number`, from 0, if there is memory.
    #[inline(always)]
    pub(in crate::mm) fn entry(&self, number: usize, gpa: Gpa) -> Option<u64> {
        let page = self.pages.page(gpa.gfn())?;
        let entry = page.word64(gpa.page_offset()).load(Ordering::Acquire);
        let step = self.way.steps.get(number)?;
        self.way.add(gpa.gfn());
        step.word
            .set(self.pages.address(gpa.gfn()) | gpa.page_offset());
        step.entry.set(entry);
        Some(entry)
    }

    /// Remembers that the way of so many [`Trail::entry`]s, at least one, leads from the linear page
    /// `page` to the frame `leaf`, if there is memory; `writable` says that it is good for writing,
    /// too.
    pub(in crate::mm) fn finish(&self, entries: usize, page: u64, leaf: Gfn, writable: bool) {
        let Some(([.., last], unused)) = self.way.steps.split_at_checked(entries) else {
            return;
        };
        if self.pages.page(leaf).is_none() {
            return;
        }
        for step in unused {
            step.word.set(last.word.get());
            step.entry.set(last.entry.get());
        }
        let writable = writable && self.pages.writable_page(leaf).is_some();
        let flag = if writable { WRITABLE } else { 0 };
        self.way.add(leaf);
        self.way.target.set(self.pages.address(leaf) | flag);
        self.way.look.set(self.pages.cache().walks.look.get());
        self.way.page.set(page);
    }
}
