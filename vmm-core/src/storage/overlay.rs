//! Pages that lie over a disk, by number.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::mm::page::PageRef;

/// Pages in one leaf: 2 MiB.
const LEAF: u64 = 512;
/// Pages that are let go in one step.
const STEP: u64 = 32;

/// Leaves in one directory: 1 GiB.
const DIRECTORY: u64 = 512;

type Leaf = Box<[Option<PageRef>]>;
type Directory = Box<[Option<Leaf>]>;

/// Pages by number, in a tree of three levels, so that one page more never takes or moves much: a disk has
/// up to 1,024 directories. Memory for the tables comes with the first page in each.
#[derive(Debug)]
pub(super) struct Overlay {
    directories: Vec<Option<Directory>>,
}

/// A page's directory, its leaf there, and its place in that.
fn place(number: u64) -> Option<(usize, usize, usize)> {
    let leaf = number / LEAF;
    Some((
        usize::try_from(leaf / DIRECTORY).ok()?,
        usize::try_from(leaf % DIRECTORY).ok()?,
        usize::try_from(number % LEAF).ok()?,
    ))
}

/// What is in a slot; if nothing is, a table of `count` empty slots. `None` when there is no memory.
fn table<T>(slot: &mut Option<Box<[Option<T>]>>, count: u64) -> Option<&mut [Option<T>]> {
    if slot.is_none() {
        let mut fresh = Vec::new();
        let count = usize::try_from(count).ok()?;
        fresh.try_reserve_exact(count).ok()?;
        fresh.resize_with(count, || None);
        *slot = Some(fresh.into_boxed_slice());
    }
    slot.as_deref_mut()
}

impl Overlay {
    pub(super) const fn new() -> Self {
        Self {
            directories: Vec::new(),
        }
    }

    /// The page with this number, if there is one.
    pub(super) fn get(&self, number: u64) -> Option<&PageRef> {
        let (directory, leaf, place) = place(number)?;
        let leaves = self.directories.get(directory)?.as_ref()?;
        leaves.get(leaf)?.as_ref()?.get(place)?.as_ref()
    }

    /// Puts a page in; `None` when there is no memory for the tables.
    pub(super) fn insert(&mut self, number: u64, page: PageRef) -> Option<()> {
        let (directory, leaf, place) = place(number)?;
        if directory >= self.directories.len() {
            let count = directory.checked_add(1)?;
            let more = count.checked_sub(self.directories.len())?;
            self.directories.try_reserve_exact(more).ok()?;
            self.directories.resize_with(count, || None);
        }
        let leaves = table(self.directories.get_mut(directory)?, DIRECTORY)?;
        let pages = table(leaves.get_mut(leaf)?, LEAF)?;
        *pages.get_mut(place)? = Some(page);
        Some(())
    }

    /// Takes away the pages from `first` up to `end`, but not beyond the end of the first one's
    /// leaf, and not many at a time. Returns where it stopped.
    pub(super) fn remove(&mut self, first: u64, end: u64) -> u64 {
        let Some((directory, leaf, place)) = place(first) else {
            return end;
        };
        let end_of = |size: u64| end.min((first / size).saturating_add(1).saturating_mul(size));
        let Some(directory) = self.directories.get_mut(directory) else {
            return end;
        };
        let Some(leaves) = directory else {
            return end_of(LEAF.saturating_mul(DIRECTORY));
        };
        let leaf_end = end_of(LEAF);
        let Some(slot) = leaves.get_mut(leaf) else {
            return leaf_end;
        };
        let Some(pages) = slot else {
            return leaf_end;
        };
        let end = leaf_end.min(first.saturating_add(STEP));
        let count = usize::try_from(end.saturating_sub(first)).unwrap_or(0);
        for page in pages.iter_mut().skip(place).take(count) {
            *page = None;
        }
        if end.is_multiple_of(LEAF) && pages.iter().all(Option::is_none) {
            *slot = None;
        }
        end
    }
}
