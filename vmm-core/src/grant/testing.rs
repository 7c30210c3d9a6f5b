//! Domains with real tables, mappings and memory, without vCPUs, for tests.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::new_without_default,
    reason = "tests choose their own numbers"
)]

use core::sync::atomic::{AtomicU16, Ordering::Relaxed, Ordering::SeqCst};

use abi::grant_table::{flags, v1};
use abi::{DomId, Gfn, GrantRef};
use spin::{Mutex, RwLock};
use system::GrantLimits;

use super::ops::{self, Party, Side, Span};
use super::{GrantTable, Mapping, Maptrack};
use crate::mm::frame::{Owner, frames};
use crate::mm::guest_mem::GuestMemory;
use crate::mm::p2m::{Backing, Flush, Limits, P2m, PageCache};
use crate::mm::page::PageRef;
use crate::mm::testing;

use alloc::vec::Vec;

static NEXT_ID: AtomicU16 = AtomicU16::new(0);
/// Ids that are in use at a time at most; they come round.
const IDS: u16 = 10_000;

/// Pages of RAM that each domain has, from frame 0.
pub const RAM: u64 = 8;

/// A domain as far as grants know one.
#[derive(Debug)]
pub struct Dom {
    /// Its id.
    pub id: DomId,
    table: Mutex<GrantTable>,
    maptrack: Mutex<Maptrack>,
    p2m: RwLock<P2m>,
    /// What one of its vCPUs remembers of its memory.
    remembered: PageCache,
    /// The guest's view of its table's first frame.
    pub entries: PageRef,
}

impl Dom {
    /// A new domain.
    #[must_use]
    pub fn new() -> Self {
        testing::init();
        let id = DomId(20_000 + NEXT_ID.fetch_add(1, Relaxed) % IDS);
        let limits = Limits {
            address_bits: 39,
            large: true,
            giant: false,
            table_frames: 1 << 16,
        };
        let mut p2m = sound(P2m::new(id, limits));
        sound(p2m.populate(Gfn::new(0), RAM, Backing::Now));
        let grants = GrantLimits {
            max_maptrack_frames: 1,
            ..GrantLimits::default()
        };
        let mut table = sound(GrantTable::new(id, &grants).ok_or(abi::Errno::Enomem));
        let (entries, _) = sound(table.frame(0));
        Self {
            id,
            table: Mutex::new(table),
            maptrack: Mutex::new(Maptrack::new(grants.max_maptrack_frames)),
            p2m: RwLock::new(p2m),
            remembered: PageCache::new(),
            entries,
        }
    }

