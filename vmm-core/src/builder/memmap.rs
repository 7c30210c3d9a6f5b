//! The guest-physical memory of a PVH domain: what lies where.
//!
//! ```text
//! 0           RAM, up to HOLE_START at most
//! 0xfc00_0000 the hole: ACPI tables        (one page)
//! 0xfeff_8000           special pages      (xenstore 0xfeffc, console 0xfefff)
//! 0xfee0_0000           local APIC         (not listed in the map)
//! 4 GiB       the RAM that did not fit below the hole
//! ```
//!
//! The frame numbers are those that Xen's toolstack gives a PVH domain.

use abi::{Gfn, PAGE_SHIFT};
use heapless::Vec;

/// RAM below 4 GiB ends here at the latest.
pub const HOLE_START: u64 = 0xfc00_0000;
/// The page of the ACPI tables, the first in the hole.
pub const ACPI_GFN: Gfn = Gfn::new(HOLE_START >> PAGE_SHIFT);
/// The first of the pages shared with the hypervisor.
pub const SPECIAL_GFN: Gfn = Gfn::new(0xfeff8);
/// How many of them are reserved.
pub const SPECIAL_PAGES: u64 = 8;
/// The xenstore ring.
pub const XENSTORE_GFN: Gfn = Gfn::new(0xfeffc);
/// The console ring.
pub const CONSOLE_GFN: Gfn = Gfn::new(0xfefff);

const FOUR_GIB: u64 = 1 << 32;

/// What a range of the memory map is, numbered as in the start info (and as in an e820 map).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// Memory for any use.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
    /// ACPI tables that have to stay.
    AcpiNvs = 4,
}

/// A range of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// The size in bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
}

/// The memory map of one domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryMap {
    low: u64,
    high: u64,
}

impl MemoryMap {
    /// The most ranges that a map has.
    pub const MAX_RANGES: usize = 4;

    /// The map of a domain with this much RAM.
    #[must_use]
    pub const fn new(memory_pages: u64) -> Self {
        let hole = HOLE_START >> PAGE_SHIFT;
        let low = if memory_pages < hole {
            memory_pages
        } else {
            hole
        };
        Self {
            low,
            high: memory_pages - low,
        }
    }

    /// The end of the RAM below 4 GiB, an address.
    #[must_use]
    pub const fn low_end(&self) -> u64 {
        self.low << PAGE_SHIFT
    }

    /// The RAM to populate: first frames and numbers of pages. The ACPI page and the special
    /// pages come on top of it.
    pub fn ram(&self) -> impl Iterator<Item = (Gfn, u64)> {
        let high = Gfn::new(FOUR_GIB >> PAGE_SHIFT);
        let ranges = [(Gfn::new(0), self.low), (high, self.high)];
        ranges.into_iter().filter(|&(_, pages)| pages > 0)
    }

    /// The map as the guest sees it, by ascending address.
    #[must_use]
    pub fn ranges(&self) -> Vec<Range, { Self::MAX_RANGES }> {
        let range = |gfn: Gfn, pages: u64, kind| Range {
            start: gfn.gpa().raw(),
            size: pages << PAGE_SHIFT,
            kind,
        };
        let fixed = [
            range(ACPI_GFN, 1, Kind::AcpiNvs),
            range(SPECIAL_GFN, SPECIAL_PAGES, Kind::Reserved),
        ];
        let ram = |above_hole: bool| {
            self.ram()
                .filter(move |(gfn, _)| (*gfn > ACPI_GFN) == above_hole)
                .map(|(gfn, pages)| range(gfn, pages, Kind::Ram))
        };
        let mut ranges = Vec::new();
        for range in ram(false).chain(fixed).chain(ram(true)) {
            // There is room for all.
            let _ = ranges.push(range);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_memory_lies_below_the_hole() {
        let map = MemoryMap::new(0x10000);
        assert!(map.ram().eq([(Gfn::new(0), 0x10000)]));
        let ranges = map.ranges();
        assert_eq!(ranges.len(), 3);
        assert_eq!((ranges[0].start, ranges[0].size), (0, 0x1000_0000));
        assert_eq!((ranges[1].start, ranges[1].size), (0xfc00_0000, 0x1000));
        assert_eq!(ranges[1].kind, Kind::AcpiNvs);
        assert_eq!((ranges[2].start, ranges[2].size), (0xfeff_8000, 0x8000));
        assert_eq!(ranges[2].kind, Kind::Reserved);
    }

    #[test]
    fn large_memory_goes_on_above_4_gib() {
        let pages = 5 << 18;
        let map = MemoryMap::new(pages);
        let ram: std::vec::Vec<_> = map.ram().collect();
        assert_eq!(ram[0], (Gfn::new(0), 0xfc000));
        assert_eq!(ram[1], (Gfn::new(0x100000), pages - 0xfc000));
        assert_eq!(map.low_end(), HOLE_START);
        assert_eq!(map.ranges().len(), MemoryMap::MAX_RANGES);
    }

    #[test]
    fn ranges_ascend_without_overlap() {
        for pages in [256, 0xfbfff, 0xfc000, 0xfc001, 1 << 28] {
            let ranges = MemoryMap::new(pages).ranges();
            assert!(
                ranges
                    .windows(2)
                    .all(|pair| pair[0].start + pair[0].size <= pair[1].start)
            );
            let ram = ranges.iter().filter(|range| range.kind == Kind::Ram);
            assert_eq!(
                ram.map(|range| range.size).sum::<u64>(),
                pages << PAGE_SHIFT
            );
        }
    }
}
