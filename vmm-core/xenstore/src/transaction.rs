//! Transactions: what a domain changes and nobody sees until it commits.
//!
//! A transaction keeps an entry for each path that it touched: how the tree's node looked then
//! ([`Seen`]) and what the transaction has made of it ([`State`]). It copies nothing that it does
//! not write, and holds nothing of the tree: other domains go on as if it were not there. At
//! commit every entry must look as it did when it was first touched, or the answer is `EAGAIN`
//! and the client tries again.
//!
//! ```text
//!             write, mkdir                     rm
//! Untouched ----------------> Written ----------------> Deleted (Untouched, when it was new)
//!     |                          ^                         |
//!     +---- rm ----> Deleted ----+------ write, mkdir -----+
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use crate::quota::OVERHEAD;
use crate::tree::{NodeId, ROOT, Tree};
use crate::{Error, Path, Perms, text};

/// How the tree's node looked when the transaction first touched it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// It was there, last changed by this change.
    Generation(u64),
    /// It was not there.
    Absent,
    /// It could not be seen: the transaction had removed what lies above.
    Hidden,
}

/// A node that the transaction wrote.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) value: Vec<u8>,
    pub(crate) perms: Perms,
    /// The node was made by the transaction; what the tree has below its path is hidden.
    created: bool,
    /// It takes the place of one that the transaction removed, when this was the tree's last
    /// change.
    replaces: Option<u64>,
}

#[derive(Debug)]
enum State {
    Untouched,
    Written(Written),
    /// Removed with all below it, when this was the tree's last change.
    Deleted {
        as_of: u64,
    },
}

#[derive(Debug)]
struct Entry {
    path: String,
    seen: Seen,
    state: State,
    /// The change is the client's own, not a parent that had to be made: watches hear of it.
    named: bool,
}

/// A node as a transaction sees it; good until the transaction touches another path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The tree's.
    Node(NodeId),
    /// The transaction's own, by the place of its entry.
    Written(usize),
}

/// What a commit has to know of an entry, in the order of paths.
#[derive(Debug)]
pub(crate) enum Change {
    /// The node and all below it goes.
    Remove,
    /// The node gets a value and permissions.
    Set(Written),
    /// The node is made.
    Create(Written),
    /// The node goes, and another takes its place.
    Replace(Written),
}

/// A transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) id: u32,
    /// Sorted by path.
    entries: Vec<Entry>,
    /// What it counts towards its domain's memory.
    pub(crate) cost: usize,
    /// It could not be kept whole; its commit is refused.
    pub(crate) failed: bool,
}

impl Transaction {
    pub(crate) const fn new(id: u32) -> Self {
        Self {
            id,
            entries: Vec::new(),
            cost: OVERHEAD,
            failed: false,
        }
    }

    /// Paths that it touched.
    pub(crate) fn touched(&self) -> usize {
        self.entries.len()
    }

    fn search(&self, path: Path<'_>) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| entry.path.as_str().cmp(path.as_str()))
    }

    fn state(&self, path: Path<'_>) -> Option<(usize, &State)> {
        let at = self.search(path).ok()?;
        Some((at, &self.entries.get(at)?.state))
    }

    /// The node at `path`, and whether the tree's own at and below it are hidden.
    fn resolve(&self, tree: &Tree, path: Path<'_>) -> (Option<Found>, bool) {
        let mut found = Some(Found::Node(ROOT));
        let mut hidden = false;
        if let Some((at, State::Written(_))) = self.state(Path::ROOT) {
            found = Some(Found::Written(at));
        }
        for prefix in path.prefixes() {
            found = match self.state(prefix) {
                Some((at, State::Written(written))) => {
                    hidden |= written.created;
                    Some(Found::Written(at))
                }
                Some((_, State::Deleted { .. })) => {
                    hidden = true;
                    None
                }
                Some((_, State::Untouched)) | None if hidden => None,
                Some((_, State::Untouched)) | None => match found {
                    Some(Found::Node(above)) => tree.child(above, prefix.name()).map(Found::Node),
                    Some(Found::Written(_)) => tree.find(prefix).map(Found::Node),
                    None => None,
                },
            };
            if found.is_none() {
                // Below it there is nothing either.
                break;
            }
        }
        (found, hidden)
    }

    /// The node at `path`, remembered as touched.
    ///
    /// # Errors
    /// [`Error::Enomem`].
    pub(crate) fn touch(&mut self, tree: &Tree, path: Path<'_>) -> Result<Option<Found>, Error> {
        let (found, hidden) = self.resolve(tree, path);
        let Err(at) = self.search(path) else {
            return Ok(found);
        };
        let seen = match found {
            Some(Found::Node(id)) => tree
                .get(id)
                .map_or(Seen::Absent, |node| Seen::Generation(node.generation)),
            _ if hidden => Seen::Hidden,
            _ => Seen::Absent,
        };
        let entry = Entry {
            path: text::string(path.as_str())?,
            seen,
            state: State::Untouched,
            named: false,
        };
        self.cost = self
            .cost
            .saturating_add(OVERHEAD)
            .saturating_add(path.as_str().len());
        lists::insert(&mut self.entries, at, entry)?;
        Ok(found)
    }

    /// The transaction's own node.
    pub(crate) fn written(&self, at: usize) -> Option<&Written> {
        match &self.entries.get(at)?.state {
            State::Written(written) => Some(written),
            State::Untouched | State::Deleted { .. } => None,
        }
    }

