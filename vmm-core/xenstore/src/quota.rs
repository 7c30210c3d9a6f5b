//! What a domain may make the store keep.

use crate::Error;

/// Limits of one domain; Xen's defaults (`tools/xenstored`), but for the events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quotas {
    /// Nodes it owns.
    pub nodes: u32,
    /// Bytes of a node: value and names of children.
    pub node_size: usize,
    /// Watches.
    pub watches: usize,
    /// Open transactions.
    pub transactions: usize,
    /// Nodes that a transaction touches.
    pub transaction_nodes: usize,
    /// Requests whose replies it has not taken yet.
    pub outstanding: usize,
    /// Events that wait for it.
    pub events: usize,
    /// Bytes of all of that.
    pub memory: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_size: 2048,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            outstanding: 20,
            events: 512,
            memory: 2_560 * 1024,
        }
    }
}

/// What a domain has taken of its [`Quotas`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) nodes: u32,
    /// Bytes; see [`Usage::charge`].
    memory: usize,
}

/// What the bookkeeping of any one thing is counted as, in bytes.
pub(crate) const OVERHEAD: usize = 96;

impl Usage {
    /// Takes `bytes` of memory.
    ///
    /// # Errors
    /// [`Error::Enomem`] beyond the quota.
    pub(crate) fn charge(&mut self, quotas: &Quotas, bytes: usize) -> Result<(), Error> {
        let memory = self.memory.saturating_add(bytes);
        if memory > quotas.memory {
            return Err(Error::Enomem);
        }
        self.memory = memory;
        Ok(())
    }

    /// Takes `bytes` whatever the quota says: they are somebody else's doing.
    pub(crate) const fn charge_always(&mut self, bytes: usize) {
        self.memory = self.memory.saturating_add(bytes);
    }

    /// Gives `bytes` back.
    pub(crate) const fn release(&mut self, bytes: usize) {
        self.memory = self.memory.saturating_sub(bytes);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn memory(&self) -> usize {
        self.memory
    }
}
