//! The addresses of a network and the ports behind which they are.

use alloc::vec::Vec;

use lists::NoMemory;
use system::network::MacAddr;

use crate::network::PortId;

/// Seconds after which a learned address that has not been heard from is free for others: what
/// IEEE 802.1D recommends.
pub(crate) const MAX_AGE: u32 = 300;

/// Since when an address is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Known {
    /// Always: it is the port's own.
    Own,
    /// It was learned, and last heard of at this second.
    Since(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The address as a number, for quick comparison.
    key: u64,
    pub(crate) port: PortId,
    pub(crate) known: Known,
}

impl Entry {
    /// True for one that may be forgotten. A clock that went back makes nothing old.
    pub(crate) const fn is_old(&self, now: u32) -> bool {
        match self.known {
            Known::Own => false,
            Known::Since(then) => now.saturating_sub(then) > MAX_AGE,
        }
    }
}

/// The addresses, each once, in order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Sorted by key.
    entries: Vec<Entry>,
}

impl Table {
    pub(crate) const fn new() -> Self {
        let entries = Vec::new();
        Self { entries }
    }

    /// Makes sure that so many addresses fit without a further allocation.
    pub(crate) fn reserve(&mut self, in_all: usize) -> Result<(), NoMemory> {
        let more = in_all.saturating_sub(self.entries.len());
        Ok(self.entries.try_reserve(more)?)
    }

    pub(crate) fn find(&self, address: MacAddr) -> Option<&Entry> {
        let at = self.place(key(address)).ok()?;
        self.entries.get(at)
    }

    pub(crate) fn find_mut(&mut self, address: MacAddr) -> Option<&mut Entry> {
        let at = self.place(key(address)).ok()?;
        self.entries.get_mut(at)
    }

    /// Puts in an address that is not there, if room was reserved for it.
    pub(crate) fn insert(&mut self, address: MacAddr, port: PortId, known: Known) {
        let key = key(address);
        if let Err(at) = self.place(key)
            && self.entries.len() < self.entries.capacity()
        {
            // There is room.
            let _ = lists::insert(&mut self.entries, at, Entry { key, port, known });
        }
    }

    /// Takes an address out.
    pub(crate) fn take(&mut self, address: MacAddr) {
        if let Ok(at) = self.place(key(address)) {
            lists::remove(&mut self.entries, at);
        }
    }

    /// Removes all that are `unwanted`; tells how many.
    pub(crate) fn remove(&mut self, unwanted: impl Fn(&Entry) -> bool) -> u16 {
        let before = self.entries.len();
        self.entries.retain(|entry| !unwanted(entry));
        let gone = before.saturating_sub(self.entries.len());
        u16::try_from(gone).unwrap_or(u16::MAX)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn place(&self, key: u64) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }
}

const fn key(address: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = address.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
