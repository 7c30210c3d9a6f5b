//! Copies on the heap that can fail.

use alloc::string::String;
use alloc::vec::Vec;

use crate::Error;

/// A copy of `bytes`.
///
/// # Errors
/// [`Error::Enomem`].
pub(crate) fn bytes(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// A copy of `text`.
///
/// # Errors
/// [`Error::Enomem`].
pub(crate) fn string(text: &str) -> Result<String, Error> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len())?;
    copy.push_str(text);
    Ok(copy)
}

/// Adds `bytes` at the end.
///
/// # Errors
/// [`Error::Enomem`].
pub(crate) fn append(list: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    list.try_reserve(bytes.len())?;
    list.extend_from_slice(bytes);
    Ok(())
}

/// Makes room for one more and puts `item` at `at`, or at the end when `at` lies behind it.
///
/// # Errors
/// [`Error::Enomem`].
pub(crate) fn insert<T>(list: &mut Vec<T>, at: usize, item: T) -> Result<(), Error> {
    list.try_reserve(1)?;
    list.push(item);
    // The last one goes to `at`, and each from there on one place up.
    let mut tail = list.get_mut(at..).unwrap_or_default().iter_mut();
    if let Some(first) = tail.next() {
        tail.for_each(|place| core::mem::swap(first, place));
    }
    Ok(())
}

/// Takes the item at `at` out, if there is one; the others keep their order.
pub(crate) fn remove<T>(list: &mut Vec<T>, at: usize) -> Option<T> {
    // The one at `at` goes to the end, and each behind it one place down.
    let mut tail = list.get_mut(at..)?.iter_mut().rev();
    let last = tail.next()?;
    tail.for_each(|place| core::mem::swap(last, place));
    list.pop()
}

#[cfg(test)]
mod tests {
    use super::{insert, remove};
    use std::vec::Vec;

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
}
