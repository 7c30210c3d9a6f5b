//! The pages of a ring.

use core::ops::Deref;

use abi::PAGE_SIZE;
use abi::ring::{ENTRIES, entries};
use heapless::Vec;
use invariant::OrBroken;

use crate::shared_page::SharedPage;

/// The most pages a ring may have.
pub const MAX_PAGES: usize = 16;

/// Why a piece of an entry fits in what is copied.
const PIECES: &str = "the pieces of an entry are no longer than it";

/// The pages of one ring, held for as long as it lives, and how they are divided into entries.
#[derive(Clone, Debug)]
pub struct Memory<P> {
    head: P,
    more: Vec<P, { MAX_PAGES - 1 }>,
    entry: usize,
    /// A power of two.
    count: u32,
}

impl<P: Deref<Target = SharedPage>> Memory<P> {
    /// A ring of entries of `entry` bytes in these pages; `None` for no pages, too many, or such
    /// that hold no entry.
    pub fn new(pages: impl IntoIterator<Item = P>, entry: usize) -> Option<Self> {
        let mut pages = pages.into_iter();
        let head = pages.next()?;
        let mut more = Vec::new();
        for page in pages {
            more.push(page).ok()?;
        }
        let bytes = more.len().checked_add(1)?.checked_mul(PAGE_SIZE)?;
        let count = u32::try_from(entries(entry, bytes)).ok()?;
        (count != 0).then_some(Self {
            head,
            more,
            entry,
            count,
        })
    }

    /// How many entries there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Gives the pages back.
    pub fn into_pages(self) -> impl Iterator<Item = P> {
        let mut more = self.more;
        core::iter::once(self.head).chain(core::iter::from_fn(move || more.pop()))
    }

    /// The page with the indices.
    pub(super) fn head(&self) -> &SharedPage {
        &self.head
    }

    /// Copies an entry out, as much of it as `out` holds.
    pub(super) fn read(&self, index: u32, out: &mut [u8]) {
        let mut rest = out;
        self.pieces(index, rest.len(), |page, offset, len| {
            let (now, later) = core::mem::take(&mut rest)
                .split_at_mut_checked(len)
                .or_broken(PIECES);
            page.read(offset, now);
            rest = later;
        });
    }

    /// Copies into an entry as much of `bytes` as it holds.
    pub(super) fn write(&self, index: u32, bytes: &[u8]) {
        let mut rest = bytes;
        self.pieces(index, rest.len(), |page, offset, len| {
            let (now, later) = rest.split_at_checked(len).or_broken(PIECES);
            page.write(offset, now);
            rest = later;
        });
    }

    /// The first `len` bytes of an entry: one piece, or two if it lies across two pages.
    fn pieces(&self, index: u32, len: usize, mut each: impl FnMut(&SharedPage, usize, usize)) {
        let slot = (index & self.count.wrapping_sub(1)) as usize;
        let mut at = ENTRIES.saturating_add(slot.saturating_mul(self.entry));
        let mut left = len.min(self.entry);
        while left != 0 {
            let offset = at % PAGE_SIZE;
            let now = left.min(PAGE_SIZE.saturating_sub(offset));
            let page = match (at / PAGE_SIZE).checked_sub(1) {
                None => Some(&self.head),
                Some(number) => self.more.get(number),
            };
            // The entries were counted by the pages that are there.
            let Some(page) = page else { return };
            each(page, offset, now);
            at = at.saturating_add(now);
            left = left.saturating_sub(now);
        }
    }
}
