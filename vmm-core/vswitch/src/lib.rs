//! The switch between network interfaces: who hears a frame, and who may send it.
//!
//! Pure logic: it knows no rings, no grants and no clock, and sees of a frame the first
//! [`WINDOW`] bytes, which its user has copied from the sender and delivers as they are.
//!
//! ```text
//!  sender's                                                             receiver's
//!  Filter --> Bucket --> Network::route --> one port, or all that hear --> Filter
//!  may it    not too     is it really from   (Network::next_hearer)      does it
//!  say this?  much?      there, and where                                want this?
//!                        does it go?
//! ```
//!
//! * [`Network`]: the ports of one network, the addresses behind them, and routing.
//! * [`Ethernet`], [`Packet`]: what a frame says of itself.
//! * [`Filter`], [`Bucket`]: an interface's rules and its rate limit.
//! * [`flow()`]: which of a receiver's queues a frame goes to.
//! * [`Counters`]: what became of its frames.
//! * [`Segments`], [`fill_in_checksum`]: what guests leave to each other and the world outside does
//!   not do for them.
//!
//! A frame is any bytes at all, and its sender may try to be heard as another, to hear what is for
//! others, or to make the switch forget them. So a port has an address of its own, which nobody
//! else can take, and learns others only as far as it is allowed to; a table is searched by
//! bisection, so that no choice of addresses makes it slow.
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

mod bucket;
mod checksum;
mod counters;
mod ethernet;
mod filter;
mod flow;
mod groups;
mod layout;
mod network;
mod packet;
mod segments;
mod table;
#[cfg(test)]
mod tests;

pub use bucket::Bucket;
pub use checksum::fill_in_checksum;
pub use counters::{Counters, Reason};
pub use ethernet::{Ethernet, WINDOW};
pub use filter::Filter;
pub use flow::flow;
pub use groups::{MAX_GROUPS, TooManyGroups};
pub use network::{
    AttachError, Destination, MAX_OUTSIDE, MAX_PORTS, Network, NotItsAddress, PortId,
};
pub use packet::{Malformed, Packet};
pub use segments::{Segment, Segments};
