//! Watches: who is told of which changes.

use alloc::string::String;
use alloc::vec::Vec;

use abi::DomId;

use crate::connection::Connection;
use crate::perms::Who;
use crate::quota::{OVERHEAD, Quotas};
use crate::tree::{NodeId, Tree};
use crate::{Access, Error, Path, Perms, text};

/// A watch of one connection.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Absolute, or special.
    path: String,
    token: Vec<u8>,
    /// The client named the path relative to its own and hears of it so.
    relative: bool,
}

impl Watch {
    /// # Errors
    /// [`Error::Enomem`].
    pub(crate) fn new(path: Path<'_>, token: &[u8], relative: bool) -> Result<Self, Error> {
        Ok(Self {
            path: text::string(path.as_str())?,
            token: text::bytes(token)?,
            relative,
        })
    }

    pub(crate) fn path(&self) -> Path<'_> {
        Path::stored(&self.path)
    }

    pub(crate) fn is(&self, path: Path<'_>, token: &[u8]) -> bool {
        self.path() == path && self.token == token
    }

    /// What the watch counts towards its domain's memory.
    pub(crate) fn cost(&self) -> usize {
        OVERHEAD
            .saturating_add(self.path.len())
            .saturating_add(self.token.len())
    }
}

impl Connection {
    /// Queues an event of the watch with this index about `path`. It is lost when the domain has
    /// used its quotas up by not taking earlier ones.
    pub(crate) fn send_event(&mut self, quotas: &Quotas, index: usize, path: Path<'_>) {
        let Some(watch) = self.watches.get(index) else {
            return;
        };
        if self.outbox.events() >= quotas.events {
            return;
        }
        let mut home = heapless::String::<24>::new();
        let seen = if watch.relative {
            relative(path, self.id, &mut home)
        } else {
            path.as_str()
        };
        let cost = OVERHEAD
            .saturating_add(seen.len())
            .saturating_add(watch.token.len());
        if self.usage.charge(quotas, cost).is_err() {
            return;
        }
        self.usage.release(cost);
        // Without memory the event is lost, as it is beyond a quota.
        if let Ok(taken) = self.outbox.event(seen, &watch.token) {
            self.usage.charge_always(taken);
        }
    }

    /// Queues events of all watches that `matches` finds.
    fn fire(&mut self, quotas: &Quotas, path: Path<'_>, matches: impl Fn(&Watch) -> bool) {
        for index in 0..self.watches.len() {
            if self.watches.get(index).is_some_and(&matches) {
                self.send_event(quotas, index, path);
            }
        }
    }
}

/// `path` as the domain names it that watches a relative one.
fn relative<'a>(path: Path<'a>, id: DomId, home: &mut heapless::String<24>) -> &'a str {
    use core::fmt::Write as _;
    home.clear();
    // The number of a domain has at most five digits.
    let _ = write!(home, "/local/domain/{id}/");
    let text = path.as_str();
    text.strip_prefix(home.as_str()).unwrap_or(text)
}

/// A watch of the hypervisor's own. Changes leave a mark and nothing more, so they cost no memory
/// however many there are.
#[derive(Debug)]
pub(crate) struct OwnWatch {
    path: String,
    pub(crate) number: u64,
    pub(crate) fired: bool,
}

impl OwnWatch {
    /// # Errors
    /// [`Error::Enomem`].
    pub(crate) fn new(path: Path<'_>, number: u64) -> Result<Self, Error> {
        Ok(Self {
            path: text::string(path.as_str())?,
            number,
            fired: false,
        })
    }

    fn path(&self) -> Path<'_> {
        Path::stored(&self.path)
    }
}

/// Those that hear of changes.
#[derive(Debug)]
pub(crate) struct Audience<'a> {
    pub(crate) connections: &'a mut [Connection],
    pub(crate) own: &'a mut [OwnWatch],
    pub(crate) quotas: &'a Quotas,
}

impl Audience<'_> {
    /// Tells of a change of the node `id` at `path`: all that watch it or what lies above, and may
    /// read it or its parent, or might before, when it had the permissions `old`.
    pub(crate) fn changed(&mut self, tree: &Tree, path: Path<'_>, id: NodeId, old: Option<&Perms>) {
        for watch in self.own.iter_mut() {
            watch.fired |= watch.path().covers(path);
        }
        let readable = Readable::new(tree, path, id, old);
        for connection in self.connections.iter_mut() {
            if readable.by(connection.id) {
                connection.fire(self.quotas, path, |watch| watch.path().covers(path));
            }
        }
    }

    /// Tells that the node `id` at `path` is about to be removed with all below it: those that
    /// watch it or what lies above, and those that watch a node below.
    pub(crate) fn removing(&mut self, tree: &Tree, path: Path<'_>, id: NodeId) {
        for watch in self.own.iter_mut() {
            watch.fired |= watch.path().covers(path) || path.covers(watch.path());
        }
        let readable = Readable::new(tree, path, id, None);
        for connection in self.connections.iter_mut() {
            for index in 0..connection.watches.len() {
                let Some(watched) = connection.watches.get(index).map(Watch::path) else {
                    break;
                };
                if watched == path || !path.covers(watched) {
                    continue;
                }
                let Some(below) = tree.find(watched) else {
                    continue;
                };
                if Readable::new(tree, watched, below, None).by(connection.id) {
                    connection.send_own_event(self.quotas, index);
                }
            }
            if readable.by(connection.id) {
                connection.fire(self.quotas, path, |watch| watch.path().covers(path));
            }
        }
    }
}

impl Connection {
    /// Queues an event of a watch about the very path it watches.
    pub(crate) fn send_own_event(&mut self, quotas: &Quotas, index: usize) {
        let Some(watch) = self.watches.get_mut(index) else {
            return;
        };
        // Out of its place while the event is made of it; the watch itself stays.
        let path = core::mem::take(&mut watch.path);
        self.send_event(quotas, index, Path::stored(&path));
        if let Some(watch) = self.watches.get_mut(index) {
            watch.path = path;
        }
    }
}

/// Whose permissions decide who hears of a change.
struct Readable<'a> {
    node: Option<&'a Perms>,
    old: Option<&'a Perms>,
    parent: Option<&'a Perms>,
}

impl<'a> Readable<'a> {
    fn new(tree: &'a Tree, path: Path<'_>, id: NodeId, old: Option<&'a Perms>) -> Self {
        let perms = |id| tree.get(id).map(|node| &node.perms);
        Self {
            node: perms(id),
            old,
            parent: tree.find(path.parent()).and_then(perms),
        }
    }

    fn by(&self, id: DomId) -> bool {
        [self.node, self.old, self.parent]
            .into_iter()
            .flatten()
            .any(|perms| perms.of(Who::Domain(id)).contains(Access::READ))
    }
}
