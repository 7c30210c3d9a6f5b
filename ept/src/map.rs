//! The tree: mapping, unmapping, protecting, splitting.

use core::ops::Range;

use abi::{Gfn, Hpa, Mfn};
use invariant::OrBroken;

use crate::entry::{Attr, Entry, Perms};
use crate::flush::Flush;
use crate::mem::TableMem;
use crate::walk::{self, GFN_BITS, Leaf, PageSize, SLOTS, Slot, Small};

/// Bits a machine frame number has in an entry.
const MFN_BITS: u32 = 40;
/// Tables that may be empty at a time: each costs whoever looks for the next leaf some steps.
const MOST_EMPTY: u32 = 4;

/// Why a change was refused. Nothing was changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EptError {
    /// No memory for a table.
    NoMemory,
    /// The guest frame lies outside the address space.
    OutOfRange,
    /// Guest or machine frame is not aligned to the page's size.
    Misaligned,
    /// Something is mapped there.
    Occupied,
    /// Nothing is mapped there.
    Hole,
    /// Attributes no CPU takes.
    BadAttr,
    /// The caller wants what is mapped there to stay.
    Refused,
}

/// Guest frames that nothing maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The first frame behind those that were looked at.
    pub end: Gfn,
    /// The slots read to find that out, 512 at most.
    pub slots: u64,
}

/// A domain's extended page tables.
///
/// Dropping the value frees the tables: no CPU may use them any more then.
#[derive(Debug)]
pub struct Ept<M: TableMem> {
    mem: M,
    root: Mfn,
    /// The first guest frame number outside the address space.
    end: Gfn,
    /// Page tables that [`Ept::vacate`] left empty.
    empty_tables: u32,
}

/// The size of the pages whose leaves a level holds; the root, level 0, holds none.
const fn size_at(level: usize) -> Option<PageSize> {
    match level {
        1 => Some(PageSize::Size1G),
        2 => Some(PageSize::Size2M),
        3 => Some(PageSize::Size4K),
        _ => None,
    }
}

/// The level that holds leaves of `size`.
const fn level_of(size: PageSize) -> usize {
    match size {
        PageSize::Size1G => 1,
        PageSize::Size2M => 2,
        PageSize::Size4K => 3,
    }
}

/// The slots that cover one guest frame, from the root down to `level`.
#[derive(Clone, Copy, Debug)]
struct Path {
    slots: [Slot; 4],
    level: usize,
}

impl Path {
    /// The last slot.
    fn slot(&self) -> Slot {
        let slot = self.slots.get(self.level);
        *slot.or_broken("a path ends at one of four levels")
    }

    /// The size of the last slot, if it can hold a leaf.
    const fn size(&self) -> Option<PageSize> {
        size_at(self.level)
    }

    /// The size of slots one level below the last.
    const fn size_below(&self) -> Option<PageSize> {
        size_at(self.level.saturating_add(1))
    }

    /// The slot above the last, which points to the table that one is in.
    fn above(&self) -> Option<Slot> {
        self.slots.get(self.level.checked_sub(1)?).copied()
    }

    /// Goes on to a slot of [`Path::size_below`].
    fn push(&mut self, slot: Slot) {
        self.level = self.level.saturating_add(1);
        let place = self.slots.get_mut(self.level);
        *place.or_broken("a page table is the last level") = slot;
    }
}

impl<M: TableMem> Ept<M> {
    /// Makes empty tables for guest-physical addresses of `address_bits` bits; four levels
    /// translate 48.
    ///
    /// # Errors
    /// [`EptError::NoMemory`].
    pub fn new(mem: M, address_bits: u32) -> Result<Self, EptError> {
        let gfn_bits = address_bits.saturating_sub(abi::PAGE_SHIFT).min(GFN_BITS);
        let root = mem.alloc().ok_or(EptError::NoMemory)?;
        Ok(Self {
            mem,
            root,
            end: Gfn::new(1 << gfn_bits),
            empty_tables: 0,
        })
    }

