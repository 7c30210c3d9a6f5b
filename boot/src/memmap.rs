//! The machine's memory map: which physical pages are free to use.
//!
//! Firmware maps may overlap, be unsorted and have odd borders. [`MemoryMap::from_firmware`]
//! makes one list of whole pages out of them, sorted and disjoint, in which anything reserved
//! wins over usable; [`MemoryMap::remove`] takes out what boot itself occupies.

use abi::{Hpa, PAGE_SIZE};
use heapless::Vec;
use vmm_core::boot_info::MemoryRegion;

/// The most regions a map keeps; memory beyond them stays unused.
pub const MAX_REGIONS: usize = 128;

const PAGE: u64 = PAGE_SIZE as u64;

/// One entry of the firmware's map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirmwareEntry {
    /// The first byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What lies there.
    pub kind: Kind,
}

/// What a firmware entry says about its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Free to use.
    Usable,
    /// RAM that holds firmware tables.
    Tables,
    /// Anything else.
    Reserved,
}

impl Kind {
    /// The kind behind an E820, multiboot2 or PVH type number, which agree.
    #[must_use]
    pub const fn from_e820(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            3 | 4 => Self::Tables,
            _ => Self::Reserved,
        }
    }
}

/// Sorted, disjoint regions of whole pages.
#[derive(Clone, Default, Debug)]
pub struct MemoryMap {
    regions: Vec<MemoryRegion, MAX_REGIONS>,
    /// Regions that found no room in the list.
    dropped: usize,
}

impl MemoryMap {
    /// The usable memory of a firmware map.
    pub fn from_firmware(entries: impl Iterator<Item = FirmwareEntry> + Clone) -> Self {
        let mut map = Self::default();
        for entry in entries.clone().filter(|entry| entry.kind == Kind::Usable) {
            let end = entry.start.saturating_add(entry.length);
            map.add(entry.start.next_multiple_of_page(), end / PAGE * PAGE);
        }
        for entry in entries.filter(|entry| entry.kind != Kind::Usable) {
            map.remove(entry.start, entry.start.saturating_add(entry.length));
        }
        map
    }

    /// Everything that is RAM in a firmware map, whatever it holds.
    pub fn all_ram(entries: impl Iterator<Item = FirmwareEntry>) -> Self {
        let mut map = Self::default();
        for entry in entries.filter(|entry| entry.kind != Kind::Reserved) {
            let end = entry.start.saturating_add(entry.length);
            map.add(entry.start / PAGE * PAGE, end.next_multiple_of_page());
        }
        map
    }

    /// The regions, sorted.
    #[must_use]
    pub fn regions(&self) -> &[MemoryRegion] {
        &self.regions
    }

    /// How many regions found no room.
    #[must_use]
    pub const fn dropped(&self) -> usize {
        self.dropped
    }

    /// Bytes in all regions together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.regions.iter().map(MemoryRegion::len).sum()
    }

    /// The end of the last region.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.regions.last().map_or(0, |region| region.end.raw())
    }

    /// Adds a run of whole pages, joining it with what it touches.
    pub fn add(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end);
        if start >= end {
            return;
        }
        self.regions.retain(|region| {
            let touches = region.start.raw() <= end && region.end.raw() >= start;
            if touches {
                start = start.min(region.start.raw());
                end = end.max(region.end.raw());
            }
            !touches
        });
        self.insert(start, end);
    }

    /// Takes every page out that has a byte in `start..end`.
    pub fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (start, end) = (start / PAGE * PAGE, end.next_multiple_of_page());
        let old = core::mem::take(&mut self.regions);
        for region in old {
            let (low, high) = (region.start.raw(), region.end.raw());
            self.insert(low, high.min(start));
            self.insert(low.max(end), high);
        }
    }

    /// Cuts off everything from `limit` on.
    pub fn truncate(&mut self, limit: u64) {
        self.remove(limit, u64::MAX);
    }

    /// Takes `size` bytes (whole pages) from the highest place that ends at or below `limit`,
    /// starts at or above `floor`, and is aligned to `align` (a power of two).
    pub fn take_high(&mut self, size: u64, align: u64, floor: u64, limit: u64) -> Option<u64> {
        let start = self.regions.iter().rev().find_map(|region| {
            let end = region.end.raw().min(limit);
            let start = end.checked_sub(size)? & !(align - 1);
            (start >= region.start.raw().max(floor)).then_some(start)
        })?;
        self.remove(start, start + size);
        Some(start)
    }

    /// Puts a region that overlaps no other in its place; an empty one is nothing.
    fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let region = MemoryRegion {
            start: Hpa::new(start),
            end: Hpa::new(end),
        };
        let place = self
            .regions
            .partition_point(|other| other.start < region.start);
        if self.regions.insert(place, region).is_err() {
            self.dropped += 1;
        }
    }
}

