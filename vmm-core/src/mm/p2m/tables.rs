//! Extended page tables in the direct map.
#![expect(unsafe_code, reason = "reads and writes page-table frames")]

use core::sync::atomic::Ordering;

use abi::{DomId, Mfn};
use ept::TableMem;

use crate::mm::directmap::{self, Window};
use crate::mm::frame::{Owner, frames};

/// The tables of one domain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    pub(super) domain: DomId,
    /// Frames that may be kept for the domain.
    pub(super) limit: u32,
}

impl TableMem for Tables {
    fn alloc(&self) -> Option<Mfn> {
        if frames().owned_by(self.domain).tables >= self.limit.into() {
            return None;
        }
        frames().alloc_zeroed(0, Owner::Tables(self.domain))
    }

    fn free(&self, table: Mfn) {
        frames().free_zeroed(table);
    }

    #[inline]
    fn read(&self, table: Mfn, index: usize) -> u64 {
        window(table)
            .word64(index.saturating_mul(size_of::<u64>()))
            .load(Ordering::Relaxed)
    }

    #[inline]
    fn write(&self, table: Mfn, index: usize, entry: u64) {
        window(table)
            .word64(index.saturating_mul(size_of::<u64>()))
            .store(entry, Ordering::Release);
    }
}

#[inline]
fn window<'a>(table: Mfn) -> Window<'a> {
    // SAFETY: `Ept` passes tables only that came from `alloc` and were not freed since, so the
    // frame is RAM in the direct map that holds page-table entries and nothing else.
    unsafe { Window::new(directmap::ptr(table.hpa())) }
}
