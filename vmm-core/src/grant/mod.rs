//! Grants: letting another domain use a page (`public/grant_table.h`).
//!
//! A grant is an entry in pages that the hypervisor owns and the guest writes: it names a frame
//! of the guest's memory and the domain that may use it. The guest decides where in its physical
//! memory the table appears (`XENMAPSPACE_grant_table`) and which layout entries have: version 1
//! of eight bytes, or version 2 of sixteen with the status in pages apart.
//!
//! ```text
//!  granter                                        mapper
//!  shared entry --begin--> Active: uses, frame    Maptrack: handle -> granter, ref, gfn
//!  (guest writes) <-end--  (ours, holds frame)    P2m: gfn -> frame, `Foreign`, holds it too
//! ```
//!
//! * `entry` is the lock-free step on shared memory that begins and ends a use.
//! * [`GrantTable`] (one lock) counts the uses of a domain's own entries; `pin` is where an entry
//!   is checked and taken, `version` changes the layout.
//! * [`Maptrack`] (one lock) knows the mappings a domain has of others' pages.
//! * [`ops`] puts them together: map, unmap, copy, and the end of a domain.
//! * [`HeldPage`] is a page that the hypervisor itself has in use, for a copy or for a back end.
//!
//! The frame that an entry stood for when its first use began is the frame of every later use:
//! what the guest writes meanwhile counts for nothing. Each use ends exactly once, by the mapper
//! or by its end; the frame itself outlives both domains as long as it is mapped.
//!
//! Frames of the table, status frames and the counts of uses come into being when they are first
//! needed, so a table grows to its limit in no time. Grants that stand for another domain's
//! (`GTF_transitive`) are refused, as Xen does under `gnttab=no-transitive`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod active;
mod entry;
mod held;
mod maptrack;
pub mod ops;
mod pin;
mod swap;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod version;

use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Relaxed, Release};

use abi::grant_table::{flags, v1, v2};
use abi::memory::GRANT_TABLE_STATUS;
use abi::{DomId, Errno, Gfn, GrantRef};
use system::GrantLimits;

use self::active::ActiveEntries;
use crate::mm::frame::Owner;
use crate::mm::page::PageRef;

pub use self::held::{Granter, HeldPage};
pub use self::maptrack::{Mapping, Maptrack};
pub use self::pin::{Granted, Status, Use};
pub use self::version::{Progress, Version};

/// Grant frames that one status frame serves.
const GRANT_FRAMES_PER_STATUS_FRAME: u32 = v2::STATUSES_PER_FRAME / v2::ENTRIES_PER_FRAME;

/// A domain's grant table.
#[derive(Debug)]
pub struct GrantTable {
    /// Whose table it is.
    domain: DomId,
    version: Version,
    max_version: u32,
    /// Frames the guest has asked for.
    count: u32,
    /// Every frame the table may have.
    frames: Vec<Frame>,
    /// Every status frame a version 2 table may have.
    status: Vec<Frame>,
    active: ActiveEntries,
    /// Entries in use, but for the reserved ones.
    busy: u32,
    /// Frames from this one on have been cleared for a change of version under way.
    cleared_from: Option<u32>,
    /// The domain has ended.
    closed: bool,
}

/// One page of entries, or of statuses.
#[derive(Debug)]
struct Frame {
    page: Option<PageRef>,
    /// Where the guest put it last; it may be gone from there.
    gfn: Option<Gfn>,
}

impl Frame {
    /// So many frames that have no page yet.
    fn list(count: u32) -> Option<Vec<Self>> {
        let mut frames = Vec::new();
        frames.try_reserve_exact(count as usize).ok()?;
        let none = || Self {
            page: None,
            gfn: None,
        };
        frames.resize_with(count as usize, none);
        Some(frames)
    }

    /// The page, made for its domain if there is none yet.
    fn page(&mut self, domain: DomId) -> Result<&PageRef, Errno> {
        if self.page.is_none() {
            self.page = Some(PageRef::alloc(Owner::Shared(domain)).ok_or(Errno::Enomem)?);
        }
        self.page.as_ref().ok_or(Errno::Enomem)
    }
}

impl GrantTable {
    /// A table of `domain`, of one frame, that may grow as `limits` allow; `None` without memory.
    #[must_use]
    pub fn new(domain: DomId, limits: &GrantLimits) -> Option<Self> {
        let status = limits.max_frames.div_ceil(GRANT_FRAMES_PER_STATUS_FRAME);
        Some(Self {
            domain,
            version: Version::V1,
            max_version: limits.max_version,
            count: limits.max_frames.min(1),
            frames: Frame::list(limits.max_frames)?,
            status: Frame::list(status)?,
            active: ActiveEntries::new(),
            busy: 0,
            cleared_from: None,
            closed: false,
        })
    }

