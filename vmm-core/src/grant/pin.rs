//! Taking an entry into use, and letting it go: the one place where a shared entry is read.

use core::sync::atomic::Ordering::Relaxed;

use abi::grant_table::{RESERVED_ENTRIES, flags, status, v1, v2};
use abi::{DomId, Gfn, GrantRef, PAGE_SIZE};
use pv_drivers::shared_page::SharedPage;

use super::entry::{self, Header, Wish};
use super::{GrantTable, Version};
use crate::mm::page::PageRef;

/// One of `GNTST_*`: what became of a single operation.
pub type Status = i16;

/// A use of a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// The entry.
    pub gref: GrantRef,
    /// Who uses it.
    pub grantee: DomId,
    /// Whether to write.
    pub write: bool,
    /// Whether the whole page must be granted: for a mapping, not for a copy.
    pub whole: bool,
}

/// What a use gives access to. The use is to be ended by [`GrantTable::unpin`].
#[derive(Debug)]
#[must_use]
pub struct Granted {
    /// The frame, held.
    pub page: PageRef,
    /// The first byte granted.
    pub start: u16,
    /// How many bytes are granted.
    pub length: u16,
}

/// What an entry names.
struct Target {
    gfn: Gfn,
    start: u16,
    length: u16,
    sub_page: bool,
}

const PAGE_LENGTH: u16 = {
    assert!(PAGE_SIZE == 4096);
    4096
};

/// Where an entry and its status lie.
struct Place {
    version: Version,
    entry: SharedPage,
    at: usize,
    status: SharedPage,
    status_at: usize,
}

impl Place {
    fn begin(&self, wish: Wish) -> Option<Header> {
        // Flags and domain are one aligned word in both versions.
        let header = self.entry.u32(self.at.saturating_add(v1::FLAGS));
        match self.version {
            Version::V1 => entry::begin_v1(header, wish),
            Version::V2 => entry::begin_v2(header, self.status.u16(self.status_at), wish),
        }
    }

    fn end(&self, no_reader: bool, no_writer: bool) {
        entry::end(self.status.u16(self.status_at), no_reader, no_writer);
    }

    /// What the entry names, read once; `header` is what it said when it was taken.
    fn target(&self, header: Header) -> Target {
        let word32 = |offset| self.entry.u32(self.at.saturating_add(offset)).load(Relaxed);
        let whole = |gfn| Target {
            gfn,
            start: 0,
            length: PAGE_LENGTH,
            sub_page: false,
        };
        if self.version == Version::V1 {
            return whole(Gfn::new(word32(v1::FRAME).into()));
        }
        let at = self.at.saturating_add(v2::FRAME);
        let gfn = Gfn::new(self.entry.u64(at).load(Relaxed));
        if header.flags() & flags::SUB_PAGE == 0 {
            return whole(gfn);
        }
        let [a, b, c, d] = word32(v2::RANGE).to_le_bytes();
        Target {
            gfn,
            start: u16::from_le_bytes([a, b]),
            length: u16::from_le_bytes([c, d]),
            sub_page: true,
        }
    }
}

impl GrantTable {
    /// Begins a use of an entry. `page_of` finds and holds the granter's page in a frame, if that
    /// is memory of its own; it is asked at the first use only.
    ///
    /// # Errors
    /// The status that map and copy answer with.
    pub fn pin(
        &mut self,
        what: Use,
        page_of: impl FnOnce(Gfn) -> Option<PageRef>,
    ) -> Result<Granted, Status> {
        let Use {
            gref,
            grantee,
            write,
            whole,
        } = what;
        if self.closed {
            return Err(status::BAD_DOMAIN);
        }
        if gref.0 >= self.entries() {
            return Err(status::BAD_GNTREF);
        }
        // An entry in a page that is not there yet grants nothing.
        let place = self.place(gref).ok_or(status::GENERAL_ERROR)?;
        let Some(active) = self.active.get_or_make(gref) else {
            return Err(status::NO_SPACE);
        };
        let pinned = !active.is_idle();
        if pinned && (active.grantee != grantee || (whole && active.sub_page)) {
            return Err(status::GENERAL_ERROR);
        }
        if !pinned || (write && active.writers == 0) {
            let wish = Wish {
                grantee,
                write,
                whole,
                pinned,
            };
            let header = place.begin(wish).ok_or(status::GENERAL_ERROR)?;
            if !pinned {
                let target = place.target(header);
                let Some(page) = page_of(target.gfn) else {
                    place.end(true, write);
                    return Err(status::BAD_PAGE);
                };
                active.page = Some(page);
                active.grantee = grantee;
                active.start = target.start;
                active.length = target.length;
                active.sub_page = target.sub_page;
            }
        }
        let added = active.add(write);
        let (Some(()), Some(page)) = (added, &active.page) else {
            // The count is full, so there are uses, and the marks stay as they are.
            return Err(status::GENERAL_ERROR);
        };
        let granted = Granted {
            page: page.clone(),
            start: active.start,
            length: active.length,
        };
        if !pinned && gref.0 >= RESERVED_ENTRIES {
            self.busy = self.busy.saturating_add(1);
        }
        Ok(granted)
    }

    /// Ends a use that [`GrantTable::pin`] began. The frame must be out of the user's reach.
    pub fn unpin(&mut self, gref: GrantRef, write: bool) {
        let Some(active) = self.active.get(gref) else {
            debug_assert!(self.closed, "a use ended that never began");
            return;
        };
        let ended = active.drop_one(write);
        debug_assert!(ended, "a use ended twice");
        let (idle, no_writer) = (active.is_idle(), write && active.writers == 0);
        if ended && idle && gref.0 >= RESERVED_ENTRIES {
            self.busy = self.busy.saturating_sub(1);
        }
        if let Some(place) = self.place(gref) {
            place.end(idle, no_writer);
        }
    }

    /// Entries in use now.
    #[must_use]
    pub const fn busy(&self) -> u32 {
        self.busy
    }

    /// Entries the table has.
    pub(super) const fn entries(&self) -> u32 {
        self.count.saturating_mul(self.version.entries_per_frame())
    }

    /// Where an entry lies; `None` while its frame, or the one of its status, has no page.
    pub(super) fn place_of_entry(&self, gref: GrantRef) -> Option<(SharedPage, usize)> {
        let (frame, at) = self.version.place(gref);
        Some((self.frames.get(frame)?.page.as_ref()?.page(), at))
    }

    fn place(&mut self, gref: GrantRef) -> Option<Place> {
        let (entry, at) = self.place_of_entry(gref)?;
        let (status, status_at) = match self.version {
            Version::V1 => (entry, at.saturating_add(v1::FLAGS)),
            Version::V2 => self.place_of_status(gref)?,
        };
        Some(Place {
            version: self.version,
            entry,
            at,
            status,
            status_at,
        })
    }

    /// Where the status of a version 2 entry lies; its frame gets a page if it has none.
    pub(super) fn place_of_status(&mut self, gref: GrantRef) -> Option<(SharedPage, usize)> {
        let index = gref.0 / v2::STATUSES_PER_FRAME;
        let frame = self.status.get_mut(index as usize)?;
        let at = ((gref.0 % v2::STATUSES_PER_FRAME) as usize).saturating_mul(v2::STATUS_SIZE);
        Some((frame.page(self.domain).ok()?.page(), at))
    }
}
