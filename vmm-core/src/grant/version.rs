//! The layout of the entries, and changing it (`GNTTABOP_set_version`).

use core::sync::atomic::Ordering::Relaxed;

use abi::grant_table::{RESERVED_ENTRIES, flags, v1, v2};
use abi::{Errno, Gfn, GrantRef};
use heapless::Vec;

use super::GrantTable;
use crate::mm::page::PageRef;

/// Frames cleared before other work has a turn.
const BATCH: u32 = 16;

/// A layout of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Version {
    /// Eight bytes, the status in the flags.
    V1 = 1,
    /// Sixteen bytes, the status apart.
    V2 = 2,
}

impl Version {
    pub(super) const fn entries_per_frame(self) -> u32 {
        match self {
            Self::V1 => v1::ENTRIES_PER_FRAME,
            Self::V2 => v2::ENTRIES_PER_FRAME,
        }
    }

    /// Where an entry lies: the number of its frame, and the offset in it.
    pub(super) const fn place(self, gref: GrantRef) -> (usize, usize) {
        let (frame, entry) = match self {
            Self::V1 => (
                gref.0 / v1::ENTRIES_PER_FRAME,
                gref.0 % v1::ENTRIES_PER_FRAME,
            ),
            Self::V2 => (
                gref.0 / v2::ENTRIES_PER_FRAME,
                gref.0 % v2::ENTRIES_PER_FRAME,
            ),
        };
        let offset = (entry as usize).saturating_mul(self.entry_size());
        (frame as usize, offset)
    }

    pub(super) const fn entry_size(self) -> usize {
        match self {
            Self::V1 => v1::ENTRY_SIZE,
            Self::V2 => v2::ENTRY_SIZE,
        }
    }
}

/// How far a change of version got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It is through.
    Done,
    /// It is to be asked for again, to go on.
    Again,
}

/// A reserved entry on its way from one layout to the other.
#[derive(Clone, Copy, Default)]
struct Kept {
    flags: u16,
    domid: u16,
    frame: u32,
}

const STATUS_FLAGS: u16 = flags::READING | flags::WRITING;

