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
    if let Some(tail @ [_, ..]) = list.get_mut(at..) {
        tail.rotate_right(1);
    }
    Ok(())
}

/// Takes the item at `at` out, if there is one; the others keep their order.
pub(crate) fn remove<T>(list: &mut Vec<T>, at: usize) -> Option<T> {
    let tail @ [_, ..] = list.get_mut(at..)? else {
        return None;
    };
    tail.rotate_left(1);
    list.pop()
}
