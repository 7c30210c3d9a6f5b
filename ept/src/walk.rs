//! Levels, indices and the walk from the root to an entry.

use abi::{Gfn, Mfn};

use crate::entry::{Attr, Entry};
use crate::mem::TableMem;

/// Slots in a table.
pub const SLOTS: usize = 512;
/// Address bits that four levels translate, as frame-number bits.
pub const GFN_BITS: u32 = 36;

/// The sizes of pages, and with them the levels that hold leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PageSize {
    /// 4 KiB, in a page table.
    Size4K,
    /// 2 MiB, in a page directory.
    Size2M,
    /// 1 GiB, in a page-directory-pointer table.
    Size1G,
}

impl PageSize {
    /// log2 of the size in frames.
    #[inline]
    #[must_use]
    pub const fn order(self) -> u8 {
        match self {
            Self::Size4K => 0,
            Self::Size2M => 9,
            Self::Size1G => 18,
        }
    }

    /// The size in frames.
    #[inline]
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self.order()
    }

    /// The next smaller size.
    #[must_use]
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self::Size4K => None,
            Self::Size2M => Some(Self::Size4K),
            Self::Size1G => Some(Self::Size2M),
        }
    }

    /// The slot that covers `gfn` in a table whose slots have this size.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "masked to nine bits")]
    pub const fn index(self, gfn: Gfn) -> usize {
        (gfn.raw() >> self.order()) as usize & (SLOTS - 1)
    }

    /// The first frame of the page of this size that holds `gfn`.
    #[inline]
    #[must_use]
    pub const fn base(self, gfn: Gfn) -> Gfn {
        Gfn::new(gfn.raw() & !(self.frames() - 1))
    }
}

/// The slot that covers `gfn` in the root table.
#[inline]
pub(crate) const fn root_index(gfn: Gfn) -> usize {
    (gfn.raw() >> 27) as usize & (SLOTS - 1)
}

/// A leaf: one page of any size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The first guest frame it maps.
    pub gfn: Gfn,
    /// The machine frame that one is mapped to.
    pub mfn: Mfn,
    /// The size.
    pub size: PageSize,
    /// Everything else.
    pub attr: Attr,
}

impl Leaf {
    /// The machine frame of a guest frame inside the leaf.
    #[inline]
    #[must_use]
    pub const fn mfn_of(&self, gfn: Gfn) -> Mfn {
        Mfn::new(self.mfn.raw() + (gfn.raw() & (self.size.frames() - 1)))
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) table: Mfn,
    pub(crate) index: usize,
}

impl Slot {
    #[inline]
    pub(crate) fn read(self, mem: &impl TableMem) -> Entry {
        Entry(mem.read(self.table, self.index))
    }

    #[inline]
    pub(crate) fn write(self, mem: &impl TableMem, entry: Entry) {
        mem.write(self.table, self.index, entry.0);
    }
}

/// Finds the leaf that covers `gfn`, which has at most [`GFN_BITS`] bits. Reads one entry per
/// level and nothing else: hypercalls walk here for every page they touch.
#[inline(always)]
pub(crate) fn find(mem: &impl TableMem, root: Mfn, gfn: Gfn) -> Option<(Slot, Entry, PageSize)> {
    let top = Entry(mem.read(root, root_index(gfn)));
    let (slot, entry) = below(mem, top, PageSize::Size1G, gfn)?;
    if entry.large() {
        return Some((slot, entry, PageSize::Size1G));
    }
    let (slot, entry) = below(mem, entry, PageSize::Size2M, gfn)?;
    if entry.large() {
        return Some((slot, entry, PageSize::Size2M));
    }
    let (slot, entry) = below(mem, entry, PageSize::Size4K, gfn)?;
    if entry.is_empty() {
        return None;
    }
    Some((slot, entry, PageSize::Size4K))
}

/// The slot of one small page in a page table that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small {
    /// Its frame.
    pub(crate) gfn: Gfn,
    /// The slot that points to the page table.
    pub(crate) above: Slot,
    /// What that one holds.
    pub(crate) table: Entry,
    /// The page's own slot.
    pub(crate) slot: Slot,
    /// What it holds.
    pub(crate) entry: Entry,
}

/// Finds the slot of the 4 KiB page `gfn`, which has at most [`GFN_BITS`] bits; `None` where no
/// page table is.
#[inline(always)]
pub(crate) fn find_small(mem: &impl TableMem, root: Mfn, gfn: Gfn) -> Option<Small> {
    let top = Entry(mem.read(root, root_index(gfn)));
    let (_, entry) = below(mem, top, PageSize::Size1G, gfn)?;
    if entry.large() {
        return None;
    }
    let (above, table) = below(mem, entry, PageSize::Size2M, gfn)?;
    if table.large() {
        return None;
    }
    let (slot, entry) = below(mem, table, PageSize::Size4K, gfn)?;
    Some(Small {
        gfn,
        above,
        table,
        slot,
        entry,
    })
}

/// The slot for `gfn`, and what it holds, in the table of `size` that an entry points to.
#[inline(always)]
fn below(mem: &impl TableMem, entry: Entry, size: PageSize, gfn: Gfn) -> Option<(Slot, Entry)> {
    if entry.is_empty() {
        return None;
    }
    let slot = Slot {
        table: entry.mfn(),
        index: size.index(gfn),
    };
    Some((slot, slot.read(mem)))
}