    /// Frames the table has.
    #[must_use]
    pub const fn frame_count(&self) -> u32 {
        self.count
    }

    /// Frames the table may have.
    #[must_use]
    pub fn max_frames(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Makes sure that the table has at least `count` frames.
    ///
    /// # Errors
    /// [`Errno::Einval`] beyond the limit.
    pub fn grow(&mut self, count: u32) -> Result<(), Errno> {
        if count > self.max_frames() {
            return Err(Errno::Einval);
        }
        if count > self.count {
            self.count = count;
            self.cleared_from = None;
        }
        Ok(())
    }

    /// The frame that `XENMEM_add_to_physmap` names by `index`, and where the guest put it last.
    /// The table grows to have it. [`GRANT_TABLE_STATUS`] makes it a status frame, in a table of
    /// version 2.
    ///
    /// # Errors
    /// [`Errno::Einval`] beyond the limit, [`Errno::Enomem`].
    pub fn frame(&mut self, index: u64) -> Result<(PageRef, Option<Gfn>), Errno> {
        let needed = match self.status_index(index) {
            Some(status) if status < self.count.div_ceil(GRANT_FRAMES_PER_STATUS_FRAME) => Some(0),
            Some(status) => status
                .checked_add(1)
                .and_then(|count| count.checked_mul(GRANT_FRAMES_PER_STATUS_FRAME)),
            None => u32::try_from(index).ok().and_then(|i| i.checked_add(1)),
        };
        self.grow(needed.ok_or(Errno::Einval)?)?;
        let domain = self.domain;
        let frame = self.named(index).ok_or(Errno::Einval)?;
        Ok((frame.page(domain)?.clone(), frame.gfn))
    }

    /// Remembers where the guest put the frame that [`GrantTable::frame`] found.
    pub fn set_placed(&mut self, index: u64, gfn: Gfn) {
        if let Some(frame) = self.named(index) {
            frame.gfn = Some(gfn);
        }
    }

    /// Where the guest put a frame of entries last.
    #[must_use]
    pub fn placed_at(&self, index: u32) -> Option<Gfn> {
        self.frames.get(index as usize)?.gfn
    }

    fn status_index(&self, index: u64) -> Option<u32> {
        let is_status = self.version == Version::V2 && index & GRANT_TABLE_STATUS != 0;
        is_status.then(|| u32::try_from(index & !GRANT_TABLE_STATUS).ok())?
    }

    fn named(&mut self, index: u64) -> Option<&mut Frame> {
        match self.status_index(index) {
            Some(status) => self.status.get_mut(status as usize),
            None => self.frames.get_mut(usize::try_from(index).ok()?),
        }
    }

    /// Fills an entry on the guest's behalf before it starts: `to` may use the frame `gfn`.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a reference the table does not hold or a frame beyond 32 bits,
    /// [`Errno::Enomem`].
    pub fn permit(&mut self, gref: GrantRef, to: DomId, gfn: Gfn) -> Result<(), Errno> {
        let frame = u32::try_from(gfn.raw()).map_err(|_| Errno::Einval)?;
        let index = gref.0 / v1::ENTRIES_PER_FRAME;
        if index >= self.count {
            return Err(Errno::Einval);
        }
        let frames = self.frames.get_mut(index as usize).ok_or(Errno::Einval)?;
        let page = frames.page(self.domain)?;
        let entry = (gref.0 % v1::ENTRIES_PER_FRAME) as usize;
        let at = entry.saturating_mul(v1::ENTRY_SIZE);
        page.u32(at.saturating_add(v1::FRAME)).store(frame, Relaxed);
        page.u16(at.saturating_add(v1::DOMID)).store(to.0, Relaxed);
        // The flags make the entry valid and so come last.
        page.u16(at.saturating_add(v1::FLAGS))
            .store(flags::PERMIT_ACCESS, Release);
        Ok(())
    }

    /// Ends the table with its domain: nothing can be used any more, and uses that go on
    /// elsewhere need not be ended here.
    pub fn close(&mut self) {
        self.closed = true;
        self.count = 0;
        self.busy = 0;
        self.active = ActiveEntries::new();
        self.frames = Vec::new();
        self.status = Vec::new();
    }
}

#[cfg(test)]
mod tests;