    /// The address of the root table, for the EPT pointer.
    #[inline]
    #[must_use]
    pub const fn root(&self) -> Hpa {
        self.root.hpa()
    }

    /// The first guest frame number outside the address space.
    #[inline]
    #[must_use]
    pub const fn gfn_end(&self) -> Gfn {
        self.end
    }

    /// Page tables that are empty.
    #[cfg(test)]
    pub(crate) const fn empty_tables(&self) -> u32 {
        self.empty_tables
    }

    /// The memory of the tables.
    #[must_use]
    pub const fn mem(&self) -> &M {
        &self.mem
    }

    /// Finds the leaf that covers `gfn`.
    #[inline]
    #[must_use]
    pub fn lookup(&self, gfn: Gfn) -> Option<Leaf> {
        self.entry(gfn).map(|(entry, size)| leaf(gfn, entry, size))
    }

    /// The entry of the leaf that covers `gfn`, and its size: a lookup for hot paths, which take
    /// from the entry what they need.
    #[inline]
    #[must_use]
    pub fn entry(&self, gfn: Gfn) -> Option<(Entry, PageSize)> {
        if gfn >= self.end {
            return None;
        }
        let (_, entry, size) = walk::find(&self.mem, self.root, gfn)?;
        Some((entry, size))
    }

    /// Finds the first leaf that maps `from` or anything from there to before `end`. Reads no slot of
    /// what lies beyond.
    #[must_use]
    pub fn next(&self, from: Gfn, end: Gfn) -> Option<Leaf> {
        let mut gfn = from;
        while gfn < end {
            match self.seek(gfn, end) {
                Ok(leaf) => return Some(leaf),
                Err(gap) => gfn = gap.end,
            }
        }
        None
    }

    /// A step of such a search, which may take long where tables are sparse: the leaf that maps
    /// `gfn`, or else where to go on, when one table has been looked through.
    ///
    /// # Errors
    /// [`Gap`] when nothing maps `gfn`.
    pub fn seek(&self, gfn: Gfn, end: Gfn) -> Result<Leaf, Gap> {
        let end = end.min(self.end);
        if gfn >= end {
            return Err(Gap { end, slots: 0 });
        }
        let path = self.path(gfn, PageSize::Size4K);
        let Slot { table, index } = path.slot();
        let entry = path.slot().read(&self.mem);
        let slot_size = match path.size() {
            Some(size) if entry.is_leaf(size) => return Ok(leaf(gfn, entry, size)),
            Some(size) => size.frames(),
            None => PageSize::Size1G.frames() * SLOTS as u64,
        };
        let start = gfn.raw() & !(slot_size - 1);
        // On to the next slot of this table that is not empty.
        let slots = end.raw().saturating_sub(start).div_ceil(slot_size);
        let skipped = (index..SLOTS)
            .zip(0..slots)
            .find(|&(index, _)| !Slot { table, index }.read(&self.mem).is_empty());
        let skipped = skipped.map_or(
            slots.min(SLOTS.saturating_sub(index) as u64),
            |(_, skipped)| skipped,
        );
        Err(Gap {
            // Behind the last slot of all, this ends the search even if it saturates.
            end: Gfn::new(start).saturating_add(skipped.saturating_mul(slot_size)),
            slots: skipped,
        })
    }

