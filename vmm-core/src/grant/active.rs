//! Our side of the entries in use: who uses each, how often, and the frame it stood for when that
//! began. What the guest writes into an entry afterwards changes none of it.

use alloc::vec::Vec;

use abi::{DomId, GrantRef};

use crate::mm::page::PageRef;

/// Entries in one allocation.
const CHUNK: usize = 64;

/// The uses of one entry.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// The frame, held as long as there is a use.
    pub(super) page: Option<PageRef>,
    /// Uses that only read.
    pub(super) readers: u32,
    /// Uses that also write.
    pub(super) writers: u32,
    /// Whose uses they are.
    pub(super) grantee: DomId,
    /// The first byte granted.
    pub(super) start: u16,
    /// How many bytes are granted.
    pub(super) length: u16,
    /// Whether the entry grants a part of the page.
    pub(super) sub_page: bool,
}

impl Active {
    /// True when nobody uses the entry.
    pub(super) const fn is_idle(&self) -> bool {
        self.readers == 0 && self.writers == 0
    }

    /// Counts one more use; `None` when there are too many.
    pub(super) fn add(&mut self, write: bool) -> Option<()> {
        let count = self.count(write);
        *count = count.checked_add(1)?;
        Some(())
    }

    /// Counts one use less; lets the frame go after the last one. False if there was none.
    pub(super) fn drop_one(&mut self, write: bool) -> bool {
        let count = self.count(write);
        let Some(less) = count.checked_sub(1) else {
            return false;
        };
        *count = less;
        if self.is_idle() {
            self.page = None;
        }
        true
    }

    const fn count(&mut self, write: bool) -> &mut u32 {
        if write {
            &mut self.writers
        } else {
            &mut self.readers
        }
    }
}

/// One chunk of entries.
type Chunk = Vec<Active>;

/// The uses of a table's entries. Memory for them comes with the first use.
#[derive(Debug, Default)]
pub(super) struct ActiveEntries {
    chunks: Vec<Option<Chunk>>,
}

impl ActiveEntries {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// The uses of an entry; `None` when it never had any.
    pub(super) fn get(&mut self, gref: GrantRef) -> Option<&mut Active> {
        let index = gref.0 as usize;
        let chunk = self.chunks.get_mut(index / CHUNK)?.as_mut()?;
        chunk.get_mut(index % CHUNK)
    }

    /// The same, with memory for it; `None` when there is no memory. The caller has checked that
    /// the table has the entry.
    pub(super) fn get_or_make(&mut self, gref: GrantRef) -> Option<&mut Active> {
        let index = gref.0 as usize;
        let number = index / CHUNK;
        if number >= self.chunks.len() {
            lists::grow_to(&mut self.chunks, number.checked_add(1)?, || None).ok()?;
        }
        let chunk = self.chunks.get_mut(number)?;
        if chunk.is_none() {
            let mut fresh = Vec::new();
            lists::grow_to(&mut fresh, CHUNK, Active::default).ok()?;
            *chunk = Some(fresh);
        }
        chunk.as_mut()?.get_mut(index % CHUNK)
    }
}
