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
    lists::append(&mut copy, bytes)?;
    Ok(copy)
}

/// A copy of `text`.
///
/// # Errors
/// [`Error::Enomem`].
pub(crate) fn string(text: &str) -> Result<String, Error> {
    String::from_utf8(bytes(text.as_bytes())?).map_err(|_| Error::Enomem)
}
