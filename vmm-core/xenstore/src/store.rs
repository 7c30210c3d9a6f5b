//! The store as a whole: the tree, the domains that are connected, and the changes of the tree
//! with all that follows from them.

use alloc::string::String;
use alloc::vec::Vec;

use abi::DomId;
use lists::TryPush as _;

use crate::connection::Connection;
use crate::message::{Inbox, Outbox};
use crate::perms::Who;
use crate::quota::{Quotas, Usage};
use crate::transaction::{Change, Transaction, Written};
use crate::tree::{NodeId, Tree, cost};
use crate::watch::{Audience, OwnWatch};
use crate::{Control, Error, Path, Perms};

/// The store.
#[derive(Debug)]
pub struct Store {
    pub(crate) tree: Tree,
    /// Sorted by domain.
    pub(crate) connections: Vec<Connection>,
    /// Of the hypervisor.
    pub(crate) own_watches: Vec<OwnWatch>,
    pub(crate) quotas: Quotas,
    /// See [`Store::set_short`].
    pub(crate) short: bool,
}

/// Steps of [`Store::bury`] at a time: half of them free a node, for 400 instructions or so.
const BURY_STEPS: usize = 64;

/// A domain that was released, and how far its nodes have been removed.
#[derive(Debug)]
#[must_use = "its nodes stay until they are cleared"]
pub struct Leaving {
    id: DomId,
    last: NodeId,
}

impl Store {
    /// A store that holds the root alone.
    ///
    /// # Errors
    /// [`Error::Enomem`].
    pub fn new(quotas: Quotas) -> Result<Self, Error> {
        Ok(Self {
            tree: Tree::new()?,
            connections: Vec::new(),
            own_watches: Vec::new(),
            quotas,
            short: false,
        })
    }

    /// Connects a domain.
    ///
    /// # Errors
    /// [`Error::Enomem`]; [`Error::Eexist`] when it is connected.
    pub fn introduce(&mut self, id: DomId) -> Result<(), Error> {
        let Err(at) = self.place(id) else {
            return Err(Error::Eexist);
        };
        lists::insert(&mut self.connections, at, Connection::new(id))?;
        Ok(())
    }

    /// Forgets a domain. What it owns anywhere in the tree is to be removed, with all below it, by
    /// [`Store::clear`]: nobody's quota would count that any more.
    pub fn release(&mut self, id: DomId) -> Leaving {
        if let Ok(at) = self.place(id) {
            lists::remove(&mut self.connections, at);
        }
        Leaving {
            id,
            last: crate::tree::ROOT,
        }
    }

    /// A step of removing what a domain owned that was released; true when nothing is left.
    pub fn clear(&mut self, leaving: &mut Leaving) -> bool {
        if !self.bury() {
            return false;
        }
        match self.tree.next_owned(leaving.id, leaving.last) {
            Ok(node) => {
                match self.tree.path(node) {
                    Ok(path) => self.remove(Path::stored(&path), node),
                    // Without memory to say what goes, it goes untold.
                    Err(_) => self.remove_node(node),
                }
                leaving.last = node;
                false
            }
            Err(Some(last)) => {
                leaving.last = last;
                false
            }
            Err(None) => true,
        }
    }

    /// A step of freeing nodes that have been removed: out of the tree they are at once, but they
    /// count until they are freed. True when none is left, as [`Store::process`] needs it.
    pub fn bury(&mut self) -> bool {
        let Self {
            tree, connections, ..
        } = self;
        tree.bury(BURY_STEPS, |node| {
            let owner = node.perms.owner();
            let at = connections.binary_search_by_key(&owner, |connection| connection.id);
            if let Some(connection) = at.ok().and_then(|at| connections.get_mut(at)) {
                connection.usage.nodes = connection.usage.nodes.saturating_sub(1);
                connection.usage.release(node.cost());
            }
        })
    }

    /// While memory is short, no domain's request makes the store keep more than it does; such
    /// requests are refused with [`Error::Enomem`], and so are those within transactions.
    pub const fn set_short(&mut self, short: bool) {
        self.short = short;
    }

    /// Drops all that a domain has under way: its ring starts anew.
    pub fn reconnect(&mut self, id: DomId) {
        if let Some(connection) = self.connection(id) {
            connection.reconnect();
        }
    }

    /// Where the domain's next request is put together.
    pub fn inbox(&mut self, id: DomId) -> Option<&mut Inbox> {
        Some(&mut self.connection(id)?.inbox)
    }

