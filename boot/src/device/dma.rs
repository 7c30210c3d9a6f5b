//! Memory that a device and its driver share.

use core::sync::atomic::Ordering::{Acquire, Release};

use abi::{Hpa, PAGE_SIZE};
use devices::DmaMemory;
use vmm_core::mm::dma::DmaBlock;
use vmm_core::mm::page::PageRef;

/// The end of what a device with 32-bit addresses reaches.
pub(super) const LIMIT_32: Hpa = Hpa::new(1 << 32);

/// Frames of the hypervisor's, one after the other.
#[derive(Debug)]
pub(super) struct Dma(DmaBlock);

impl Dma {
    /// Takes `2^order` frames below an address.
    pub(super) fn alloc(order: u8, limit: Hpa) -> Option<Self> {
        DmaBlock::alloc(order, limit).map(Self)
    }

    /// The page of a byte, and its place there.
    fn place(&self, at: usize) -> Option<(&PageRef, usize)> {
        Some((self.0.get(at / PAGE_SIZE)?, at % PAGE_SIZE))
    }

    /// Parts of a range, each in one page: the page, the place there, and where it is in the range.
    fn parts(
        &self,
        at: usize,
        len: usize,
    ) -> impl Iterator<Item = (&PageRef, usize, core::ops::Range<usize>)> {
        let mut done = 0;
        core::iter::from_fn(move || {
            let (page, offset) = self.place(at.checked_add(done)?)?;
            let part = (len - done).min(PAGE_SIZE - offset);
            let range = done..done + part;
            done += part;
            (part != 0).then_some((page, offset, range))
        })
    }
}

impl DmaMemory for Dma {
    fn address(&self) -> u64 {
        self.0.start().raw()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn read32(&self, at: usize) -> u32 {
        self.place(at)
            .map_or(0, |(page, at)| page.u32(at & !3).load(Acquire))
    }

    fn read64(&self, at: usize) -> u64 {
        self.place(at)
            .map_or(0, |(page, at)| page.u64(at & !7).load(Acquire))
    }

    fn write32(&self, at: usize, value: u32) {
        if let Some((page, at)) = self.place(at) {
            page.u32(at & !3).store(value, Release);
        }
    }

    fn write64(&self, at: usize, value: u64) {
        if let Some((page, at)) = self.place(at) {
            page.u64(at & !7).store(value, Release);
        }
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        for (page, offset, range) in self.parts(at, out.len()) {
            if let Some(out) = out.get_mut(range) {
                page.read(offset, out);
            }
        }
    }

    fn write(&self, at: usize, data: &[u8]) {
        for (page, offset, range) in self.parts(at, data.len()) {
            if let Some(data) = data.get(range) {
                page.write(offset, data);
            }
        }
    }
}
