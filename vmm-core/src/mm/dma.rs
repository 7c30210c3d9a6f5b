//! Memory of the hypervisor's that a device reads and writes too.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Deref;

use abi::{Hpa, Mfn, PAGE_SIZE};

use super::frame::{Owner, frames};
use super::page::PageRef;

/// A row of zeroed frames, [`Owner::Hypervisor`]'s. Dereferences to its pages.
#[derive(Debug)]
pub struct DmaBlock {
    /// Invariant: one after the other in physical memory; at least one.
    pages: Box<[PageRef]>,
    start: Hpa,
}

impl DmaBlock {
    /// Takes `2^order` frames, aligned to their size, below the physical address `limit`. It may
    /// take long: for start-up.
    #[must_use]
    pub fn alloc(order: u8, limit: Hpa) -> Option<Self> {
        let mut pages = Vec::new();
        pages
            .try_reserve_exact(1usize.checked_shl(order.into())?)
            .ok()?;
        let first = frames().alloc_zeroed_below(order, Owner::Hypervisor, limit.mfn())?;
        let numbers = (first.raw()..).take(1 << order);
        pages.extend(numbers.map(|number| PageRef::adopt(Mfn::new(number))));
        Some(Self {
            pages: pages.into_boxed_slice(),
            start: first.hpa(),
        })
    }

    /// The physical address of its first byte.
    #[must_use]
    pub const fn start(&self) -> Hpa {
        self.start
    }

    /// Its size in bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.pages.len().saturating_mul(PAGE_SIZE)
    }
}

impl Deref for DmaBlock {
    type Target = [PageRef];

    fn deref(&self) -> &[PageRef] {
        &self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::DmaBlock;
    use abi::{Hpa, PAGE_SIZE};

    #[test]
    fn a_block_is_a_row_of_zeroed_pages_below_its_limit() {
        testing::init();
        let limit = Hpa::new(1 << 30);
        let block = DmaBlock::alloc(3, limit).unwrap();
        assert_eq!(block.size(), 8 * PAGE_SIZE);
        assert!(block.start().raw() + 8 * PAGE_SIZE as u64 <= limit.raw());
        assert!(block.start().raw().is_multiple_of(8 * PAGE_SIZE as u64));
        for (page, number) in block.iter().zip(block.start().mfn().raw()..) {
            assert_eq!(page.mfn().raw(), number);
        }
        assert!(DmaBlock::alloc(0, Hpa::new(4096)).is_none());
    }
}
