//! What a change of the p2m leaves to do: invalidate, then let go of pages and tables.

use alloc::vec::Vec;
use core::mem;

use abi::{Errno, Mfn};
use invariant::OrBroken;
use lists::TryPush as _;

use super::tables::Tables;
use crate::mm::frame::frames;

/// Blocks a token keeps without memory of its own.
const INLINE: usize = 4;

/// A block of `2^order` frames with one hold on each.
pub(super) type Block = (Mfn, u8);

/// The duty that comes with a change of a p2m.
///
/// When [`Flush::is_needed`], no pCPU may go on in the guest with an old translation: invalidate
/// (INVEPT) on all that ran the domain, *without* the p2m's lock, then call [`Flush::done`]. Only
/// that gives back the pages and table frames taken out of use, so none is seen by a new owner
/// while a pCPU can still reach it.
#[must_use = "pages wait for this to be done, and pCPUs may still use the old translation"]
#[derive(Debug)]
pub struct Flush {
    ept: ept::Flush,
    tables: Tables,
    few: heapless::Vec<Block, INLINE>,
    more: Vec<Block>,
}

impl Flush {
    /// Nothing to do yet.
    pub(super) const fn none(tables: Tables) -> Self {
        Self {
            ept: ept::Flush::none(),
            tables,
            few: heapless::Vec::new(),
            more: Vec::new(),
        }
    }

    /// A duty of the page tables alone.
    pub(super) const fn of(ept: ept::Flush, tables: Tables) -> Self {
        Self {
            ept,
            tables,
            few: heapless::Vec::new(),
            more: Vec::new(),
        }
    }

    /// Takes on a duty of the same domain's page tables.
    pub(super) fn add(&mut self, ept: ept::Flush) {
        self.ept.merge(&self.tables, ept);
    }

    /// Takes on a block that went out of use. There is room for it by [`Flush::make_room`].
    pub(super) fn keep(&mut self, block: Block) {
        if let Err(block) = self.few.push(block) {
            let room = self.more.try_push(block);
            room.or_broken("room was made for a block that goes");
        }
    }

    /// True when a pCPU may still use what was changed.
    #[must_use]
    pub const fn is_needed(&self) -> bool {
        self.ept.is_needed()
    }

    /// Makes sure that the few pages of the next change can be kept.
    ///
    /// # Errors
    /// [`Errno::Enomem`].
    pub fn make_room(&mut self) -> Result<(), Errno> {
        if self.few.len() < INLINE {
            return Ok(());
        }
        self.more.try_reserve(INLINE).map_err(|_| Errno::Enomem)
    }

    /// Takes on the duty of a later change of the same p2m, so that one invalidation serves both.
    ///
    /// # Errors
    /// Gives `other` back when there is no memory to remember its pages: finish one of the two
    /// before going on.
    #[expect(clippy::result_large_err, reason = "the error gives the duty back")]
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        let new = other.few.len().saturating_add(other.more.len());
        let all = self.few.len().saturating_add(new);
        if all > INLINE && self.more.try_reserve(new).is_err() {
            return Err(other);
        }
        self.add(mem::replace(&mut other.ept, ept::Flush::none()));
        for &block in other.few.iter().chain(&other.more) {
            self.keep(block);
        }
        other.few.clear();
        other.more.clear();
        Ok(())
    }

    /// Says that every pCPU has invalidated, or that none needs to; lets pages and tables go.
    #[inline]
    pub fn done(mut self) {
        if !self.ept.is_none() || !self.few.is_empty() || !self.more.is_empty() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        mem::replace(&mut self.ept, ept::Flush::none()).done(&self.tables);
        for &(mfn, order) in self.few.iter().chain(&self.more) {
            frames().free(mfn, order);
        }
        self.few.clear();
        self.more.clear();
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        // In release builds a lost token leaks its pages, which is safe.
        debug_assert!(
            self.few.is_empty() && self.more.is_empty(),
            "a flush left undone"
        );
    }
}