    /// Maps a page where nothing is mapped. No page was present, so nothing is to invalidate unless
    /// the page takes the place of tables that [`Ept::vacate`] left empty.
    ///
    /// # Errors
    /// [`EptError`]; `Occupied` when any frame of the page is mapped.
    pub fn map(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        size: PageSize,
        attr: Attr,
    ) -> Result<Flush, EptError> {
        self.check(gfn, size)?;
        check_leaf(mfn, size, attr)?;
        let leaf = Entry::leaf(mfn, size, attr);
        if size == PageSize::Size4K
            && let Some(small) = self.small(gfn)
        {
            if !small.entry.is_empty() {
                return Err(EptError::Occupied);
            }
            self.fill(small, leaf);
            return Ok(Flush::none());
        }
        let path = self.path(gfn, size);
        let old = path.slot().read(&self.mem);
        if !old.is_empty() {
            if path.level != level_of(size) || !self.is_vacant(old, size) {
                return Err(EptError::Occupied);
            }
            path.slot().write(&self.mem, leaf);
            let mut flush = Flush::none();
            self.drop_subtree(gfn, old, size, &mut flush, &mut |_| ());
            return Ok(flush);
        }
        let (path, flush) = self.open(gfn, size)?;
        path.slot().write(&self.mem, leaf);
        self.add_live(&path, 1);
        Ok(flush)
    }

    /// Maps `count` pages of 4 KiB within one page of 2 MiB, to frames that follow each other, where
    /// nothing is mapped: much faster than one by one.
    ///
    /// # Errors
    /// As [`Ept::map`]; `Misaligned` for pages that lie in more than one page of 2 MiB.
    pub fn map_run(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        count: u64,
        attr: Attr,
    ) -> Result<Flush, EptError> {
        let slots = self.run(gfn, count)?;
        check_leaf(
            Mfn::new(mfn.raw().saturating_add(count)),
            PageSize::Size4K,
            attr,
        )?;
        let path = self.path(gfn, PageSize::Size4K);
        let table = path.slot().table;
        let in_table = path.size() == Some(PageSize::Size4K);
        let taken = if in_table {
            slots
                .clone()
                .any(|index| !Slot { table, index }.read(&self.mem).is_empty())
        } else {
            !path.slot().read(&self.mem).is_empty()
        };
        if taken {
            return Err(EptError::Occupied);
        }
        if in_table
            && path
                .above()
                .is_some_and(|above| above.read(&self.mem).live() == 0)
        {
            self.one_less_empty();
        }
        let (path, flush) = self.open(gfn, PageSize::Size4K)?;
        let table = path.slot().table;
        for (mfn, index) in (mfn.raw()..u64::MAX).zip(slots) {
            let entry = Entry::leaf(Mfn::new(mfn), PageSize::Size4K, attr);
            Slot { table, index }.write(&self.mem, entry);
        }
        self.add_live(&path, count);
        Ok(flush)
    }

    /// Takes back what [`Ept::map_run`] did.
    ///
    /// # Errors
    /// `Hole` when a part of it is not mapped, in pages of 4 KiB.
    pub fn unmap_run(&mut self, gfn: Gfn, count: u64) -> Result<Flush, EptError> {
        let slots = self.run(gfn, count)?;
        let path = self.path(gfn, PageSize::Size4K);
        let table = path.slot().table;
        let mapped = path.size() == Some(PageSize::Size4K)
            && slots
                .clone()
                .all(|index| !Slot { table, index }.read(&self.mem).is_empty());
        if !mapped {
            return Err(EptError::Hole);
        }
        let mut flush = Flush::none();
        for index in slots {
            let slot = Slot { table, index };
            flush.merge(&self.mem, Flush::when(slot.read(&self.mem).is_present()));
            slot.write(&self.mem, Entry::EMPTY);
        }
        self.drop_live(path, count, &mut flush);
        Ok(flush)
    }

    /// The slots of pages of 4 KiB that lie in one table.
    fn run(&self, gfn: Gfn, count: u64) -> Result<Range<usize>, EptError> {
        let last = count.checked_sub(1).and_then(|last| gfn.checked_add(last));
        let last = last.ok_or(EptError::OutOfRange)?;
        self.check(last, PageSize::Size4K)?;
        if PageSize::Size2M.base(gfn) != PageSize::Size2M.base(last) {
            return Err(EptError::Misaligned);
        }
        let [first, last] = [gfn, last].map(|gfn| PageSize::Size4K.index(gfn));
        Ok(first..last + 1)
    }