    /// The domain as one who grants, and who uses grants.
    #[must_use]
    pub fn party(&self) -> Party<'_> {
        Party {
            id: self.id,
            table: &self.table,
            maptrack: &self.maptrack,
            p2m: &self.p2m,
        }
    }

    /// Writes a version 1 entry as a guest would.
    pub fn grant(&self, gref: u32, to: DomId, gfn: u32, readonly: bool) {
        let at = gref as usize * v1::ENTRY_SIZE;
        let readonly = if readonly { flags::READONLY } else { 0 };
        self.entries.u32(at + v1::FRAME).store(gfn, SeqCst);
        self.entries.u16(at + v1::DOMID).store(to.0, SeqCst);
        self.entries
            .u16(at + v1::FLAGS)
            .store(flags::PERMIT_ACCESS | readonly, SeqCst);
    }

    /// The flags of a version 1 entry.
    #[must_use]
    pub fn flags(&self, gref: u32) -> u16 {
        self.entries
            .u16(gref as usize * v1::ENTRY_SIZE + v1::FLAGS)
            .load(SeqCst)
    }

    /// Takes a grant back, as a guest does that keeps to the rules; true when that worked.
    pub fn end(&self, gref: u32) -> bool {
        let word = self.entries.u16(gref as usize * v1::ENTRY_SIZE);
        let seen = word.load(SeqCst);
        seen & (flags::READING | flags::WRITING) == 0
            && word.compare_exchange(seen, 0, SeqCst, SeqCst).is_ok()
    }

    /// The first word of the page at `gfn`, as a hypercall of the guest's reads it: by what was
    /// remembered, which must be what the p2m says.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn read(&self, gfn: u64) -> Option<u64> {
        let (p2m, gfn) = (self.p2m.read(), Gfn::new(gfn));
        let mut word = [0; 8];
        let memory = GuestMemory::new(&p2m, &self.remembered);
        let read = memory.read_gpa(gfn.gpa(), &mut word);
        let remembered = read.is_ok().then_some(u64::from_le_bytes(word));
        let page = p2m.hold(gfn, false);
        assert_eq!(remembered, page.map(|page| page.u64(0).load(SeqCst)));
        remembered
    }

    /// Writes it, if the guest may.
    ///
    /// # Panics
    /// When what was remembered is not what the p2m says.
    pub fn write(&self, gfn: u64, value: u64) -> bool {
        let (p2m, gfn) = (self.p2m.read(), Gfn::new(gfn));
        let memory = GuestMemory::new(&p2m, &self.remembered);
        let written = memory.write_gpa(gfn.gpa(), &value.to_le_bytes());
        assert_eq!(written.is_ok(), p2m.hold(gfn, true).is_some());
        written.is_ok()
    }

    /// Maps a page of the granter's; tells the handle.
    ///
    /// # Errors
    /// The status.
    pub fn map(&self, granter: &Self, gref: u32, gfn: u64, write: bool) -> Result<u32, i16> {
        let (me, granter) = (self.party(), granter.party());
        let mut flush = self.p2m.read().batch();
        let gfn = Gfn::new(gfn);
        let mapped = ops::map(&me, &granter, GrantRef(gref), gfn, write, &mut flush);
        flush.done();
        mapped
    }

    /// Unmaps, and ends the use with whichever of `others` granted it.
    ///
    /// # Errors
    /// The status.
    pub fn unmap(&self, others: &[&Self], handle: u32, gfn: u64) -> Result<(), i16> {
        let (mapping, flush) = self.take_out(handle, gfn)?;
        flush.done();
        end_use(others, mapping);
        Ok(())
    }

    /// Unmaps, and leaves the rest to the caller.
    ///
    /// # Errors
    /// The status.
    pub fn take_out(&self, handle: u32, gfn: u64) -> Result<(Mapping, Flush), i16> {
        let mut flush = self.p2m.read().batch();
        let mapping = ops::unmap(&self.party(), handle, Gfn::new(gfn), &mut flush)?;
        Ok((mapping, flush))
    }

    /// Copies between pages.
    ///
    /// # Errors
    /// The status.
    pub fn copy(
        &self,
        source: Side<Party<'_>>,
        dest: Side<Party<'_>>,
        span: Span,
    ) -> Result<(), i16> {
        ops::copy(&self.party(), &self.remembered, source, dest, span)
    }

    /// A page that it grants, as a side of a copy.
    #[must_use]
    pub fn side(&self, gref: u32) -> Side<Party<'_>> {
        Side::Grant(self.party(), GrantRef(gref))
    }

    /// Entries of its own in use.
    #[must_use]
    pub fn busy(&self) -> u32 {
        self.table.lock().busy()
    }

    /// Pages that it has mapped.
    #[must_use]
    pub fn mappings(&self) -> u32 {
        self.maptrack.lock().len()
    }

    /// Ends the domain, in the order in which [`crate::domain::Domain::release`] does.
    pub fn die(&self, others: &[&Self]) {
        self.table.lock().close();
        let mut from = Gfn::new(0);
        while !self.p2m.write().release(&mut from) {}
        let by_id = |id| others.iter().find(|other| other.id == id).copied();
        while ops::release(&self.party(), by_id, |other| other.party()) {}
    }

    /// Frames of memory that the domain still owns, wherever they are held.
    pub fn owned(&self) -> u64 {
        frames().owned_by(self.id).memory
    }

    /// The owner of the page at `gfn`.
    #[must_use]
    pub fn owner_of(&self, gfn: u64) -> Option<Owner> {
        let page = self.p2m.read().hold(Gfn::new(gfn), false)?;
        page.owner()
    }
}

/// Ends the use of a mapping with whichever of `others` granted it.
pub fn end_use(others: &[&Dom], mapping: Mapping) {
    let granter = others.iter().find(|other| other.id == mapping.granter);
    ops::end_use(granter.map(|granter| granter.party()).as_ref(), mapping);
}

/// Some domains.
#[must_use]
pub fn doms<const N: usize>() -> Vec<Dom> {
    (0..N).map(|_| Dom::new()).collect()
}

/// What cannot fail as long as the arena has memory.
fn sound<T>(made: Result<T, abi::Errno>) -> T {
    match made {
        Ok(made) => made,
        Err(errno) => unreachable!("{errno:?}"),
    }
}