    /// What waits to be sent to the domain.
    #[must_use]
    pub fn outbox(&self, id: DomId) -> Option<&Outbox> {
        let at = self.place(id).ok()?;
        Some(&self.connections.get(at)?.outbox)
    }

    /// Notes that `count` of the bytes of [`Outbox::front`] were sent.
    pub fn advance(&mut self, id: DomId, count: usize) {
        if let Some(connection) = self.connection(id) {
            let freed = connection.outbox.advance(count);
            connection.usage.release(freed);
        }
    }

    /// True while the domain has so few replies waiting that it may ask more.
    #[must_use]
    pub fn may_ask(&self, id: DomId) -> bool {
        self.outbox(id)
            .is_some_and(|outbox| outbox.replies() < self.quotas.outstanding)
    }

    /// The domains for which something waits to be sent, from the first at or above `from` on.
    pub fn next_recipient(&self, from: DomId) -> Option<DomId> {
        let at = self.place(from).unwrap_or_else(|at| at);
        self.connections
            .iter()
            .skip(at)
            .find(|connection| !connection.outbox.is_empty())
            .map(|connection| connection.id)
    }

    /// The number of a watch of the hypervisor's that has seen a change since it was last asked for
    /// here; `None` when none has.
    pub fn next_fired(&mut self) -> Option<u64> {
        let mut watches = self.own_watches.iter_mut();
        let fired = watches.find(|watch| watch.fired)?;
        fired.fired = false;
        Some(fired.number)
    }