    /// Maps one 4 KiB page, over whatever maps its frame now if `may_go` says so of the entry;
    /// returns what that was.
    ///
    /// # Errors
    /// [`EptError`]; `Refused` when it may not go.
    pub fn replace(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        attr: Attr,
        may_go: impl FnOnce(Entry) -> bool,
    ) -> Result<(Option<Leaf>, Flush), EptError> {
        self.check(gfn, PageSize::Size4K)?;
        check_leaf(mfn, PageSize::Size4K, attr)?;
        let new = Entry::leaf(mfn, PageSize::Size4K, attr);
        if let Some(small) = self.small(gfn)
            && small.entry.is_empty()
        {
            self.fill(small, new);
            return Ok((None, Flush::none()));
        }
        if self.entry(gfn).is_some_and(|(old, _)| !may_go(old)) {
            return Err(EptError::Refused);
        }
        let (path, mut flush) = self.open(gfn, PageSize::Size4K)?;
        let slot = path.slot();
        let old = slot.read(&self.mem);
        slot.write(&self.mem, new);
        if old.is_empty() {
            self.add_live(&path, 1);
            return Ok((None, flush));
        }
        flush.merge(&self.mem, Flush::when(old.is_present()));
        Ok((Some(leaf(gfn, old, PageSize::Size4K)), flush))
    }

    /// Unmaps the 4 KiB page at `gfn` if there is one, with others beside it in its table, and
    /// `may_go` says so of its entry.
    #[inline]
    pub fn unmap_small(
        &mut self,
        gfn: Gfn,
        may_go: impl FnOnce(Entry) -> bool,
    ) -> Option<(Leaf, Flush)> {
        let small = self.small(gfn).filter(|small| small.table.live() > 1)?;
        self.take_out(small, may_go)
    }

    /// Unmaps the 4 KiB page at `gfn` if there is one and `may_go` says so of its entry. A table may
    /// stay that is empty then, until something larger is mapped in its place or all goes.
    #[inline]
    pub fn vacate(
        &mut self,
        gfn: Gfn,
        may_go: impl FnOnce(Entry) -> bool,
    ) -> Option<(Leaf, Flush)> {
        let small = self.small(gfn)?;
        if small.table.live() > 1 {
            return self.take_out(small, may_go);
        }
        if self.empty_tables < MOST_EMPTY {
            let gone = self.take_out(small, may_go)?;
            self.empty_tables += 1;
            return Some(gone);
        }
        if small.entry.is_empty() || !may_go(small.entry) {
            return None;
        }
        let mut gone = None;
        let flush = self.unmap(gfn, PageSize::Size4K, |leaf| gone = Some(leaf));
        Some((gone?, flush.ok()?))
    }

    /// Unmaps all there is in the page of `size` at `gfn`, splitting a larger one; shows every
    /// leaf that went.
    ///
    /// # Errors
    /// [`EptError`]; `Hole` when nothing is mapped there.
    pub fn unmap(
        &mut self,
        gfn: Gfn,
        size: PageSize,
        mut see: impl FnMut(Leaf),
    ) -> Result<Flush, EptError> {
        self.check(gfn, size)?;
        let (path, mut flush) = self.open_mapped(gfn, size)?;
        let entry = path.slot().read(&self.mem);
        path.slot().write(&self.mem, Entry::EMPTY);
        self.drop_subtree(gfn, entry, size, &mut flush, &mut see);
        self.drop_live(path, 1, &mut flush);
        Ok(flush)
    }

    /// Splits a larger page, so that the one of `size` at `gfn` can change without memory.
    ///
    /// # Errors
    /// [`EptError`]; `Hole` when nothing is mapped there.
    pub fn split(&mut self, gfn: Gfn, size: PageSize) -> Result<Flush, EptError> {
        self.check(gfn, size)?;
        self.open_mapped(gfn, size).map(|(_, flush)| flush)
    }

