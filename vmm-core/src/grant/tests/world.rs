//! Three domains with real tables, mappings and memory, without vCPUs.

use abi::grant_table::{flags, v1};
use spin::{Mutex, RwLock};

use super::super::ops::{self, Party, Side, Span};
use super::super::{Mapping, Maptrack};
use super::*;
use crate::mm::frame::{Owner, frames};
use crate::mm::guest_mem::GuestMemory;
use crate::mm::p2m::{Backing, Flush, Limits, P2m, PageCache};

use core::sync::atomic::{AtomicU16, Ordering};
use std::vec::Vec;

static NEXT_ID: AtomicU16 = AtomicU16::new(20_000);

/// Pages of RAM that each domain has, from frame 0.
pub(super) const RAM: u64 = 8;

/// A domain as far as grants know one.
pub(super) struct Dom {
    pub(super) id: DomId,
    table: Mutex<GrantTable>,
    maptrack: Mutex<Maptrack>,
    p2m: RwLock<P2m>,
    /// What one of its vCPUs remembers of its memory.
    remembered: PageCache,
    /// The guest's view of its table's first frame.
    pub(super) entries: PageRef,
}

impl Dom {
    pub(super) fn new() -> Self {
        testing::init();
        let id = DomId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let limits = Limits {
            address_bits: 39,
            large: true,
            giant: false,
            table_frames: 1 << 16,
        };
        let mut p2m = P2m::new(id, limits).unwrap();
        p2m.populate(Gfn::new(0), RAM, Backing::Now).unwrap();
        let grants = GrantLimits {
            max_maptrack_frames: 1,
            ..GrantLimits::default()
        };
        let mut table = GrantTable::new(id, &grants).unwrap();
        let (entries, _) = table.frame(0).unwrap();
        Self {
            id,
            table: Mutex::new(table),
            maptrack: Mutex::new(Maptrack::new(grants.max_maptrack_frames)),
            p2m: RwLock::new(p2m),
            remembered: PageCache::new(),
            entries,
        }
    }

    pub(super) fn party(&self) -> Party<'_> {
        Party {
            id: self.id,
            table: &self.table,
            maptrack: &self.maptrack,
            p2m: &self.p2m,
        }
    }

    /// Writes a version 1 entry as a guest would.
    pub(super) fn grant(&self, gref: u32, to: DomId, gfn: u32, readonly: bool) {
        let at = gref as usize * v1::ENTRY_SIZE;
        let readonly = if readonly { flags::READONLY } else { 0 };
        self.entries.u32(at + v1::FRAME).store(gfn, SeqCst);
        self.entries.u16(at + v1::DOMID).store(to.0, SeqCst);
        self.entries
            .u16(at + v1::FLAGS)
            .store(flags::PERMIT_ACCESS | readonly, SeqCst);
    }

    pub(super) fn flags(&self, gref: u32) -> u16 {
        self.entries
            .u16(gref as usize * v1::ENTRY_SIZE + v1::FLAGS)
            .load(SeqCst)
    }

    /// Takes a grant back, as a guest does that keeps to the rules; true when that worked.
    pub(super) fn end(&self, gref: u32) -> bool {
        let word = self.entries.u16(gref as usize * v1::ENTRY_SIZE);
        let seen = word.load(SeqCst);
        seen & (flags::READING | flags::WRITING) == 0
            && word.compare_exchange(seen, 0, SeqCst, SeqCst).is_ok()
    }

    /// The first word of the page at `gfn`, as a hypercall of the guest's reads it: by what was
    /// remembered, which must be what the p2m says.
    pub(super) fn read(&self, gfn: u64) -> Option<u64> {
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
    pub(super) fn write(&self, gfn: u64, value: u64) -> bool {
        let (p2m, gfn) = (self.p2m.read(), Gfn::new(gfn));
        let memory = GuestMemory::new(&p2m, &self.remembered);
        let written = memory.write_gpa(gfn.gpa(), &value.to_le_bytes());
        assert_eq!(written.is_ok(), p2m.hold(gfn, true).is_some());
        written.is_ok()
    }

    pub(super) fn map(&self, granter: &Self, gref: u32, gfn: u64, write: bool) -> Result<u32, i16> {
        let (me, granter) = (self.party(), granter.party());
        let mapped = ops::map(&me, &granter, GrantRef(gref), Gfn::new(gfn), write);
        mapped.map(|(handle, flush)| {
            flush.done();
            handle
        })
    }

    /// Unmaps, and ends the use with whichever of `others` granted it.
    pub(super) fn unmap(&self, others: &[&Self], handle: u32, gfn: u64) -> Result<(), i16> {
        let (mapping, flush) = ops::unmap(&self.party(), handle, Gfn::new(gfn))?;
        flush.done();
        end_use(others, mapping);
        Ok(())
    }

    pub(super) fn take_out(&self, handle: u32, gfn: u64) -> Result<(Mapping, Flush), i16> {
        ops::unmap(&self.party(), handle, Gfn::new(gfn))
    }

    pub(super) fn copy(&self, source: Side<'_>, dest: Side<'_>, span: Span) -> Result<(), i16> {
        ops::copy(&self.party(), source, dest, span)
    }

    pub(super) fn side(&self, gref: u32) -> Side<'_> {
        Side::Grant(self.party(), GrantRef(gref))
    }

    pub(super) fn busy(&self) -> u32 {
        self.table.lock().busy()
    }

    pub(super) fn mappings(&self) -> u32 {
        self.maptrack.lock().len()
    }

    /// Ends the domain, in the order in which [`crate::domain::Domain::release`] does.
    pub(super) fn die(&self, others: &[&Self]) {
        self.table.lock().close();
        let mut from = Gfn::new(0);
        while !self.p2m.write().release(&mut from) {}
        let by_id = |id| others.iter().find(|other| other.id == id).copied();
        while ops::release(&self.party(), by_id, |other| other.party()) {}
    }

    /// Frames of memory that the domain still owns, wherever they are held.
    pub(super) fn owned(&self) -> u64 {
        frames().owned_by(self.id).memory
    }

    pub(super) fn owner_of(&self, gfn: u64) -> Option<Owner> {
        let page = self.p2m.read().hold(Gfn::new(gfn), false)?;
        page.owner()
    }
}

pub(super) fn end_use(others: &[&Dom], mapping: Mapping) {
    let granter = others.iter().find(|other| other.id == mapping.granter);
    ops::end_use(granter.map(|granter| granter.party()).as_ref(), mapping);
}

pub(super) fn doms<const N: usize>() -> Vec<Dom> {
    (0..N).map(|_| Dom::new()).collect()
}
