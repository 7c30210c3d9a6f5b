//! The RAM regions a frame table covers, and the map between frame numbers and table indices.
//!
//! Holes between regions take no room in the table: indices count the frames of the regions one
//! after the other, in ascending order.

use abi::Mfn;
use heapless::Vec;

use super::entry::{Index, MAX_FRAMES};

/// Regions kept apart; when a firmware's map has more, the smallest are left unused.
const MAX_REGIONS: usize = 64;

/// A run of RAM frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Region {
    /// The first frame.
    pub(super) start: u64,
    /// The first frame behind it.
    pub(super) end: u64,
    /// The table index of the first frame.
    base: u64,
}

/// All regions, in ascending order, none touching the next.
#[derive(Debug, Default)]
pub(super) struct Regions {
    list: Vec<Region, MAX_REGIONS>,
    /// The largest of them, which most frames are in: looked at first.
    main: Region,
}

impl Regions {
    /// Sorts and joins a memory map. Frame 0 is left out, so that 0 can mean "no frame"; so are
    /// the frames beyond what a table can describe.
    pub(super) fn new(map: &[(Mfn, u64)]) -> Self {
        let mut list: Vec<Region, MAX_REGIONS> = Vec::new();
        for &(start, count) in map {
            let end = start.raw().saturating_add(count);
            let start = start.raw().max(1);
            if start < end {
                keep(
                    &mut list,
                    Region {
                        start,
                        end,
                        base: 0,
                    },
                );
            }
        }
        list.sort_unstable_by_key(|region| region.start);
        let mut joined = Self::default();
        for region in list {
            joined.append(region);
        }
        let largest = joined.iter().max_by_key(|region| region.end - region.start);
        joined.main = largest.copied().unwrap_or_default();
        joined
    }

    /// Adds a region behind all others, joining it to the last when they touch or overlap.
    fn append(&mut self, region: Region) {
        let base = self.frames();
        let room = MAX_FRAMES - base;
        match self.list.last_mut() {
            Some(last) if region.start <= last.end => {
                let end = region.end.max(last.end);
                last.end = end.min(last.end.saturating_add(room));
            }
            _ => {
                let end = region.end.min(region.start.saturating_add(room));
                if end > region.start {
                    // `new` collected at most as many as fit here.
                    let _ = self.list.push(Region {
                        start: region.start,
                        end,
                        base,
                    });
                }
            }
        }
    }

    /// The number of frames in all regions.
    pub(super) fn frames(&self) -> u64 {
        self.list
            .last()
            .map_or(0, |last| last.base + (last.end - last.start))
    }

    /// The regions in ascending order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Region> {
        self.list.iter()
    }

    /// The region that holds all of `count` frames from `mfn`.
    #[inline]
    pub(super) fn holding(&self, mfn: Mfn, count: u64) -> Option<&Region> {
        if self.main.holds(mfn, count) {
            return Some(&self.main);
        }
        self.search(mfn, count)
    }

    #[cold]
    fn search(&self, mfn: Mfn, count: u64) -> Option<&Region> {
        self.list.iter().find(|region| region.holds(mfn, count))
    }

    /// The table index of a frame.
    #[inline]
    pub(super) fn index(&self, mfn: Mfn, count: u64) -> Option<Index> {
        self.holding(mfn, count).map(|region| region.index(mfn))
    }

    /// The frame of a table index.
    pub(super) fn mfn(&self, index: Index) -> Option<Mfn> {
        let index = u64::from(index);
        let region = self.list.iter().rev().find(|region| index >= region.base)?;
        let mfn = region.start.saturating_add(index - region.base);
        (mfn < region.end).then(|| Mfn::new(mfn))
    }
}

impl Region {
    /// True when all of `count` frames from `mfn` lie in this region.
    #[inline]
    const fn holds(&self, mfn: Mfn, count: u64) -> bool {
        mfn.raw() >= self.start && mfn.raw() < self.end && count <= self.end - mfn.raw()
    }

    /// The table index of a frame of this region.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "indices stay below `MAX_FRAMES`"
    )]
    pub(super) fn index(&self, mfn: Mfn) -> Index {
        self.base.saturating_add(mfn.raw() - self.start) as Index
    }
}

/// Puts a region on the list; when that is full the smallest gives way.
fn keep(list: &mut Vec<Region, MAX_REGIONS>, region: Region) {
    let Err(region) = list.push(region) else {
        return;
    };
    if let Some(smallest) = list.iter_mut().min_by_key(|r| r.end - r.start)
        && smallest.end - smallest.start < region.end - region.start
    {
        *smallest = region;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn joins_sorts_and_skips_frame_zero() {
        let regions = Regions::new(&[
            (Mfn::new(100), 50),
            (Mfn::new(0), 10),
            (Mfn::new(10), 5),
            (Mfn::new(120), 40),
        ]);
        let list: std::vec::Vec<_> = regions.iter().map(|r| (r.start, r.end)).collect();
        assert_eq!(list, [(1, 15), (100, 160)]);
        assert_eq!(regions.frames(), 74);
        assert_eq!(regions.index(Mfn::new(100), 1), Some(14));
        assert_eq!(regions.mfn(14), Some(Mfn::new(100)));
        assert_eq!(regions.mfn(73), Some(Mfn::new(159)));
        assert_eq!(regions.mfn(74), None);
        assert_eq!(regions.index(Mfn::new(15), 1), None);
        assert_eq!(regions.index(Mfn::new(159), 2), None);
        assert_eq!(regions.index(Mfn::new(u64::MAX), 1), None);
    }

    #[test]
    fn keeps_the_largest_of_too_many() {
        let map: std::vec::Vec<_> = (0..100)
            .map(|i| (Mfn::new(1000 * (i + 1)), i + 1))
            .collect();
        let regions = Regions::new(&map);
        assert_eq!(regions.iter().count(), MAX_REGIONS);
        assert!(regions.index(Mfn::new(100_000), 100).is_some());
        assert!(regions.index(Mfn::new(1000), 1).is_none());
    }

    #[test]
    fn stops_at_what_a_table_can_describe() {
        let regions = Regions::new(&[(Mfn::new(1), u64::MAX), (Mfn::new(2), 5)]);
        assert_eq!(regions.frames(), MAX_FRAMES);
    }
}