    /// Gives every present leaf in the page of `size` at `gfn` other permissions, splitting a
    /// larger page. Leaves that are not present stay so.
    ///
    /// # Errors
    /// [`EptError`]; `Hole` when nothing is mapped there.
    pub fn protect(&mut self, gfn: Gfn, size: PageSize, perms: Perms) -> Result<Flush, EptError> {
        self.check(gfn, size)?;
        if !(Attr {
            perms,
            ..Attr::ram(1)
        })
        .is_valid()
        {
            return Err(EptError::BadAttr);
        }
        let (path, mut flush) = self.open_mapped(gfn, size)?;
        let lost = self.protect_subtree(path.slot(), size, perms);
        flush.merge(&self.mem, Flush::when(lost));
        Ok(flush)
    }

    /// Makes the leaf that covers `gfn` present if it is not; returns it as it is now. Needs no
    /// invalidation. May run beside lookups, but not beside itself.
    ///
    /// # Errors
    /// `Hole` when there is no leaf, `BadAttr`.
    pub fn reveal(&self, gfn: Gfn, perms: Perms) -> Result<Leaf, EptError> {
        if gfn >= self.end {
            return Err(EptError::OutOfRange);
        }
        if !(Attr {
            perms,
            ..Attr::ram(1)
        })
        .is_valid()
        {
            return Err(EptError::BadAttr);
        }
        let found = walk::find(&self.mem, self.root, gfn);
        let (slot, mut entry, size) = found.ok_or(EptError::Hole)?;
        if !entry.is_present() {
            entry = entry.with_perms(perms);
            slot.write(&self.mem, entry);
        }
        Ok(leaf(gfn, entry, size))
    }

    /// Unmaps everything, showing every leaf there was.
    pub fn clear(&mut self, mut see: impl FnMut(Leaf)) -> Flush {
        let mut flush = Flush::none();
        for index in 0..SLOTS {
            let slot = Slot {
                table: self.root,
                index,
            };
            let entry = slot.read(&self.mem);
            if !entry.is_empty() {
                slot.write(&self.mem, Entry::EMPTY);
                let gfn = Gfn::new((index as u64) << 27);
                self.drop_table(gfn, entry.mfn(), PageSize::Size1G, &mut flush, &mut see);
            }
        }
        flush
    }

    /// Checks that a page lies in the address space and is aligned.
    fn check(&self, gfn: Gfn, size: PageSize) -> Result<(), EptError> {
        match gfn.checked_add(size.frames()) {
            Some(end) if end <= self.gfn_end() => {}
            _ => return Err(EptError::OutOfRange),
        }
        if size.base(gfn) == gfn {
            Ok(())
        } else {
            Err(EptError::Misaligned)
        }
    }

    /// The slot of a small page, where there is a page table for it: the short way of most changes.
    #[inline]
    fn small(&self, gfn: Gfn) -> Option<Small> {
        if gfn >= self.end {
            return None;
        }
        walk::find_small(&self.mem, self.root, gfn)
    }

    /// Maps a small page in its empty slot.
    #[inline]
    fn fill(&mut self, small: Small, leaf: Entry) {
        small.slot.write(&self.mem, leaf);
        let mut table = small.table;
        if table.live() == 0 {
            self.one_less_empty();
        }
        table.set_live(table.live() + 1);
        small.above.write(&self.mem, table);
    }

    /// Empties the slot of a small page, if one is mapped that may go.
    #[inline]
    fn take_out(
        &mut self,
        small: Small,
        may_go: impl FnOnce(Entry) -> bool,
    ) -> Option<(Leaf, Flush)> {
        let entry = small.entry;
        if entry.is_empty() || !may_go(entry) {
            return None;
        }
        small.slot.write(&self.mem, Entry::EMPTY);
        let mut table = small.table;
        let live = table.live().checked_sub(1);
        table.set_live(live.or_broken("a page table counts its pages"));
        small.above.write(&self.mem, table);
        let gone = leaf(small.gfn, entry, PageSize::Size4K);
        Some((gone, Flush::when(entry.is_present())))
    }

