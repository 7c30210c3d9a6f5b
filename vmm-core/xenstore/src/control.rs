//! The hypervisor's own access to the store: no permissions, no quotas, no transactions.

use alloc::vec::Vec;

use lists::TryPush as _;

use crate::perms::Who;
use crate::store::Store;
use crate::watch::OwnWatch;
use crate::{Error, Path, Perms, text};

/// The store in the hypervisor's hands. Paths are absolute; watches hear of every change.
#[derive(Debug)]
pub struct Control<'a> {
    store: &'a mut Store,
}

impl<'a> Control<'a> {
    pub(crate) const fn new(store: &'a mut Store) -> Self {
        Self { store }
    }

    /// A node's value; `None` when there is no such node.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        let id = self.store.tree.find(Path::absolute(path).ok()?)?;
        Some(&self.store.tree.get(id)?.value)
    }

    /// The names of a node's children, sorted; none when there is no such node.
    pub fn children(&self, path: &str) -> impl Iterator<Item = &str> {
        let id = Path::absolute(path)
            .ok()
            .and_then(|path| self.store.tree.find(path));
        id.into_iter().flat_map(|id| self.store.tree.children(id))
    }

    /// Sets a node's value; makes the node, and what is missing above it, with the permissions of
    /// the lowest node that is there.
    ///
    /// # Errors
    /// [`Error::Einval`] for what is no path, [`Error::Enomem`].
    pub fn write(&mut self, path: &str, value: &[u8]) -> Result<(), Error> {
        let value = text::bytes(value)?;
        let path = Path::absolute(path)?;
        match self.store.tree.find(path) {
            Some(id) => self.store.set_value(Who::Control, id, value)?,
            None => {
                self.store.create(Who::Control, path, value)?;
            }
        }
        self.store.tell(path, None);
        Ok(())
    }

    /// Makes a node unless it is there, and gives it permissions.
    ///
    /// # Errors
    /// As [`Control::write`].
    pub fn make(&mut self, path: &str, perms: Perms) -> Result<(), Error> {
        let path = Path::absolute(path)?;
        let id = match self.store.tree.find(path) {
            Some(id) => id,
            None => self.store.create(Who::Control, path, Vec::new())?,
        };
        let old = self.store.set_perms(id, perms)?;
        self.store.tell(path, Some(&old));
        Ok(())
    }

    /// Watches a node and all below it, which need not be there, under a number that is given back
    /// by [`Store::next_fired`].
    ///
    /// # Errors
    /// As [`Control::write`].
    pub fn watch(&mut self, path: &str, number: u64) -> Result<(), Error> {
        let watch = OwnWatch::new(Path::absolute(path)?, number)?;
        Ok(self.store.own_watches.try_push(watch)?)
    }

    /// Ends the watches with this number.
    pub fn unwatch(&mut self, number: u64) {
        self.store
            .own_watches
            .retain(|watch| watch.number != number);
    }

    /// Removes a node with all below it, if it is there.
    pub fn remove(&mut self, path: &str) {
        let Ok(path) = Path::absolute(path) else {
            return;
        };
        if let Some(id) = self.store.tree.find(path)
            && !path.is_root()
        {
            self.store.remove(path, id);
        }
    }
}
