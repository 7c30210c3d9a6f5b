//! An I/O ring: requests one way and responses the other, through the same entries
//! (`public/io/ring.h`).
//!
//! ```text
//!        published       private
//!  front req_prod  <---  req_prod   >= ...        indices run free, modulo 2^32
//!  back                  req_cons   >= rsp_prod   a response takes the entry of a request
//!  back  rsp_prod  <---  rsp_prod   >= ...        that was consumed, in whatever order
//!  front                 rsp_cons                 req_prod - rsp_cons <= entries, always
//! ```
//!
//! What each end has done is in its private indices; it only publishes them, and never reads them
//! back. The peer's index is read once for each look and believed only if it makes sense: if it
//! does not, the ring is [`Broken`] and its owner gives the connection up. An entry is copied out
//! once, and what the copy says is then checked by whoever knows its meaning.
//!
//! Neither end is told of everything: with `req_event` and `rsp_event` each says from which index
//! on it wants an event. [`index`] is that protocol.

mod back;
mod front;
mod index;
mod memory;
#[cfg(test)]
mod tests;

pub use back::Back;
pub use front::Front;
pub use memory::{MAX_PAGES, Memory};

/// The peer's index makes no sense: it claims entries that the ring does not have, or takes back
/// some that it gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;