    /// A table that [`Ept::vacate`] left empty is so no longer.
    fn one_less_empty(&mut self) {
        debug_assert!(self.empty_tables > 0, "an empty table not counted");
        self.empty_tables = self.empty_tables.saturating_sub(1);
    }

    /// True for an entry of `size` that points to tables which map nothing.
    fn is_vacant(&self, entry: Entry, size: PageSize) -> bool {
        match size.smaller() {
            Some(smaller) if !entry.is_leaf(size) => (0..SLOTS).all(|index| {
                let table = entry.mfn();
                let below = Slot { table, index }.read(&self.mem);
                below.is_empty() || self.is_vacant(below, smaller)
            }),
            _ => false,
        }
    }

    /// Walks towards the slot of `size` that covers `gfn`, as far as there are tables.
    fn path(&self, gfn: Gfn, size: PageSize) -> Path {
        let root = Slot {
            table: self.root,
            index: walk::root_index(gfn),
        };
        let mut path = Path {
            slots: [root; 4],
            level: 0,
        };
        while path.level < level_of(size) {
            let entry = path.slot().read(&self.mem);
            let is_leaf = path.size().is_some_and(|here| entry.is_leaf(here));
            let next = path.size_below();
            let Some(next) = next.filter(|_| !entry.is_empty() && !is_leaf) else {
                break;
            };
            path.push(Slot {
                table: entry.mfn(),
                index: next.index(gfn),
            });
        }
        path
    }

    /// Like [`Ept::open`], where something is mapped.
    fn open_mapped(&mut self, gfn: Gfn, size: PageSize) -> Result<(Path, Flush), EptError> {
        if self.path(gfn, size).slot().read(&self.mem).is_empty() {
            return Err(EptError::Hole);
        }
        self.open(gfn, size)
    }

    /// Walks to the slot of `size` that covers `gfn`, making tables and splitting a larger page
    /// on the way. Takes all the memory it needs before it changes anything.
    fn open(&mut self, gfn: Gfn, size: PageSize) -> Result<(Path, Flush), EptError> {
        let mut path = self.path(gfn, size);
        let mut flush = Flush::none();
        let mut tables = [None; 3];
        let missing = level_of(size).saturating_sub(path.level);
        for table in tables.iter_mut().take(missing) {
            *table = self.mem.alloc();
        }
        if tables.iter().take(missing).any(Option::is_none) {
            for table in tables.into_iter().flatten() {
                self.mem.free(table);
            }
            return Err(EptError::NoMemory);
        }
        for table in tables.into_iter().flatten() {
            let split = self.grow(&mut path, gfn, table);
            flush.merge(&self.mem, Flush::when(split));
        }
        Ok((path, flush))
    }

    /// Hangs a new table under the slot a path ends in, and extends the path. When the slot maps
    /// a page the table maps the same in smaller ones. True when a CPU may have seen that page.
    fn grow(&mut self, path: &mut Path, gfn: Gfn, table: Mfn) -> bool {
        let Some(size) = path.size_below() else {
            return false;
        };
        let old = path.slot().read(&self.mem);
        if old.is_empty() {
            self.add_live(path, 1);
            path.slot().write(&self.mem, Entry::table(table, 0));
        } else {
            for (index, part) in (0..SLOTS).zip(old.parts(size)) {
                Slot { table, index }.write(&self.mem, part);
            }
            path.slot()
                .write(&self.mem, Entry::table(table, SLOTS as u64));
        }
        path.push(Slot {
            table,
            index: size.index(gfn),
        });
        old.is_present()
    }