    /// The hypervisor's own access.
    pub const fn control(&mut self) -> Control<'_> {
        Control::new(self)
    }

    pub(crate) fn place(&self, id: DomId) -> Result<usize, usize> {
        self.connections
            .binary_search_by_key(&id, |connection| connection.id)
    }

    pub(crate) fn connection(&mut self, id: DomId) -> Option<&mut Connection> {
        let at = self.place(id).ok()?;
        self.connections.get_mut(at)
    }

    pub(crate) fn usage(&mut self, owner: DomId) -> Option<&mut Usage> {
        Some(&mut self.connection(owner)?.usage)
    }

    /// Tells those that watch that the node at `path` changed.
    pub(crate) fn tell(&mut self, path: Path<'_>, old: Option<&Perms>) {
        if let Some(id) = self.tree.find(path) {
            let mut audience = Audience {
                connections: &mut self.connections,
                own: &mut self.own_watches,
                quotas: &self.quotas,
            };
            audience.changed(&self.tree, path, id, old);
        }
    }

    fn tell_removal(&mut self, path: Path<'_>, id: NodeId) {
        let mut audience = Audience {
            connections: &mut self.connections,
            own: &mut self.own_watches,
            quotas: &self.quotas,
        };
        audience.removing(&self.tree, path, id);
    }

    /// Gives a node of the tree another value.
    ///
    /// # Errors
    /// [`Error::Enospc`] when the node would be too large, [`Error::Enomem`] beyond its owner's
    /// memory.
    pub(crate) fn set_value(&mut self, who: Who, id: NodeId, value: Vec<u8>) -> Result<(), Error> {
        let node = self.tree.get(id).ok_or(Error::Enoent)?;
        let size = value.len().saturating_add(node.names_size);
        let (before, owner) = (node.cost(), node.perms.owner());
        let after = cost(&node.name, value.len());
        let quotas = self.quotas;
        if !who.privileged() && size > quotas.node_size {
            return Err(Error::Enospc);
        }
        if let Some(usage) = self.usage(owner) {
            if after > before && !who.privileged() {
                usage.charge(&quotas, after.saturating_sub(before))?;
            } else {
                usage.charge_always(after);
                usage.release(before);
            }
        }
        self.tree.set_value(id, value);
        Ok(())
    }

    /// Makes the node at `path`, and those above it that are missing. Each inherits the
    /// permissions of the one above; a domain owns what it makes.
    ///
    /// # Errors
    /// [`Error::Enospc`], [`Error::Enomem`]: nothing changed.
    pub(crate) fn create(
        &mut self,
        who: Who,
        path: Path<'_>,
        value: Vec<u8>,
    ) -> Result<NodeId, Error> {
        let mut above = crate::tree::ROOT;
        let mut missing = path.components().peekable();
        while let Some(&name) = missing.peek() {
            let Some(child) = self.tree.child(above, name) else {
                break;
            };
            above = child;
            missing.next();
        }
        let mut value = Some(value);
        let mut top = None;
        while let Some(name) = missing.next() {
            let value = if missing.peek().is_some() {
                Vec::new()
            } else {
                value.take().unwrap_or_default()
            };
            match self.create_child(who, above, name, value) {
                Ok(id) => {
                    top.get_or_insert(id);
                    above = id;
                }
                Err(error) => {
                    if let Some(top) = top {
                        self.remove_node(top);
                    }
                    return Err(error);
                }
            }
        }
        Ok(above)
    }

    fn create_child(
        &mut self,
        who: Who,
        parent: NodeId,
        name: &str,
        value: Vec<u8>,
    ) -> Result<NodeId, Error> {
        let above = self.tree.get(parent).ok_or(Error::Enoent)?;
        let perms = above.perms.inherited(who);
        let parent_size = above
            .names_size
            .saturating_add(above.value.len())
            .saturating_add(name.len());
        let quotas = self.quotas;
        let owner = perms.owner();
        let bytes = cost(name, value.len());
        if !who.privileged() {
            if parent_size >= quotas.node_size || value.len() > quotas.node_size {
                return Err(Error::Enospc);
            }
            if let Some(usage) = self.usage(owner) {
                if usage.nodes >= quotas.nodes {
                    return Err(Error::Enospc);
                }
                usage.charge(&quotas, bytes)?;
                usage.release(bytes);
            }
        }
        let id = self.tree.create(parent, name, value, perms)?;
        self.count(owner, bytes);
        Ok(id)
    }

    fn count(&mut self, owner: DomId, bytes: usize) {
        if let Some(usage) = self.usage(owner) {
            usage.nodes = usage.nodes.saturating_add(1);
            usage.charge_always(bytes);
        }
    }

    /// Removes the node at `path` with all below it, and tells those that watch.
    pub(crate) fn remove(&mut self, path: Path<'_>, id: NodeId) {
        self.tell_removal(path, id);
        self.remove_node(id);
    }

    fn remove_node(&mut self, id: NodeId) {
        self.tree.detach(id);
        self.tree.discard(id);
    }

    /// Gives a node of the tree other permissions.
    ///
    /// # Errors
    /// [`Error::Enoent`] when there is none.
    pub(crate) fn set_perms(&mut self, id: NodeId, perms: Perms) -> Result<Perms, Error> {
        let (owner, bytes) = (
            perms.owner(),
            self.tree.get(id).ok_or(Error::Enoent)?.cost(),
        );
        let old = self.tree.set_perms(id, perms).ok_or(Error::Enoent)?;
        if old.owner() != owner {
            if let Some(usage) = self.usage(old.owner()) {
                usage.nodes = usage.nodes.saturating_sub(1);
                usage.release(bytes);
            }
            self.count(owner, bytes);
        }
        Ok(old)
    }

    /// Makes a transaction's changes those of the tree: all or none.
    ///
    /// # Errors
    /// [`Error::Eagain`] after a change by somebody else, [`Error::Enospc`], [`Error::Enomem`].
    pub(crate) fn commit(&mut self, id: DomId, transaction: Transaction) -> Result<(), Error> {
        if transaction.failed {
            return Err(Error::Enomem);
        }
        if !transaction.still_true(&self.tree) {
            return Err(Error::Eagain);
        }
        self.check_commit(id, &transaction)?;
        let mut done = Vec::new();
        // So that what is done can be undone.
        done.try_reserve_exact(transaction.touched())?;
        for (path, change, named) in transaction.into_changes() {
            match self.apply(Path::stored(&path), change) {
                Ok(undo) => done.try_push((path, undo, named))?,
                Err(error) => {
                    while let Some((_, undo, _)) = done.pop() {
                        self.undo(undo);
                    }
                    return Err(error);
                }
            }
        }
        for (path, undo, named) in done {
            self.settle(path, undo, named);
        }
        Ok(())
    }

    /// Whether the nodes that a transaction makes fit its domain's quota.
    fn check_commit(&self, id: DomId, transaction: &Transaction) -> Result<(), Error> {
        let mut gone = 0u32;
        for path in transaction.removals() {
            if let Some(node) = self.tree.find(path) {
                self.tree.walk(node, |node| {
                    gone = gone.saturating_add(u32::from(node.perms.owner() == id));
                    true
                });
            }
        }
        let at = self.place(id).map_err(|_| Error::Enoent)?;
        let held = self.connections.get(at).map_or(0, |c| c.usage.nodes);
        let made = u32::try_from(transaction.creates()).unwrap_or(u32::MAX);
        if made > 0 && held.saturating_add(made).saturating_sub(gone) > self.quotas.nodes {
            return Err(Error::Enospc);
        }
        Ok(())
    }

    fn apply(&mut self, path: Path<'_>, change: Change) -> Result<Undo, Error> {
        match change {
            Change::Remove => Ok(match self.tree.find(path) {
                Some(id) => {
                    self.tell_removal(path, id);
                    self.tree.detach(id);
                    Undo::Attach(id)
                }
                None => Undo::Nothing,
            }),
            Change::Set(written) => {
                let id = self.tree.find(path).ok_or(Error::Eagain)?;
                self.fits(id, written.value.len())?;
                Ok(self.swap(id, written))
            }
            Change::Create(written) => self.apply_create(path, written).map(Undo::Remove),
            Change::Replace(written) => {
                let Some(old) = self.tree.find(path) else {
                    return self.apply_create(path, written).map(Undo::Remove);
                };
                self.tell_removal(path, old);
                self.tree.detach(old);
                match self.apply_create(path, written) {
                    Ok(new) => Ok(Undo::Exchange { new, old }),
                    Err(error) => {
                        self.tree.attach(old);
                        Err(error)
                    }
                }
            }
        }
    }

    fn fits(&self, id: NodeId, value: usize) -> Result<(), Error> {
        let node = self.tree.get(id).ok_or(Error::Eagain)?;
        if node.names_size.saturating_add(value) > self.quotas.node_size {
            return Err(Error::Enospc);
        }
        Ok(())
    }

    fn apply_create(&mut self, path: Path<'_>, written: Written) -> Result<NodeId, Error> {
        let parent = self.tree.find(path.parent()).ok_or(Error::Eagain)?;
        let value = self.tree.get(parent).map_or(0, |node| node.value.len());
        self.fits(parent, value.saturating_add(path.name().len()))?;
        self.tree
            .create(parent, path.name(), written.value, written.perms)
    }

    fn swap(&mut self, id: NodeId, written: Written) -> Undo {
        let value = self.tree.set_value(id, written.value);
        match self.tree.set_perms(id, written.perms) {
            Some(perms) => Undo::Swap { id, value, perms },
            None => Undo::Nothing,
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Nothing => {}
            Undo::Attach(id) => self.tree.attach(id),
            Undo::Swap { id, value, perms } => {
                self.tree.set_value(id, value);
                self.tree.set_perms(id, perms);
            }
            Undo::Remove(id) => {
                self.tree.detach(id);
                self.tree.free(id, |_| ());
            }
            Undo::Exchange { new, old } => {
                self.tree.detach(new);
                self.tree.free(new, |_| ());
                self.tree.attach(old);
            }
        }
    }

    /// Counts what a change took and gave back, and tells those that watch.
    fn settle(&mut self, path: String, undo: Undo, named: bool) {
        let path = Path::stored(&path);
        let mut old_perms = None;
        match undo {
            Undo::Nothing => return,
            Undo::Attach(id) => return self.tree.discard(id),
            Undo::Swap { id, value, perms } => {
                let bytes = self.tree.get(id).map_or(0, |node| node.value.len());
                if let Some(usage) = self.usage(perms.owner()) {
                    usage.charge_always(bytes);
                    usage.release(value.len());
                }
                old_perms = Some(perms);
            }
            Undo::Remove(id) => self.count_node(id),
            Undo::Exchange { new, old } => {
                self.tree.discard(old);
                self.count_node(new);
            }
        }
        if named {
            self.tell(path, old_perms.as_ref());
        }
    }

    fn count_node(&mut self, id: NodeId) {
        if let Some(node) = self.tree.get(id) {
            let (owner, bytes) = (node.perms.owner(), node.cost());
            self.count(owner, bytes);
        }
    }
}

/// How to take a change of the tree back.
#[derive(Debug)]
enum Undo {
    Nothing,
    /// Put the removed node back.
    Attach(NodeId),
    /// Give the node its value and permissions back.
    Swap {
        id: NodeId,
        value: Vec<u8>,
        perms: Perms,
    },
    /// Remove the new node.
    Remove(NodeId),
    /// Both.
    Exchange {
        new: NodeId,
        old: NodeId,
    },
}