    /// Gives a path that was touched a value or other permissions, as the client asked.
    pub(crate) fn set(&mut self, path: Path<'_>, value: Vec<u8>, perms: Perms) {
        self.put(path, value, perms, false, true);
    }

    /// Makes a node at a path that was touched; `named` when the client asked for this very one.
    pub(crate) fn create(&mut self, path: Path<'_>, value: Vec<u8>, perms: Perms, named: bool) {
        self.put(path, value, perms, true, named);
    }

    fn put(&mut self, path: Path<'_>, value: Vec<u8>, perms: Perms, create: bool, named: bool) {
        let Ok(at) = self.search(path) else { return };
        let Some(entry) = self.entries.get_mut(at) else {
            return;
        };
        let (created, replaces, before) = match &entry.state {
            State::Written(old) => (old.created, old.replaces, old.value.len()),
            State::Deleted { as_of } => (true, Some(*as_of), 0),
            State::Untouched => (create, None, 0),
        };
        self.cost = self.cost.saturating_add(value.len()).saturating_sub(before);
        entry.named |= named;
        entry.state = State::Written(Written {
            value,
            perms,
            created,
            replaces,
        });
    }

    /// Removes the node at a path that was touched, with all below it.
    pub(crate) fn remove(&mut self, tree: &Tree, path: Path<'_>) {
        let as_of = tree.generation();
        let Ok(at) = self.search(path) else { return };
        for (index, entry) in (0..usize::MAX).zip(&mut self.entries).skip(at) {
            let below = Path::stored(&entry.path);
            if !path.covers(below) {
                // Others can lie between: "/a-b" comes before "/a/b".
                if !below.as_str().starts_with(path.as_str()) {
                    break;
                }
                continue;
            }
            let fresh = |written: &Written| written.created && written.replaces.is_none();
            let state = match &entry.state {
                _ if index != at => State::Untouched,
                State::Written(written) if fresh(written) => State::Untouched,
                State::Written(_) | State::Untouched | State::Deleted { .. } => {
                    State::Deleted { as_of }
                }
            };
            if let State::Written(written) = core::mem::replace(&mut entry.state, state) {
                self.cost = self.cost.saturating_sub(written.value.len());
            }
            entry.named = index == at;
        }
    }

    /// Shows the names of the children of `path`, where `found` is.
    pub(crate) fn children(&self, tree: &Tree, path: Path<'_>, mut show: impl FnMut(&str)) {
        let (found, hidden) = self.resolve(tree, path);
        if found.is_some()
            && !hidden
            && let Some(node) = tree.find(path)
        {
            for name in tree.children(node) {
                if self.own_child(path, name).is_none() {
                    show(name);
                }
            }
        }
        for entry in &self.entries {
            let child = Path::stored(&entry.path);
            let direct = !child.is_root() && child.parent() == path;
            if direct && matches!(entry.state, State::Written(_)) {
                show(child.name());
            }
        }
    }

    /// The entry of a child, if the transaction changed it.
    fn own_child(&self, path: Path<'_>, name: &str) -> Option<&Entry> {
        let above = if path.is_root() { "" } else { path.as_str() };
        let parts = || above.bytes().chain([b'/']).chain(name.bytes());
        let at = self
            .entries
            .binary_search_by(|entry| entry.path.bytes().cmp(parts()))
            .ok()?;
        self.entries
            .get(at)
            .filter(|entry| !matches!(entry.state, State::Untouched))
    }

    /// True when the tree still is what the transaction saw of it.
    pub(crate) fn still_true(&self, tree: &Tree) -> bool {
        self.entries.iter().all(|entry| {
            let node = tree.find(Path::stored(&entry.path));
            let same = match entry.seen {
                Seen::Hidden => true,
                Seen::Absent => node.is_none(),
                Seen::Generation(generation) => node
                    .and_then(|id| tree.get(id))
                    .is_some_and(|node| node.generation == generation),
            };
            let as_of = match &entry.state {
                State::Deleted { as_of } => Some(*as_of),
                State::Written(written) => written.replaces,
                State::Untouched => None,
            };
            same && as_of.is_none_or(|as_of| {
                let mut unchanged = true;
                if let Some(id) = node {
                    tree.walk(id, |node| {
                        unchanged = node.generation <= as_of;
                        unchanged
                    });
                }
                unchanged
            })
        })
    }

    /// The changes, parents before children; for each whether watches hear of it.
    pub(crate) fn into_changes(self) -> impl Iterator<Item = (String, Change, bool)> {
        self.entries.into_iter().filter_map(|entry| {
            let change = match entry.state {
                State::Untouched => return None,
                State::Deleted { .. } => Change::Remove,
                State::Written(written) => match (written.created, written.replaces) {
                    (false, _) => Change::Set(written),
                    (true, None) => Change::Create(written),
                    (true, Some(_)) => Change::Replace(written),
                },
            };
            Some((entry.path, change, entry.named))
        })
    }

    /// How many nodes it makes.
    pub(crate) fn creates(&self) -> usize {
        let created =
            |entry: &&Entry| matches!(&entry.state, State::Written(written) if written.created);
        let created = self.entries.iter().filter(created);
        created.fold(0, |count, _| count.saturating_add(1))
    }

    /// The paths that it removes from the tree.
    pub(crate) fn removals(&self) -> impl Iterator<Item = Path<'_>> {
        self.entries.iter().filter_map(|entry| {
            let removes = match &entry.state {
                State::Deleted { .. } => true,
                State::Written(written) => written.replaces.is_some(),
                State::Untouched => false,
            };
            removes.then(|| Path::stored(&entry.path))
        })
    }
}
