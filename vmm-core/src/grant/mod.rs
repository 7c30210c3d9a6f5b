//! The grant table of one domain (`public/grant_table.h`).
//!
//! A grant is an entry in pages that the hypervisor owns and the guest writes: it names a frame
//! of the guest's memory and the domain that may use it. Entries have the version 1 layout of
//! eight bytes. The guest decides where in its physical memory the table appears
//! (`XENMAPSPACE_grant_table`), and the table grows as far as it asks, up to a limit.
//!
//! ```text
//! frames[0]          frames[1]        ...  up to the limit
//! | ref 0 .. 511 |   | 512 .. 1023 |
//!   0 console ring, 1 xenstore ring, 2..7 reserved
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Relaxed, Release};

use abi::grant_table::{DEFAULT_MAX_FRAMES, flags, v1};
use abi::{DomId, Errno, Gfn, GrantRef};

use crate::mm::frame::Owner;
use crate::mm::page::PageRef;

/// A domain's grant table.
#[derive(Debug)]
pub struct GrantTable {
    /// Whose table it is.
    domain: DomId,
    frames: Vec<Frame>,
    max_frames: u32,
}

/// One page of entries.
#[derive(Debug)]
struct Frame {
    page: PageRef,
    /// Where the guest put it last; it may be gone from there.
    gfn: Option<Gfn>,
}

impl GrantTable {
    /// A table of one frame that may grow to the usual limit; `None` without memory.
    #[must_use]
    pub fn new(domain: DomId) -> Option<Self> {
        let mut table = Self {
            domain,
            frames: Vec::new(),
            max_frames: DEFAULT_MAX_FRAMES,
        };
        table.grow(1).ok()?;
        Some(table)
    }

    /// Frames the table has.
    #[must_use]
    pub fn frame_count(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Frames the table may have.
    #[must_use]
    pub const fn max_frames(&self) -> u32 {
        self.max_frames
    }

    /// Makes sure that the table has at least `count` frames.
    ///
    /// # Errors
    /// [`Errno::Einval`] beyond the limit, [`Errno::Enomem`].
    pub fn grow(&mut self, count: u32) -> Result<(), Errno> {
        if count > self.max_frames {
            return Err(Errno::Einval);
        }
        while self.frame_count() < count {
            self.frames.try_reserve(1).map_err(|_| Errno::Enomem)?;
            let page = PageRef::alloc(Owner::Shared(self.domain)).ok_or(Errno::Enomem)?;
            self.frames.push(Frame { page, gfn: None });
        }
        Ok(())
    }

    /// The frame with this index, and where the guest put it last. The table grows to have it.
    ///
    /// # Errors
    /// As [`GrantTable::grow`].
    pub fn frame(&mut self, index: u32) -> Result<(PageRef, Option<Gfn>), Errno> {
        self.grow(index.checked_add(1).ok_or(Errno::Einval)?)?;
        let frame = self.frames.get(index as usize).ok_or(Errno::Einval)?;
        Ok((frame.page.clone(), frame.gfn))
    }

    /// Where the guest put a frame last.
    #[must_use]
    pub fn placed_at(&self, index: u32) -> Option<Gfn> {
        self.frames.get(index as usize)?.gfn
    }

    /// Remembers where the guest put a frame.
    pub fn set_placed(&mut self, index: u32, gfn: Gfn) {
        if let Some(frame) = self.frames.get_mut(index as usize) {
            frame.gfn = Some(gfn);
        }
    }

    /// Chooses the layout of the entries (`GNTTABOP_set_version`); answers with the version in
    /// force.
    ///
    /// # Errors
    /// [`Errno::Einval`] for an unknown version, [`Errno::Enosys`] for version 2.
    pub const fn set_version(&mut self, version: u32) -> Result<u32, Errno> {
        match version {
            1 => Ok(1),
            2 => Err(Errno::Enosys),
            _ => Err(Errno::Einval),
        }
    }

    /// The layout of the entries.
    #[must_use]
    pub const fn version(&self) -> u32 {
        1
    }

    /// Fills an entry on the guest's behalf before it starts: `to` may use the frame `gfn`.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a reference the table does not hold or a frame beyond 32 bits.
    pub fn permit(&mut self, gref: GrantRef, to: DomId, gfn: Gfn) -> Result<(), Errno> {
        let frame = u32::try_from(gfn.raw()).map_err(|_| Errno::Einval)?;
        let index = gref.0 / v1::ENTRIES_PER_FRAME;
        let page = &self.frames.get(index as usize).ok_or(Errno::Einval)?.page;
        let entry = (gref.0 % v1::ENTRIES_PER_FRAME) as usize;
        let at = entry.saturating_mul(v1::ENTRY_SIZE);
        page.u32(at.saturating_add(v1::FRAME)).store(frame, Relaxed);
        page.u16(at.saturating_add(v1::DOMID)).store(to.0, Relaxed);
        // The flags make the entry valid and so come last.
        page.u16(at.saturating_add(v1::FLAGS))
            .store(flags::PERMIT_ACCESS, Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::GrantTable;
    use crate::mm::testing;
    use abi::{DomId, Errno, Gfn, GrantRef};
    use core::sync::atomic::Ordering::SeqCst;

    fn table() -> GrantTable {
        testing::init();
        GrantTable::new(DomId(1)).unwrap()
    }

    #[test]
    fn the_table_grows_on_demand_up_to_its_limit() {
        let mut table = table();
        assert_eq!(table.frame_count(), 1);
        let (page, placed) = table.frame(5).unwrap();
        assert_eq!((table.frame_count(), placed), (6, None));
        assert_eq!(table.frame(5).unwrap().0.mfn(), page.mfn());
        assert!(table.frame(63).is_ok());
        assert_eq!(table.frame(64).unwrap_err(), Errno::Einval);
        assert_eq!(table.frame(u32::MAX).unwrap_err(), Errno::Einval);
        assert_eq!(table.frame_count(), 64);
    }

    #[test]
    fn a_frame_remembers_where_it_is() {
        let mut table = table();
        table.set_placed(0, Gfn::new(77));
        assert_eq!(table.placed_at(0), Some(Gfn::new(77)));
        assert_eq!(table.placed_at(1), None);
    }

    #[test]
    fn reserved_entries_are_written_as_the_layout_says() {
        let mut table = table();
        assert_eq!(
            table.permit(GrantRef(1), DomId(0), Gfn::new(0xfeffc)),
            Ok(())
        );
        let (page, _) = table.frame(0).unwrap();
        assert_eq!(page.u64(8).load(SeqCst), 0x000f_effc_0000_0001);
        assert_eq!(
            table.permit(GrantRef(512), DomId(0), Gfn::new(1)),
            Err(Errno::Einval)
        );
        let beyond = table.permit(GrantRef(0), DomId(0), Gfn::new(1 << 32));
        assert_eq!(beyond, Err(Errno::Einval));
    }

    #[test]
    fn only_version_1_is_offered() {
        let mut table = table();
        assert_eq!(table.set_version(1), Ok(1));
        assert_eq!(table.set_version(2), Err(Errno::Enosys));
        assert_eq!(table.set_version(0), Err(Errno::Einval));
        assert_eq!(table.version(), 1);
    }
}
