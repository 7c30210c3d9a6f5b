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

/// Makes room for one more and puts `item` at `at`, or at the end when `at` lies behind it.
///
/// # Errors
/// [`Error::Enomem`].
pub(crate) fn insert<T>(list: &mut Vec<T>, at: usize, item: T) -> Result<(), Error> {
    list.try_reserve(1)?;
    list.insert(at.min(list.len()), item);
    Ok(())
}
