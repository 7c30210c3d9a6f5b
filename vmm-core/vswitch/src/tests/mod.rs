//! The switch and its parts as their users meet them.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "tests choose their own numbers"
)]

mod bucket;
mod filter;
mod model;
mod network;
mod offload;
mod packet;
mod uplink;

use system::network::MacAddr;

use crate::{Ethernet, Network, PortId};

/// The address that ends in `last`, of a station.
pub(super) const fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

/// A frame's head.
pub(super) const fn frame(source: MacAddr, destination: MacAddr) -> Ethernet {
    Ethernet {
        destination,
        source,
    }
}

/// All who hear a frame for `destination` from a port.
pub(super) fn hearers(
    network: &Network,
    from: PortId,
    destination: MacAddr,
) -> std::vec::Vec<PortId> {
    let next = |after| network.next_hearer(from, destination, after);
    core::iter::successors(next(None), |&port| next(Some(port))).collect()
}
