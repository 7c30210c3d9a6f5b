//! The way to the xenstore: one page with a ring of bytes each way (`public/io/xs_wire.h`).
//!
//! [`Back`] is the store's end, [`Front`] a guest's; what the bytes mean is not their concern.
//! [`Client`] asks a guest's questions and takes the answers.

mod back;
mod client;
mod front;
mod nodes;

use abi::xs_wire::{REQ, REQ_CONS, REQ_PROD, RING_SIZE, RSP, RSP_CONS, RSP_PROD};

use crate::byte_ring::Layout;

pub use back::{Back, Fault};
pub use client::{Client, ClientError, Event};
pub use front::Front;
pub use nodes::Text;
pub(crate) use nodes::text;

/// The ring to the store.
const REQUESTS: Layout = Layout {
    data: REQ,
    size: RING_SIZE,
    cons: REQ_CONS,
    prod: REQ_PROD,
};
/// The ring from the store.
const REPLIES: Layout = Layout {
    data: RSP,
    size: RING_SIZE,
    cons: RSP_CONS,
    prod: RSP_PROD,
};
