//! Networks, and the interfaces that domains have on them.
//!
//! * [`NetworkConfig`], [`VifConfig`]: what there is.
//! * [`UplinkConfig`], [`Nic`]: the network card behind which the world outside is.
//! * [`MacAddr`]: the address of a network interface.
//! * [`Rule`]: one line of an interface's packet filter.

mod config;
mod mac;
mod nic;
mod rule;

pub(crate) use config::mistake;
pub use config::{
    MAX_BURST, MAX_MORE_ADDRESSES, MAX_NETWORKS, MAX_RATE, MAX_RULES, MAX_VIFS, MIN_BURST,
    MIN_RATE, NetworkConfig, Rate, VifConfig,
};
pub use mac::MacAddr;
pub use nic::{Nic, PciAddress, UplinkConfig};
pub use rule::{Action, Direction, PortRange, Prefix, Rule};
