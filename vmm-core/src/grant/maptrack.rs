//! The mappings of other domains' pages that one domain has, by handle.
//!
//! A handle is an index; what the guest passes is looked up and nothing more. Free handles are
//! chained through their own places, and the table grows a frame's worth at a time up to its
//! limit.

use alloc::vec::Vec;

use abi::{DomId, Gfn, GrantRef, PAGE_SIZE};
use lists::TryPush as _;

/// Handles in one frame's worth of the table.
const PER_FRAME: usize = PAGE_SIZE / size_of::<Slot>();
const _: () = assert!(PER_FRAME == 256);

/// One mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Where it is in the mapper's physical memory.
    pub gfn: Gfn,
    /// The grant.
    pub gref: GrantRef,
    /// Who granted it.
    pub granter: DomId,
    /// Whether it may be written through.
    pub write: bool,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    /// In no use; the next such one, or none.
    Free {
        next: u32,
    },
    Mapped(Mapping),
}

/// No handle.
const NONE: u32 = u32::MAX;

/// A domain's mappings.
#[derive(Debug)]
pub struct Maptrack {
    frames: Vec<Vec<Slot>>,
    max_frames: u32,
    free: u32,
    used: u32,
}

impl Maptrack {
    /// An empty table that may grow to `max_frames` frames.
    #[must_use]
    pub const fn new(max_frames: u32) -> Self {
        Self {
            frames: Vec::new(),
            max_frames,
            free: NONE,
            used: 0,
        }
    }

    /// The number of mappings.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.used
    }

    /// True when there is no mapping.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Makes sure that a mapping can be added; false beyond the limit or without memory.
    pub fn has_room(&mut self) -> bool {
        self.free != NONE || self.grow().is_some()
    }

    fn grow(&mut self) -> Option<()> {
        let frames = u32::try_from(self.frames.len()).ok()?;
        if frames >= self.max_frames {
            return None;
        }
        let count = u32::try_from(PER_FRAME).ok()?;
        let first = frames.checked_mul(count)?;
        let mut fresh = Vec::new();
        let mut handles = first..first.checked_add(count)?;
        lists::grow_to(&mut fresh, PER_FRAME, || Slot::Free {
            next: handles.next().unwrap_or(first).wrapping_add(1),
        })
        .ok()?;
        if let Some(last) = fresh.last_mut() {
            *last = Slot::Free { next: self.free };
        }
        self.frames.try_push(fresh).ok()?;
        self.free = first;
        Some(())
    }

    /// Adds a mapping and returns its handle; `None` without room.
    pub fn add(&mut self, mapping: Mapping) -> Option<u32> {
        let handle = self.free;
        let slot = self.slot(handle)?;
        let Slot::Free { next } = *slot else {
            return None;
        };
        *slot = Slot::Mapped(mapping);
        self.free = next;
        self.used = self.used.saturating_add(1);
        Some(handle)
    }

    /// The mapping behind a handle.
    #[must_use]
    pub fn get(&mut self, handle: u32) -> Option<Mapping> {
        match *self.slot(handle)? {
            Slot::Mapped(mapping) => Some(mapping),
            Slot::Free { .. } => None,
        }
    }

    /// Forgets a mapping.
    pub fn remove(&mut self, handle: u32) {
        let free = self.free;
        if let Some(slot @ Slot::Mapped(_)) = self.slot(handle) {
            *slot = Slot::Free { next: free };
            self.free = handle;
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Takes the last frame's worth of mappings out, for a domain that has ended; `None` when
    /// there is none left.
    pub fn take_frame(&mut self) -> Option<impl Iterator<Item = Mapping>> {
        self.max_frames = 0;
        self.free = NONE;
        self.used = 0;
        let frame = self.frames.pop()?;
        Some(frame.into_iter().filter_map(|slot| match slot {
            Slot::Mapped(mapping) => Some(mapping),
            Slot::Free { .. } => None,
        }))
    }

    fn slot(&mut self, handle: u32) -> Option<&mut Slot> {
        let index = handle as usize;
        let frame = self.frames.get_mut(index / PER_FRAME)?;
        frame.get_mut(index % PER_FRAME)
    }
}

#[cfg(test)]
mod tests {
    use super::{Mapping, Maptrack, PER_FRAME};
    use abi::{DomId, Gfn, GrantRef};

    fn mapping(number: u32) -> Mapping {
        Mapping {
            gfn: Gfn::new(u64::from(number)),
            gref: GrantRef(number),
            granter: DomId(2),
            write: number.is_multiple_of(2),
        }
    }

    fn add(track: &mut Maptrack, number: u32) -> Option<u32> {
        if track.has_room() {
            track.add(mapping(number))
        } else {
            None
        }
    }

    #[test]
    fn handles_are_given_up_to_the_limit_and_again_when_free() {
        let mut track = Maptrack::new(2);
        let limit = 2 * u32::try_from(PER_FRAME).unwrap();
        for number in 0..limit {
            assert_eq!(add(&mut track, number), Some(number));
        }
        assert_eq!(add(&mut track, 0), None);
        assert_eq!(track.len(), limit);
        track.remove(300);
        track.remove(7);
        track.remove(7);
        assert_eq!(track.get(7), None);
        assert_eq!(add(&mut track, 1000), Some(7));
        assert_eq!(add(&mut track, 1001), Some(300));
        assert_eq!(add(&mut track, 1002), None);
        assert_eq!(track.get(300), Some(mapping(1001)));
    }

    #[test]
    fn what_is_no_handle_finds_nothing() {
        let mut track = Maptrack::new(0);
        assert!(!track.has_room());
        assert_eq!(track.add(mapping(0)), None);
        let mut track = Maptrack::new(1);
        assert_eq!(add(&mut track, 5), Some(0));
        for handle in [1, 255, 256, u32::MAX] {
            assert_eq!(track.get(handle), None);
            track.remove(handle);
        }
        assert_eq!(track.len(), 1);
    }

    #[test]
    fn an_ended_domain_gives_up_all_it_has() {
        let mut track = Maptrack::new(3);
        for number in 0..600 {
            assert!(add(&mut track, number).is_some());
        }
        track.remove(599);
        let mut left = 0;
        while let Some(frame) = track.take_frame() {
            left += frame.count();
        }
        assert_eq!(left, 599);
        assert!(!track.has_room());
        assert!(track.is_empty());
    }
}
