//! Network interfaces (`public/io/netif.h`), both ends. The back end's side of both rings:
//!
//! ```text
//!  sender's pages --grant--> Tx::take --> Frame --> Rx::deliver --grant--> receiver's pages
//!                            first bytes, copied    the same bytes, and the rest page to page
//! ```
//!
//! [`Tx`] puts a frame together from the slots of its sender's ring and copies its first
//! [`HEAD`] bytes, which whoever routes it may look at: [`Rx`] delivers that very copy. The rest
//! goes from page to page once, and nobody relies on what it says. Checksums and segmentation that
//! the sender left to others are passed on to the receiver as they are; for one that does not take
//! blank checksums they are made whole.
//!
//! Both see of the front ends what a driver domain would see: rings and [`Grants`].
//!
//! The front end's side are [`Sender`] and [`Receiver`]; [`Front`] is the interface that a guest
//! uses, by way of [`FrontEnd`], and with the feature `smoltcp` a device for that.
//!
//! [`FrontEnd`]: crate::xenbus::FrontEnd
//! [`Grants`]: crate::grants::Grants

mod checksum;
mod frame;
mod front;
#[cfg(test)]
mod front_tests;
pub mod offload;
mod receiver;
mod rx;
mod sender;
#[cfg(feature = "smoltcp")]
pub mod stack;
#[cfg(test)]
mod tests;
mod tx;

pub use front::{Front, InterfaceFront, Mac, Pages, parse_mac};
pub use receiver::{Checksum, Received, Receiver};
pub use sender::{NotSent, Sender};

pub use frame::{Frame, Gso, HEAD, MAX_FRAME, MIN_FRAME};
pub use rx::{Offers, Rx, Undelivered};
pub use tx::{Taken, Tx, Unusable};
