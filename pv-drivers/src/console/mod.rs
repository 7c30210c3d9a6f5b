//! The paravirtual console (`public/io/console.h`): one page with a ring each way.
//!
//! [`Back`] serves the ring for the side that has the terminal, [`Front`] is the guest's half.
//! Neither knows how the other is notified: results say when a notification is due. [`Client`] is a
//! guest's console, which notifies.

mod back;
mod client;
mod front;

use abi::console::{IN, IN_CONS, IN_PROD, IN_SIZE, OUT, OUT_CONS, OUT_PROD, OUT_SIZE};

use crate::byte_ring::Layout;

pub use back::{Back, Drained};
pub use client::Client;
pub use front::Front;

/// The ring to the guest.
const INPUT: Layout = Layout {
    data: IN,
    size: IN_SIZE,
    cons: IN_CONS,
    prod: IN_PROD,
};
/// The ring from the guest.
const OUTPUT: Layout = Layout {
    data: OUT,
    size: OUT_SIZE,
    cons: OUT_CONS,
    prod: OUT_PROD,
};