impl GrantTable {
    /// The layout of the entries.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version as u32
    }

    /// Chooses the layout of the entries. All entries but the reserved ones are cleared, and none
    /// of those may be in use. Status frames that thereby fall away are then to be taken out by
    /// [`GrantTable::take_status_frame`].
    ///
    /// # Errors
    /// [`Errno::Einval`] for an unknown version, [`Errno::Enosys`] for one the domain may not
    /// use, [`Errno::Ebusy`] while entries are in use, [`Errno::Eagain`] while parts of reserved
    /// pages are copied, [`Errno::Erange`] for reserved entries version 1 has no way to say,
    /// [`Errno::Enomem`].
    pub fn set_version(&mut self, version: u32) -> Result<Progress, Errno> {
        let to = match version {
            1 => Version::V1,
            2 if self.max_version >= 2 => Version::V2,
            2 => return Err(Errno::Enosys),
            _ => return Err(Errno::Einval),
        };
        if self.version == to {
            self.cleared_from = None;
            return Ok(Progress::Done);
        }
        if self.busy != 0 {
            return Err(Errno::Ebusy);
        }
        let kept = match to {
            Version::V1 => self.keep_from_v2()?,
            Version::V2 => self.keep_from_v1()?,
        };
        if self.clear_some() == Progress::Again {
            return Ok(Progress::Again);
        }
        self.cleared_from = None;
        self.version = to;
        self.put_kept(&kept);
        Ok(Progress::Done)
    }

    /// Clears frames, from the last to the second; the first one is cleared when its reserved
    /// entries are put back. A frame that is cleared before the version changes only loses what
    /// the guest has asked to lose.
    fn clear_some(&mut self) -> Progress {
        let from = self.cleared_from.unwrap_or(self.count);
        let to = from.saturating_sub(BATCH).max(1);
        for index in to..from {
            self.clear(index);
        }
        self.cleared_from = Some(to.min(from));
        if to == 1 {
            Progress::Done
        } else {
            Progress::Again
        }
    }

    fn clear(&self, index: u32) {
        let frame = self.frames.get(index as usize);
        if let Some(page) = frame.and_then(|frame| frame.page.as_ref()) {
            page.clear();
        }
    }

    fn reserved() -> impl Iterator<Item = GrantRef> {
        (0..RESERVED_ENTRIES).map(GrantRef)
    }

    fn keep_from_v1(&mut self) -> Result<Vec<Kept, { RESERVED_ENTRIES as usize }>, Errno> {
        // Their status needs a place.
        let first = self.status.first_mut().ok_or(Errno::Enomem)?;
        first.page(self.domain)?;
        // Some may be left from an earlier version 2.
        for page in self.status.iter().filter_map(|frame| frame.page.as_ref()) {
            page.clear();
        }
        Ok(Self::reserved()
            .map(|gref| {
                let Some((page, at)) = self.place_of_entry(gref) else {
                    return Kept::default();
                };
                Kept {
                    flags: page.u16(at.saturating_add(v1::FLAGS)).load(Relaxed),
                    domid: page.u16(at.saturating_add(v1::DOMID)).load(Relaxed),
                    frame: page.u32(at.saturating_add(v1::FRAME)).load(Relaxed),
                }
            })
            .collect())
    }

    fn keep_from_v2(&mut self) -> Result<Vec<Kept, { RESERVED_ENTRIES as usize }>, Errno> {
        for gref in Self::reserved() {
            let active = self.active.get(gref);
            if active.is_some_and(|active| !active.is_idle() && active.sub_page) {
                return Err(Errno::Eagain);
            }
        }
        Self::reserved().map(|gref| self.keep_one(gref)).collect()
    }

    /// A reserved entry of version 2 as version 1 would say it.
    fn keep_one(&mut self, gref: GrantRef) -> Result<Kept, Errno> {
        let Some((page, at)) = self.place_of_entry(gref) else {
            return Ok(Kept::default());
        };
        let entry_flags = page.u16(at.saturating_add(v2::FLAGS)).load(Relaxed);
        match entry_flags & flags::TYPE_MASK {
            flags::PERMIT_ACCESS => {}
            flags::TRANSITIVE => return Err(Errno::Erange),
            _ => return Ok(Kept::default()),
        }
        let frame = page.u64(at.saturating_add(v2::FRAME)).load(Relaxed);
        let status = self.place_of_status(gref).ok_or(Errno::Enomem)?;
        let (status_page, status_at) = status;
        Ok(Kept {
            flags: entry_flags | status_page.u16(status_at).load(Relaxed),
            domid: page.u16(at.saturating_add(v2::DOMID)).load(Relaxed),
            frame: u32::try_from(frame).map_err(|_| Errno::Erange)?,
        })
    }

    /// Writes the reserved entries into the cleared first frame, in the layout now in force.
    fn put_kept(&mut self, kept: &[Kept]) {
        self.clear(0);
        for (gref, kept) in Self::reserved().zip(kept) {
            let Some((page, at)) = self.place_of_entry(gref) else {
                return;
            };
            let mut entry_flags = kept.flags;
            if self.version == Version::V2 {
                entry_flags &= !STATUS_FLAGS;
                page.u64(at.saturating_add(v2::FRAME))
                    .store(kept.frame.into(), Relaxed);
                if let Some((status, status_at)) = self.place_of_status(gref) {
                    status
                        .u16(status_at)
                        .store(kept.flags & STATUS_FLAGS, Relaxed);
                }
            } else {
                page.u32(at.saturating_add(v1::FRAME))
                    .store(kept.frame, Relaxed);
            }
            page.u16(at.saturating_add(v1::DOMID))
                .store(kept.domid, Relaxed);
            page.u16(at.saturating_add(v1::FLAGS))
                .store(entry_flags, Relaxed);
        }
    }

    /// Takes out a status frame that version 1 has no use for, with the place the guest gave it.
    pub fn take_status_frame(&mut self) -> Option<(PageRef, Option<Gfn>)> {
        if self.version != Version::V1 {
            return None;
        }
        let frame = self.status.iter_mut().find(|frame| frame.page.is_some())?;
        let page = frame.page.take()?;
        Some((page, frame.gfn.take()))
    }
}
