//! A binary heap whose members know their places, so that any of them can be taken out in
//! logarithmic time. It allocates in [`Heap::reserve`] alone.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use invariant::{OrBroken, invariant};
use lists::TryPush as _;

/// Where a member sits in the heap that it is in; kept by the heap.
#[derive(Debug, Default)]
pub struct Seat(AtomicU32);

impl Seat {
    /// The seat of what is in no heap.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }

    fn set(&self, index: usize) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.0.store(index, Ordering::Relaxed);
    }
}

/// What a heap holds. A member is in one heap at a time.
pub trait Seated {
    /// Its seat.
    fn seat(&self) -> &Seat;
    /// True when both are the same member.
    fn is(&self, other: &Self) -> bool;
}

/// Members in the order of their keys, the least first.
#[derive(Debug)]
pub struct Heap<K, T> {
    entries: Vec<(K, T)>,
}

impl<K, T> Heap<K, T> {
    /// An empty heap.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<K, T> Default for Heap<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, T: Seated> Heap<K, T> {
    /// Makes room for `members` in all.
    ///
    /// # Errors
    /// When memory is short.
    pub fn reserve(&mut self, members: usize) -> Result<(), TryReserveError> {
        let more = members.saturating_sub(self.entries.len());
        self.entries.try_reserve(more)
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The member with the least key.
    #[must_use]
    pub fn first(&self) -> Option<&(K, T)> {
        self.entries.first()
    }

    /// All members, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &(K, T)> {
        self.entries.iter()
    }

    /// Adds a member that is in no heap, for which there is room; true when it is now the first.
    pub fn insert(&mut self, key: K, member: T) -> bool {
        let index = self.entries.len();
        let room = self.entries.try_push((key, member));
        room.or_broken("room was made for every member");
        self.rise(index) == 0
    }

    /// Takes the first member.
    pub fn pop(&mut self) -> Option<(K, T)> {
        (!self.entries.is_empty()).then(|| self.take(0))
    }

    /// Takes the first of those members that are `wanted`; looks at all of them unless the first
    /// of all is one.
    pub fn pop_of(&mut self, wanted: impl Fn(&T) -> bool) -> Option<(K, T)> {
        let (_, first) = self.first()?;
        if wanted(first) {
            return self.pop();
        }
        let all = (0..usize::MAX).zip(&self.entries);
        let wanted = all.filter(|(_, (_, member))| wanted(member));
        let (index, _) = wanted.min_by(|(_, (a, _)), (_, (b, _))| a.cmp(b))?;
        Some(self.take(index))
    }

    /// Takes a member, if it is in this heap.
    pub fn remove(&mut self, member: &T) -> Option<(K, T)> {
        let index = member.seat().get();
        let (_, found) = self.entries.get(index)?;
        found.is(member).then(|| self.take(index))
    }

    /// Takes the member at `index`, which is in range.
    fn take(&mut self, index: usize) -> (K, T) {
        invariant!(index < self.entries.len(), "a member has a place");
        let taken = self.entries.swap_remove(index);
        if index < self.entries.len() && (index == 0 || self.rise(index) == index) {
            self.sink(index);
        }
        taken
    }

    fn entry(&self, index: usize) -> &(K, T) {
        self.entries.get(index).or_broken("a place in the heap")
    }

    fn precedes(&self, a: usize, b: usize) -> bool {
        self.entry(a).0 < self.entry(b).0
    }

    fn seat(&self, index: usize) {
        self.entry(index).1.seat().set(index);
    }

    /// Moves an entry up to where it belongs; answers where that is.
    fn rise(&mut self, mut index: usize) -> usize {
        while index > 0 {
            let parent = (index - 1) / 2;
            if !self.precedes(index, parent) {
                break;
            }
            self.entries.swap(index, parent);
            self.seat(index);
            index = parent;
        }
        self.seat(index);
        index
    }

    fn sink(&mut self, mut index: usize) {
        loop {
            let left = index.saturating_mul(2).saturating_add(1);
            if left >= self.entries.len() {
                break;
            }
            let right = left.saturating_add(1);
            let right_first = right < self.entries.len() && self.precedes(right, left);
            let child = if right_first { right } else { left };
            if !self.precedes(child, index) {
                break;
            }
            self.entries.swap(index, child);
            self.seat(index);
            index = child;
        }
        self.seat(index);
    }
}

#[cfg(test)]
mod tests {
    use super::{Heap, Seat, Seated};
    use alloc::collections::BTreeSet;
    use alloc::rc::Rc;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    struct Member {
        id: usize,
        seat: Seat,
    }

    impl Seated for Rc<Member> {
        fn seat(&self) -> &Seat {
            &self.seat
        }

        fn is(&self, other: &Self) -> bool {
            self.id == other.id
        }
    }

    proptest! {
        #[test]
        fn it_keeps_the_order_of_a_sorted_set(
            steps in proptest::collection::vec((0usize..12, 0u64..20, 0u8..4), 0..200),
        ) {
            let members: Vec<_> = (0..12)
                .map(|id| Rc::new(Member { id, seat: Seat::new() }))
                .collect();
            let mut heap = Heap::new();
            heap.reserve(12).unwrap();
            let room = heap.entries.capacity();
            let mut model = BTreeSet::new();
            for (id, key, step) in steps {
                let there = model.iter().find(|(_, other)| *other == id).copied();
                match step {
                    0 if there.is_none() => {
                        let first = heap.insert((key, id), Rc::clone(&members[id]));
                        model.insert((key, id));
                        prop_assert_eq!(first, model.first() == Some(&(key, id)));
                    }
                    1 => {
                        let removed = heap.remove(&members[id]).map(|(key, _)| key);
                        prop_assert_eq!(removed, there);
                        if let Some(there) = there {
                            model.remove(&there);
                        }
                    }
                    2 => prop_assert_eq!(heap.pop().map(|(key, _)| key), model.pop_first()),
                    3 => {
                        let odd = model.iter().find(|(_, other)| other % 2 == 1).copied();
                        let taken = heap.pop_of(|member| member.id % 2 == 1);
                        prop_assert_eq!(taken.map(|(key, _)| key), odd);
                        if let Some(odd) = odd {
                            model.remove(&odd);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(heap.first().map(|(key, _)| *key), model.first().copied());
                prop_assert_eq!(heap.len(), model.len());
                prop_assert_eq!(heap.is_empty(), model.is_empty());
            }
            prop_assert_eq!(heap.entries.capacity(), room);
        }
    }
}
