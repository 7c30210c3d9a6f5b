//! The nodes: a tree in an arena, children in the order of their names.
//!
//! Every change of a node, its list of children included, gives it a new *generation*, a number
//! that no other change had. So whoever remembers one can tell whether the node changed since.

use alloc::string::String;
use alloc::vec::Vec;

use abi::DomId;
use lists::TryPush as _;

use crate::quota::OVERHEAD;
use crate::{Access, Error, Path, Perms, text};

/// A node's place in the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeId(u32);

/// The root, which is always there.
pub(crate) const ROOT: NodeId = NodeId(0);

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    parent: NodeId,
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
    pub(crate) perms: Perms,
    /// The number of the node's last change.
    pub(crate) generation: u64,
    /// Sorted by name.
    children: Vec<NodeId>,
    /// Bytes of the children's names, each with a NUL.
    pub(crate) names_size: usize,
}

impl Node {
    /// What the node counts towards its owner's memory.
    pub(crate) fn cost(&self) -> usize {
        cost(&self.name, self.value.len())
    }
}

/// What a node of this name with a value so long counts towards its owner's memory.
pub(crate) const fn cost(name: &str, value: usize) -> usize {
    OVERHEAD.saturating_add(name.len()).saturating_add(value)
}

#[derive(Debug)]
enum Slot {
    Used(Node),
    Free { next: Option<NodeId> },
}

/// Slots that are allocated together: few enough that growing never takes or moves much at once.
const CHUNK: usize = 32;

/// The tree.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Chunks of [`CHUNK`] slots, all full but the last.
    chunks: Vec<Vec<Slot>>,
    free: Option<NodeId>,
    generation: u64,
    /// Detached nodes that wait to be freed with all below them: the first one. Each names the next
    /// one as its parent, and the last one itself.
    dead: Option<NodeId>,
    /// How far the first of them has been freed.
    burying: Option<NodeId>,
}

impl Tree {
    /// A tree of one node, the root, which the control domain owns and nobody else may read.
    ///
    /// # Errors
    /// [`Error::Enomem`].
    pub(crate) fn new() -> Result<Self, Error> {
        let mut tree = Self {
            chunks: Vec::new(),
            free: None,
            generation: 0,
            dead: None,
            burying: None,
        };
        let root = Node {
            parent: ROOT,
            name: String::new(),
            value: Vec::new(),
            perms: Perms::new(DomId::CONTROL, Access::empty()),
            generation: 0,
            children: Vec::new(),
            names_size: 0,
        };
        let id = tree.reserve()?;
        tree.fill(id, root);
        Ok(tree)
    }

    /// The number of the last change.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    fn slot_mut(&mut self, id: NodeId) -> Option<&mut Slot> {
        let at = id.0 as usize;
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    /// The node, unless it is gone.
    pub(crate) fn get(&self, id: NodeId) -> Option<&Node> {
        let at = id.0 as usize;
        match self.chunks.get(at / CHUNK)?.get(at % CHUNK)? {
            Slot::Used(node) => Some(node),
            Slot::Free { .. } => None,
        }
    }

    fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        match self.slot_mut(id)? {
            Slot::Used(node) => Some(node),
            Slot::Free { .. } => None,
        }
    }

    /// The first node of `owner` behind `last`, in the order of the arena, in which the root is the
    /// first; looks at one chunk. To be called when nothing waits to be freed.
    ///
    /// # Errors
    /// From where to go on when there is none in that chunk; `None` at the end.
    pub(crate) fn next_owned(&self, owner: DomId, last: NodeId) -> Result<NodeId, Option<NodeId>> {
        let first = (last.0 as usize).saturating_add(1);
        let chunk = self.chunks.get(first / CHUNK).ok_or(None)?;
        let mut ids = (last.0.saturating_add(1)..).zip(chunk.iter().skip(first % CHUNK));
        let is_owned =
            |slot: &Slot| matches!(slot, Slot::Used(node) if node.perms.owner() == owner);
        let found = ids.find(|(_, slot)| is_owned(slot));
        let end = (first / CHUNK).saturating_add(1).saturating_mul(CHUNK);
        let last = u32::try_from(end.saturating_sub(1)).map(NodeId);
        found.map(|(id, _)| NodeId(id)).ok_or(last.ok())
    }

    /// The path of a node.
    ///
    /// # Errors
    /// [`Error::Enomem`].
    pub(crate) fn path(&self, id: NodeId) -> Result<String, Error> {
        let above = |&id: &NodeId| self.get(id).map(|node| node.parent);
        let mut path = String::new();
        // Backwards, from the node up to the root.
        for id in core::iter::successors(Some(id), above).take_while(|&id| id != ROOT) {
            let name = self.name(id);
            path.try_reserve(name.len().saturating_add(1))?;
            path.insert_str(0, name);
            path.insert(0, '/');
        }
        Ok(path)
    }

    /// The node of a path.
    pub(crate) fn find(&self, path: Path<'_>) -> Option<NodeId> {
        path.components()
            .try_fold(ROOT, |above, name| self.child(above, name))
    }

    /// The child of this name.
    pub(crate) fn child(&self, of: NodeId, name: &str) -> Option<NodeId> {
        let at = self.search(of, name).ok()?;
        self.get(of)?.children.get(at).copied()
    }

    /// Where the child of this name is, or would be.
    fn search(&self, of: NodeId, name: &str) -> Result<usize, usize> {
        let children = self.get(of).map_or(&[][..], |node| &node.children);
        children.binary_search_by(|&child| self.name(child).cmp(name))
    }

    fn name(&self, id: NodeId) -> &str {
        self.get(id).map_or("", |node| &node.name)
    }

    /// The children's names, sorted.
    pub(crate) fn children(&self, of: NodeId) -> impl Iterator<Item = &str> {
        let children = self.get(of).map_or(&[][..], |node| &node.children);
        children.iter().map(|&child| self.name(child))
    }

    /// Adds a child, which must not be there yet.
    ///
    /// # Errors
    /// [`Error::Enomem`]: nothing changed.
    pub(crate) fn create(
        &mut self,
        parent: NodeId,
        name: &str,
        value: Vec<u8>,
        perms: Perms,
    ) -> Result<NodeId, Error> {
        let name = text::string(name)?;
        let at = self.search(parent, &name).unwrap_or_else(|at| at);
        let id = self.reserve()?;
        let names_size = name.len().saturating_add(1);
        let node = self.get_mut(parent).ok_or(Error::Enoent)?;
        lists::insert(&mut node.children, at, id)?;
        node.names_size = node.names_size.saturating_add(names_size);
        self.touch(parent);
        let node = Node {
            parent,
            name,
            value,
            perms,
            generation: self.next_generation(),
            children: Vec::new(),
            names_size: 0,
        };
        self.fill(id, node);
        Ok(id)
    }

    /// Finds a place for a node; [`Tree::fill`] takes it.
    fn reserve(&mut self) -> Result<NodeId, Error> {
        if let Some(id) = self.free {
            return Ok(id);
        }
        if self.chunks.last().is_none_or(|last| last.len() >= CHUNK) {
            let mut chunk = Vec::new();
            chunk.try_reserve_exact(CHUNK)?;
            self.chunks.try_push(chunk)?;
        }
        let full = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK);
        let last = self.chunks.last_mut().ok_or(Error::Enomem)?;
        let id = u32::try_from(full.saturating_add(last.len())).map_err(|_| Error::Enomem)?;
        last.try_push(Slot::Free { next: None })?;
        self.free = Some(NodeId(id));
        Ok(NodeId(id))
    }

    fn fill(&mut self, id: NodeId, node: Node) {
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        if let Slot::Free { next } = core::mem::replace(slot, Slot::Used(node)) {
            self.free = next;
        }
    }

    /// Gives a node another value; answers with the old one.
    pub(crate) fn set_value(&mut self, id: NodeId, value: Vec<u8>) -> Vec<u8> {
        self.touch(id);
        self.get_mut(id)
            .map(|node| core::mem::replace(&mut node.value, value))
            .unwrap_or_default()
    }

    /// Gives a node other permissions; answers with the old ones.
    pub(crate) fn set_perms(&mut self, id: NodeId, perms: Perms) -> Option<Perms> {
        self.touch(id);
        self.get_mut(id)
            .map(|node| core::mem::replace(&mut node.perms, perms))
    }

    /// Takes a node with all below it out of the tree, but keeps it for [`Tree::attach`],
    /// [`Tree::discard`] or [`Tree::free`]. The root stays.
    pub(crate) fn detach(&mut self, id: NodeId) {
        let Some(parent) = self.get(id).map(|node| node.parent) else {
            return;
        };
        let Ok(at) = self.search(parent, self.name(id)) else {
            return;
        };
        let size = self.name(id).len().saturating_add(1);
        self.touch(parent);
        if let Some(node) = self.get_mut(parent) {
            // The vector keeps its room, so that `attach` cannot fail.
            lists::remove(&mut node.children, at);
            node.names_size = node.names_size.saturating_sub(size);
        }
    }

    /// Puts a node that was just detached back.
    pub(crate) fn attach(&mut self, id: NodeId) {
        let Some(parent) = self.get(id).map(|node| node.parent) else {
            return;
        };
        let at = self.search(parent, self.name(id)).unwrap_or_else(|at| at);
        let size = self.name(id).len().saturating_add(1);
        if let Some(node) = self.get_mut(parent) {
            // There is room: see `detach`.
            let _ = lists::insert(&mut node.children, at, id);
            node.names_size = node.names_size.saturating_add(size);
        }
    }

    /// Frees a detached node and all below it, and shows each to `gone` first.
    pub(crate) fn free(&mut self, top: NodeId, mut gone: impl FnMut(&Node)) {
        let mut at = top;
        loop {
            let Some(node) = self.get_mut(at) else {
                return;
            };
            // Down to a node without children, which then goes.
            if let Some(child) = node.children.pop() {
                at = child;
                continue;
            }
            gone(node);
            let parent = node.parent;
            let next = self.free;
            if let Some(slot) = self.slot_mut(at) {
                *slot = Slot::Free { next };
                self.free = Some(at);
            }
            if at == top {
                return;
            }
            at = parent;
        }
    }

    /// Leaves a detached node and all below it to [`Tree::bury`].
    pub(crate) fn discard(&mut self, top: NodeId) {
        let next = match self.dead {
            None => {
                self.dead = Some(top);
                top
            }
            // Behind the first one, which may have been begun.
            Some(first) => {
                let Some(node) = self.get_mut(first) else {
                    return;
                };
                let next = core::mem::replace(&mut node.parent, top);
                if next == first { top } else { next }
            }
        };
        if let Some(node) = self.get_mut(top) {
            node.parent = next;
        }
    }

    /// Frees some of what was discarded, in `steps` steps down the trees and up again, and shows each
    /// node to `gone` first. True when nothing is left.
    pub(crate) fn bury(&mut self, steps: usize, mut gone: impl FnMut(&Node)) -> bool {
        for _ in 0..steps {
            let Some(top) = self.dead else { return true };
            let at = self.burying.unwrap_or(top);
            let free = self.free;
            let Some(slot) = self.slot_mut(at) else {
                return true;
            };
            let Slot::Used(node) = slot else { return true };
            if let Some(child) = node.children.pop() {
                self.burying = Some(child);
                continue;
            }
            gone(node);
            let above = node.parent;
            *slot = Slot::Free { next: free };
            self.free = Some(at);
            if at == top {
                self.dead = (above != top).then_some(above);
                self.burying = None;
            } else {
                self.burying = Some(above);
            }
        }
        self.dead.is_none()
    }

    /// Shows a node and all below it to `seen`, which says whether to go on.
    pub(crate) fn walk<'a>(&'a self, top: NodeId, mut seen: impl FnMut(&'a Node) -> bool) {
        let mut at = top;
        // The name of the child that was left last.
        let mut left: Option<&str> = None;
        loop {
            let Some(node) = self.get(at) else { return };
            if left.is_none() && !seen(node) {
                return;
            }
            let next = match left {
                None => 0,
                Some(name) => self.search(at, name).map_or(0, |at| at.saturating_add(1)),
            };
            if let Some(&child) = node.children.get(next) {
                at = child;
                left = None;
            } else if at == top {
                return;
            } else {
                left = Some(&node.name);
                at = node.parent;
            }
        }
    }

    fn next_generation(&mut self) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    fn touch(&mut self, id: NodeId) {
        let generation = self.next_generation();
        if let Some(node) = self.get_mut(id) {
            node.generation = generation;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ROOT, Tree};
    use crate::{Access, Path, Perms};
    use abi::DomId;
    use std::vec::Vec;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::new().unwrap();
        for path in paths {
            let path = Path::absolute(path).unwrap();
            let parent = tree.find(path.parent()).unwrap();
            let perms = Perms::new(DomId(1), Access::READ);
            tree.create(parent, path.name(), Vec::new(), perms).unwrap();
        }
        tree
    }

    fn names(tree: &Tree) -> Vec<&str> {
        let mut names = Vec::new();
        tree.walk(ROOT, |node| {
            names.push(node.name.as_str());
            true
        });
        names
    }

    #[test]
    fn nodes_are_found_and_walked_in_order() {
        let tree = tree(&["/b", "/a", "/a/z", "/a/x", "/a/x/1", "/c"]);
        assert_eq!(names(&tree), ["", "a", "x", "1", "z", "b", "c"]);
        assert!(tree.find(Path::absolute("/a/x/1").unwrap()).is_some());
        assert!(tree.find(Path::absolute("/a/y").unwrap()).is_none());
        let a = tree.find(Path::absolute("/a").unwrap()).unwrap();
        assert_eq!(tree.children(a).collect::<Vec<_>>(), ["x", "z"]);
        assert_eq!(tree.get(a).unwrap().names_size, 4);
    }

    #[test]
    fn a_subtree_goes_whole_and_its_places_serve_again() {
        let mut tree = tree(&["/a", "/a/x", "/a/x/1", "/a/x/2", "/b"]);
        let x = tree.find(Path::absolute("/a/x").unwrap()).unwrap();
        let slots = |tree: &Tree| tree.chunks.iter().map(Vec::len).sum::<usize>();
        let before = slots(&tree);
        tree.detach(x);
        assert_eq!(names(&tree), ["", "a", "b"]);
        tree.attach(x);
        assert_eq!(names(&tree), ["", "a", "x", "1", "2", "b"]);
        tree.detach(x);
        let mut gone = 0;
        tree.free(x, |_| gone += 1);
        assert_eq!((gone, tree.bury(1, |_| ())), (3, true));
        for name in ["p", "q", "r"] {
            let perms = Perms::new(DomId(1), Access::READ);
            tree.create(ROOT, name, Vec::new(), perms).unwrap();
        }
        assert_eq!(slots(&tree), before);
        assert_eq!(names(&tree), ["", "a", "b", "p", "q", "r"]);
    }

    #[test]
    fn what_is_discarded_goes_in_steps() {
        let mut tree = tree(&["/a", "/a/x", "/a/x/1", "/a/y", "/b", "/c", "/c/z"]);
        let slots = |tree: &Tree| tree.chunks.iter().map(Vec::len).sum::<usize>();
        let before = slots(&tree);
        let mut gone = Vec::new();
        for (number, top) in ["/a", "/b", "/c"].into_iter().enumerate() {
            let id = tree.find(Path::absolute(top).unwrap()).unwrap();
            tree.detach(id);
            tree.discard(id);
            // The first of them has been begun when the others come.
            assert_eq!(names(&tree).len(), [4, 3, 1][number]);
            assert!(!tree.bury(1, |node| gone.push(node.name.clone())));
        }
        while !tree.bury(2, |node| gone.push(node.name.clone())) {}
        assert_eq!(gone, ["y", "1", "x", "a", "z", "c", "b"]);
        assert!(tree.bury(1, |_| unreachable!()));
        for name in ["1", "2", "3", "4", "5", "6", "7"] {
            let perms = Perms::new(DomId(1), Access::READ);
            tree.create(ROOT, name, Vec::new(), perms).unwrap();
        }
        assert_eq!(slots(&tree), before);
    }

    #[test]
    fn every_change_has_a_generation_of_its_own() {
        let mut tree = tree(&["/a", "/a/x"]);
        let a = tree.find(Path::absolute("/a").unwrap()).unwrap();
        let x = tree.find(Path::absolute("/a/x").unwrap()).unwrap();
        let (of_a, of_x) = (
            tree.get(a).unwrap().generation,
            tree.get(x).unwrap().generation,
        );
        tree.set_value(x, Vec::from([1]));
        assert_eq!(tree.get(a).unwrap().generation, of_a);
        assert!(tree.get(x).unwrap().generation > of_x);
        tree.detach(x);
        assert!(tree.get(a).unwrap().generation > of_a);
    }
}