trait Pages {
    /// Rounds up to a page border; the last, broken page of the address space is cut off.
    fn next_multiple_of_page(self) -> Self;
}

impl Pages for u64 {
    fn next_multiple_of_page(self) -> Self {
        self.checked_next_multiple_of(PAGE)
            .unwrap_or(Self::MAX / PAGE * PAGE)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec as StdVec;

    fn entry(start: u64, end: u64, kind: Kind) -> FirmwareEntry {
        FirmwareEntry {
            start,
            length: end - start,
            kind,
        }
    }

    fn list(map: &MemoryMap) -> StdVec<(u64, u64)> {
        map.regions()
            .iter()
            .map(|r| (r.start.raw(), r.end.raw()))
            .collect()
    }

    #[test]
    fn a_pc_map_loses_borders_and_reserved_pages() {
        let entries = [
            entry(0x10_0000, 0x3ff_0000, Kind::Usable),
            entry(0, 0x9_fc00, Kind::Usable),
            entry(0x20_0800, 0x20_0900, Kind::Reserved),
            entry(0x3ff_0000, 0x400_0000, Kind::Tables),
        ];
        let map = MemoryMap::from_firmware(entries.iter().copied());
        assert_eq!(
            list(&map),
            [
                (0, 0x9_f000),
                (0x10_0000, 0x20_0000),
                (0x20_1000, 0x3ff_0000)
            ]
        );
        let ram = MemoryMap::all_ram(entries.iter().copied());
        assert_eq!(list(&ram), [(0, 0xa_0000), (0x10_0000, 0x400_0000)]);
    }

    #[test]
    fn the_highest_fitting_place_is_taken() {
        let mut map = MemoryMap::default();
        map.add(0x1000, 0x9000);
        map.add(0x20_0000, 0x20_3000);
        map.add(0x1_0000_0000, 0x2_0000_0000);
        assert_eq!(
            map.take_high(0x2000, 0x1000, 0, 0x1_0000_0000),
            Some(0x20_1000)
        );
        assert_eq!(
            map.take_high(0x2000, 0x1000, 0x10_0000, 0x1_0000_0000),
            None
        );
        assert_eq!(
            map.take_high(0x2000, 0x4000, 0, 0x1_0000_0000),
            Some(0x4000)
        );
        assert_eq!(map.take_high(0x1000, 0x1000, 0, 0x800), None);
    }

    #[test]
    fn the_end_of_the_address_space_does_not_wrap() {
        let entries = [FirmwareEntry {
            start: u64::MAX - 10,
            length: u64::MAX,
            kind: Kind::Usable,
        }];
        assert!(
            MemoryMap::from_firmware(entries.iter().copied())
                .regions()
                .is_empty()
        );
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Usable), Just(Kind::Tables), Just(Kind::Reserved)]
    }

    proptest! {
        /// Against a model that decides byte by byte at quarter-page steps.
        #[test]
        fn agrees_with_a_model(entries in prop::collection::vec((0_u64..200, 1_u64..60, kinds()), 0..20)) {
            let entries: StdVec<_> = entries
                .into_iter()
                .map(|(start, length, kind)| FirmwareEntry {
                    start: start * 1024,
                    length: length * 1024,
                    kind,
                })
                .collect();
            let map = MemoryMap::from_firmware(entries.iter().copied());
            let mut model = vec![false; 100];
            for (page, usable) in model.iter_mut().enumerate() {
                let (low, high) = (page as u64 * PAGE, (page as u64 + 1) * PAGE);
                let inside = |entry: &FirmwareEntry| {
                    entry.start <= low && entry.start + entry.length >= high
                };
                let touches = |entry: &FirmwareEntry| {
                    entry.start < high && entry.start + entry.length > low
                };
                *usable = entries.iter().any(|e| e.kind == Kind::Usable && inside(e))
                    && !entries.iter().any(|e| e.kind != Kind::Usable && touches(e));
            }
            for (page, usable) in model.iter().enumerate() {
                let at = page as u64 * PAGE;
                let found = map.regions().iter().any(|r| r.start.raw() <= at && at < r.end.raw());
                prop_assert_eq!(found, *usable, "page {:#x} of {:x?}", at, list(&map));
            }
            prop_assert!(map.regions().is_sorted_by(|a, b| a.end < b.start || a.end == b.start));
        }
    }
}
