//! The xenstore: a tree of small values through which domains and back ends find each other
//! (Xen, `docs/misc/xenstore.txt`; messages in `public/io/xs_wire.h`).
//!
//! A pure state machine. Bytes of a domain's ring go into its [`Inbox`], [`Store::process`]
//! carries out one complete request, and what is to be sent waits in the [`Outbox`]es. It knows
//! no rings, no event channels and no clock.
//!
//! * [`Store`]: the tree, the connections, and what a request does.
//! * [`Tree`](tree): the nodes. [`Transaction`](transaction): a domain's changes until commit.
//! * [`Path`], [`Perms`], [`Quotas`]: the rules that every request meets.
//!
//! Every byte of a request is hostile. Memory that a guest can make the store take is charged to
//! its [`Quotas`] and allocated so that it can fail: an allocation that fails is `ENOMEM` for that
//! request, and the tree is what it was before.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod connection;
mod control;
mod error;
mod message;
mod path;
mod perms;
mod quota;
mod request;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod text;
mod transaction;
mod tree;
mod watch;

pub use control::Control;
pub use error::Error;
pub use message::{Inbox, Outbox, Oversized};
pub use path::{Path, PathBuf};
pub use perms::{Access, Perms};
pub use quota::Quotas;
pub use store::Store;
