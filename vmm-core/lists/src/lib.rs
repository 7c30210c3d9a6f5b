//! Lists that say when there is no memory, where the standard ones panic.
//!
//! `try_reserve` alone does not do: the compiler does not see that what follows it needs no more, so
//! the panic stays in the program. Here every step compares the length with the capacity once more,
//! which it does see, and which costs nothing beside the step itself.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::{TryReserveError, VecDeque};
use alloc::vec::Vec;

/// There is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

impl From<TryReserveError> for NoMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

/// Lists that grow at their end.
pub trait TryPush {
    /// What they hold.
    type Item;

    /// Adds an item at the end.
    ///
    /// # Errors
    /// [`NoMemory`]; the item is gone.
    fn try_push(&mut self, item: Self::Item) -> Result<(), NoMemory>;
}

impl<T> TryPush for Vec<T> {
    type Item = T;

    #[inline]
    fn try_push(&mut self, item: T) -> Result<(), NoMemory> {
        self.try_reserve(1)?;
        if self.len() == self.capacity() {
            return Err(NoMemory);
        }
        self.push(item);
        Ok(())
    }
}

impl<T> TryPush for VecDeque<T> {
    type Item = T;

    #[inline]
    fn try_push(&mut self, item: T) -> Result<(), NoMemory> {
        self.try_reserve(1)?;
        if self.len() == self.capacity() {
            return Err(NoMemory);
        }
        self.push_back(item);
        Ok(())
    }
}

/// Adds `bytes` at the end.
///
/// # Errors
/// [`NoMemory`]; nothing was added.
pub fn append(list: &mut Vec<u8>, bytes: &[u8]) -> Result<(), NoMemory> {
    list.try_reserve(bytes.len())?;
    if list.capacity().wrapping_sub(list.len()) < bytes.len() {
        return Err(NoMemory);
    }
    list.extend_from_slice(bytes);
    Ok(())
}

/// Makes a list of bytes `len` long, by zeros.
///
/// # Errors
/// [`NoMemory`]; it may have grown a part of the way.
pub fn grow_zeroed(list: &mut Vec<u8>, len: usize) -> Result<(), NoMemory> {
    const ZEROS: [u8; 64] = [0; 64];
    list.try_reserve_exact(len.saturating_sub(list.len()))?;
    while let Some(missing) = len.checked_sub(list.len()).filter(|missing| *missing != 0) {
        append(list, ZEROS.get(..missing).unwrap_or(&ZEROS))?;
    }
    Ok(())
}

/// Makes a list `len` long, by items that `make` gives.
///
/// # Errors
/// [`NoMemory`]; it may have grown a part of the way.
pub fn grow_to<T>(
    list: &mut Vec<T>,
    len: usize,
    mut make: impl FnMut() -> T,
) -> Result<(), NoMemory> {
    list.try_reserve_exact(len.saturating_sub(list.len()))?;
    while list.len() < len {
        list.try_push(make())?;
    }
    Ok(())
}

/// Puts an item at `at`, or at the end when `at` lies behind it.
///
/// # Errors
/// [`NoMemory`]; the item is gone.
pub fn insert<T>(list: &mut Vec<T>, at: usize, item: T) -> Result<(), NoMemory> {
    list.try_push(item)?;
    // The last one goes to `at`, and each from there on one place up.
    let mut tail = list.get_mut(at..).unwrap_or_default().iter_mut();
    if let Some(first) = tail.next() {
        tail.for_each(|place| core::mem::swap(first, place));
    }
    Ok(())
}

/// Takes the item at `at` out, if there is one; the others keep their order.
pub fn remove<T>(list: &mut Vec<T>, at: usize) -> Option<T> {
    // The one at `at` goes to the end, and each behind it one place down.
    let mut tail = list.get_mut(at..)?.iter_mut().rev();
    let last = tail.next()?;
    tail.for_each(|place| core::mem::swap(last, place));
    list.pop()
}

#[cfg(test)]
mod tests {
    use super::{TryPush, append, grow_to, grow_zeroed, insert, remove};
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    #[test]
    fn items_come_and_go_in_their_places() {
        for at in 0..6 {
            let mut list = Vec::from([0, 1, 2, 3]);
            insert(&mut list, at, 9).unwrap();
            let mut expected = Vec::from([0, 1, 2, 3]);
            expected.insert(at.min(4), 9);
            assert_eq!(list, expected);
            assert_eq!(remove(&mut list, at.min(4)), Some(9));
            assert_eq!(list, [0, 1, 2, 3]);
        }
        assert_eq!(remove(&mut Vec::from([1, 2]), 2), None);
    }

    #[test]
    fn lists_grow_at_their_end() {
        let mut bytes = Vec::from([1]);
        append(&mut bytes, &[2, 3]).unwrap();
        bytes.try_push(4).unwrap();
        grow_to(&mut bytes, 6, || 5).unwrap();
        grow_to(&mut bytes, 2, || 6).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 5]);
        for len in [5, 70, 200] {
            let expected = bytes
                .iter()
                .copied()
                .chain([0; 200])
                .take(len.max(bytes.len()));
            let expected: Vec<u8> = expected.collect();
            grow_zeroed(&mut bytes, len).unwrap();
            assert_eq!(bytes, expected);
        }
        let mut queue = VecDeque::from([1]);
        queue.pop_front();
        (2..9).for_each(|item| queue.try_push(item).unwrap());
        assert!(queue.iter().copied().eq(2..9));
    }

    #[test]
    fn what_no_memory_has_room_for_is_refused() {
        let mut list: Vec<u64> = Vec::new();
        assert!(grow_to(&mut list, usize::MAX, || 0).is_err());
        assert!(list.is_empty());
    }
}
