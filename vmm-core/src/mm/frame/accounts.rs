//! What each domain has, counted as frames come and go.
//!
//! A domain's quotas are checked against its account, so that frames which it has given up but
//! which somebody else still holds go on counting as its own. Accounts lie in frames of the table's
//! own, taken as domains come to be: 256 in each, by domain id.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::{DomId, Mfn, PAGE_SIZE};

use super::entry::Owner;

/// Accounts in one frame.
const PER_PAGE: usize = PAGE_SIZE / size_of::<Account>();
/// Frames for the accounts of all ids.
const PAGES: usize = (1 << 16) / PER_PAGE;

/// The frames of one domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DomainFrames {
    /// Its memory.
    pub memory: u64,
    /// Page tables and other structures kept for it.
    pub tables: u64,
    /// Pages the hypervisor shares with it.
    pub shared: u64,
    /// What it has written to disks in RAM.
    pub disks: u64,
}

/// A frame of accounts.
pub(super) type Page = [Account; PER_PAGE];

/// Where the accounts are: frame numbers, 0 for none.
#[derive(Debug)]
pub(super) struct Accounts([AtomicU64; PAGES]);

/// One domain's counters; changed under the allocator's lock. All zero at first.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Account {
    memory: AtomicU32,
    tables: AtomicU32,
    shared: AtomicU32,
    disks: AtomicU32,
}

/// The page of a domain's account, and its place there.
pub(super) fn place(domain: DomId) -> (usize, usize) {
    let id = usize::from(domain.0);
    (id / PER_PAGE, id % PER_PAGE)
}

impl Accounts {
    /// No account at all.
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; PAGES])
    }

    /// The frame of a page of accounts.
    pub(super) fn page(&self, page: usize) -> Option<Mfn> {
        let raw = self.0.get(page)?.load(Ordering::Acquire);
        (raw != 0).then(|| Mfn::new(raw))
    }

    /// Puts a page of accounts, all zero, in place.
    pub(super) fn set_page(&self, page: usize, mfn: Mfn) {
        if let Some(slot) = self.0.get(page) {
            slot.store(mfn.raw(), Ordering::Release);
        }
    }
}

impl Account {
    /// Counts frames of this domain's that were allocated.
    pub(super) fn add(&self, owner: Owner, frames: u32) {
        if let Some(counter) = self.counter(owner) {
            counter.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// Counts frames of this domain's that are free again.
    pub(super) fn sub(&self, owner: Owner, frames: u32) {
        if let Some(counter) = self.counter(owner) {
            counter.fetch_sub(frames, Ordering::Relaxed);
        }
    }

    /// What the account says.
    pub(super) fn frames(&self) -> DomainFrames {
        let read = |counter: &AtomicU32| u64::from(counter.load(Ordering::Relaxed));
        DomainFrames {
            memory: read(&self.memory),
            tables: read(&self.tables),
            shared: read(&self.shared),
            disks: read(&self.disks),
        }
    }

    const fn counter(&self, owner: Owner) -> Option<&AtomicU32> {
        match owner {
            Owner::Domain(_) => Some(&self.memory),
            Owner::Tables(_) => Some(&self.tables),
            Owner::Shared(_) => Some(&self.shared),
            Owner::Disk(_) => Some(&self.disks),
            Owner::Hypervisor | Owner::Heap | Owner::Cpu => None,
        }
    }
}