    /// Counts slots of the table a path ends in as in use.
    fn add_live(&mut self, path: &Path, slots: u64) {
        if let Some(parent) = path.above() {
            let mut entry = parent.read(&self.mem);
            entry.set_live(entry.live().saturating_add(slots));
            parent.write(&self.mem, entry);
        }
    }

    /// Counts slots of the table a path ends in as empty; retires tables that thereby become
    /// empty.
    fn drop_live(&mut self, mut path: Path, mut slots: u64, flush: &mut Flush) {
        while let Some(parent) = path.above() {
            let mut entry = parent.read(&self.mem);
            if entry.live() > slots {
                entry.set_live(entry.live() - slots);
                parent.write(&self.mem, entry);
                return;
            }
            parent.write(&self.mem, Entry::EMPTY);
            flush.retire(&self.mem, path.slot().table);
            path.level = path.level.saturating_sub(1);
            slots = 1;
        }
    }

    /// Drops what an entry, already taken out of its table, mapped.
    fn drop_subtree(
        &mut self,
        gfn: Gfn,
        entry: Entry,
        size: PageSize,
        flush: &mut Flush,
        see: &mut impl FnMut(Leaf),
    ) {
        match size.smaller() {
            Some(smaller) if !entry.is_leaf(size) => {
                if entry.live() == 0 {
                    self.one_less_empty();
                }
                self.drop_table(gfn, entry.mfn(), smaller, flush, see);
            }
            _ => {
                flush.merge(&self.mem, Flush::when(entry.is_present()));
                see(leaf(gfn, entry, size));
            }
        }
    }

    /// Empties a table whose slots have `size` and starts at `gfn`; retires it.
    fn drop_table(
        &mut self,
        gfn: Gfn,
        table: Mfn,
        size: PageSize,
        flush: &mut Flush,
        see: &mut impl FnMut(Leaf),
    ) {
        for (index, part) in (0..SLOTS).zip(0..) {
            let slot = Slot { table, index };
            let entry = slot.read(&self.mem);
            if !entry.is_empty() {
                slot.write(&self.mem, Entry::EMPTY);
                let gfn = gfn.saturating_add(part * size.frames());
                self.drop_subtree(gfn, entry, size, flush, see);
            }
        }
        flush.retire(&self.mem, table);
    }

    /// Changes permissions below a slot of `size`; true when a leaf lost any.
    fn protect_subtree(&mut self, slot: Slot, size: PageSize, perms: Perms) -> bool {
        let entry = slot.read(&self.mem);
        match size.smaller() {
            Some(smaller) if !entry.is_leaf(size) && !entry.is_empty() => {
                let table = entry.mfn();
                (0..SLOTS).fold(false, |lost, index| {
                    self.protect_subtree(Slot { table, index }, smaller, perms) | lost
                })
            }
            _ if entry.is_present() => {
                slot.write(&self.mem, entry.with_perms(perms));
                !perms.contains(entry.attr().perms)
            }
            _ => false,
        }
    }
}

impl<M: TableMem> Drop for Ept<M> {
    fn drop(&mut self) {
        self.clear(|_| ()).done(&self.mem);
        self.mem.free(self.root);
    }
}

/// Checks the machine side of a leaf.
fn check_leaf(mfn: Mfn, size: PageSize, attr: Attr) -> Result<(), EptError> {
    if !mfn.raw().is_multiple_of(size.frames()) {
        return Err(EptError::Misaligned);
    }
    if mfn.raw() >> MFN_BITS != 0 {
        return Err(EptError::OutOfRange);
    }
    if attr.is_valid() {
        Ok(())
    } else {
        Err(EptError::BadAttr)
    }
}

/// The leaf an entry of `size` that covers `gfn` stands for.
#[inline]
fn leaf(gfn: Gfn, entry: Entry, size: PageSize) -> Leaf {
    Leaf {
        gfn: size.base(gfn),
        mfn: entry.mfn(),
        size,
        attr: entry.attr(),
    }
}
