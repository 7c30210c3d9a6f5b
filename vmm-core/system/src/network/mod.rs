//! Networks in words of the configuration: addresses, and what a guest may send and hear.
//!
//! * [`MacAddr`]: the address of a network interface.
//! * [`Rule`]: one line of an interface's packet filter.

mod mac;
mod rule;

pub use mac::MacAddr;
pub use rule::{Action, Direction, PortRange, Prefix, Rule};
