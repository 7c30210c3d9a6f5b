//! Pages that lie over a disk, by number.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::mm::page::PageRef;

/// Pages in one leaf: 2 MiB.
const LEAF: u64 = 512;
/// Pages that are let go in one step.
const STEP: u64 = 32;

type Leaf = Box<[Option<PageRef>]>;

/// Pages by number. Memory for the table comes with the first page of each leaf.
#[derive(Debug)]
pub(super) struct Overlay {
    leaves: Vec<Option<Leaf>>,
}

/// A page's leaf and its place there.
fn place(number: u64) -> Option<(usize, usize)> {
    let leaf = usize::try_from(number / LEAF).ok()?;
    Some((leaf, usize::try_from(number % LEAF).ok()?))
}

impl Overlay {
    pub(super) const fn new() -> Self {
        Self { leaves: Vec::new() }
    }

    /// The page with this number, if there is one.
    pub(super) fn get(&self, number: u64) -> Option<&PageRef> {
        let (leaf, place) = place(number)?;
        self.leaves.get(leaf)?.as_ref()?.get(place)?.as_ref()
    }

    /// Puts a page in; `None` when there is no memory for the table.
    pub(super) fn insert(&mut self, number: u64, page: PageRef) -> Option<()> {
        let (leaf, place) = place(number)?;
        if leaf >= self.leaves.len() {
            let count = leaf.checked_add(1)?;
            let more = count.checked_sub(self.leaves.len())?;
            self.leaves.try_reserve_exact(more).ok()?;
            self.leaves.resize_with(count, || None);
        }
        let slot = self.leaves.get_mut(leaf)?;
        if slot.is_none() {
            let mut fresh = Vec::new();
            let count = usize::try_from(LEAF).ok()?;
            fresh.try_reserve_exact(count).ok()?;
            fresh.resize_with(count, || None);
            *slot = Some(fresh.into_boxed_slice());
        }
        *slot.as_mut()?.get_mut(place)? = Some(page);
        Some(())
    }

    /// Takes away the pages from `first` up to `end`, but not beyond the end of the first one's
    /// leaf, and not many at a time. Returns where it stopped.
    pub(super) fn remove(&mut self, first: u64, end: u64) -> u64 {
        let in_use = (self.leaves.len() as u64).saturating_mul(LEAF);
        if first >= in_use {
            return end;
        }
        let leaf_end = (first / LEAF).saturating_add(1).saturating_mul(LEAF);
        let end = end.min(leaf_end);
        let Some((leaf, place)) = place(first) else {
            return end;
        };
        let Some(slot) = self.leaves.get_mut(leaf) else {
            return end;
        };
        let Some(pages) = slot else {
            return end;
        };
        let end = end.min(first.saturating_add(STEP));
        let count = usize::try_from(end.saturating_sub(first)).unwrap_or(0);
        for page in pages.iter_mut().skip(place).take(count) {
            *page = None;
        }
        if end == leaf_end && pages.iter().all(Option::is_none) {
            *slot = None;
        }
        end
    }
}
