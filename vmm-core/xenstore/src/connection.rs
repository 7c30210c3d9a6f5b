//! A domain as the store knows it.

use alloc::vec::Vec;

use abi::DomId;

use crate::message::{Inbox, Outbox};
use crate::quota::Usage;
use crate::transaction::Transaction;
use crate::watch::Watch;

/// One domain's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: DomId,
    pub(crate) usage: Usage,
    pub(crate) watches: Vec<Watch>,
    pub(crate) transactions: Vec<Transaction>,
    next_transaction: u32,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

impl Connection {
    pub(crate) fn new(id: DomId) -> Self {
        Self {
            id,
            usage: Usage::default(),
            watches: Vec::new(),
            transactions: Vec::new(),
            next_transaction: 0,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
        }
    }

    /// A number for a transaction: not 0, and none that is open.
    pub(crate) fn transaction_id(&mut self) -> u32 {
        loop {
            self.next_transaction = self.next_transaction.wrapping_add(1);
            let id = self.next_transaction;
            // Ends: there are fewer open transactions than numbers.
            if id != 0 && self.transaction(id).is_none() {
                return id;
            }
        }
    }

    /// The place of an open transaction.
    pub(crate) fn transaction(&self, id: u32) -> Option<usize> {
        self.transactions
            .iter()
            .position(|transaction| transaction.id == id)
    }

    /// Ends a transaction without effect.
    pub(crate) fn drop_transaction(&mut self, index: usize) {
        if index < self.transactions.len() {
            let transaction = self.transactions.swap_remove(index);
            self.usage.release(transaction.cost);
        }
    }

    /// Drops all watches and transactions.
    pub(crate) fn reset(&mut self) {
        for watch in self.watches.drain(..) {
            self.usage.release(watch.cost());
        }
        while !self.transactions.is_empty() {
            self.drop_transaction(0);
        }
    }

    /// Forgets what is under way as well: the ring starts anew.
    pub(crate) fn reconnect(&mut self) {
        self.reset();
        self.inbox = Inbox::new();
        while !self.outbox.is_empty() {
            let freed = self.outbox.advance(self.outbox.front().len());
            self.usage.release(freed);
        }
    }
}
