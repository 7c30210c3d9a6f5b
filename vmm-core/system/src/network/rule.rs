//! One line of a packet filter.

use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Action {
    /// It goes on.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

/// Which way a packet goes, as the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Direction {
    /// To the guest.
    In,
    /// From the guest.
    Out,
}

/// A range of IP addresses: those whose first bits are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prefix {
    /// Any address of the range.
    pub address: IpAddr,
    /// How many bits count, up to 32 for IPv4 and 128 for IPv6.
    pub bits: u8,
}

impl Prefix {
    /// True when the address has as many bits as count.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.bits <= width(self.address)
    }

    /// True for an address of the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let ignored = u32::from(width(self.address).saturating_sub(self.bits));
        // A shift by the whole width leaves nothing to differ.
        let same = |differ: u128| differ.checked_shr(ignored).unwrap_or(0) == 0;
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u128::from(a.to_bits() ^ b.to_bits())),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits() ^ b.to_bits()),
            _ => false,
        }
    }
}

/// The bits of an address.
const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// A range of port numbers, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// True for a port of the range.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// Which packets, and what becomes of them. Of an absent part any value will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rule {
    /// What becomes of a packet that has all the parts.
    pub action: Action,
    /// Which way it goes.
    pub direction: Option<Direction>,
    /// The type of the Ethernet frame, behind tags of virtual LANs.
    pub ethertype: Option<u16>,
    /// The protocol in an IP packet.
    pub protocol: Option<u8>,
    /// Where an IP packet comes from; in ARP, who speaks.
    pub source: Option<Prefix>,
    /// Where an IP packet goes to; in ARP, who is asked for.
    pub destination: Option<Prefix>,
    /// The port it comes from, of TCP, UDP, SCTP and the like.
    pub source_port: Option<PortRange>,
    /// The port it goes to.
    pub destination_port: Option<PortRange>,
}

impl Rule {
    /// True when its addresses and ports are such as can be.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let mut prefixes = [self.source, self.destination].into_iter().flatten();
        let mut ports = [self.source_port, self.destination_port]
            .into_iter()
            .flatten();
        prefixes.all(|prefix| prefix.is_valid()) && ports.all(|range| range.first <= range.last)
    }
}

#[cfg(test)]
mod tests {
    use super::{PortRange, Prefix};

    fn prefix(address: &str, bits: u8) -> Prefix {
        let address = address.parse().unwrap();
        Prefix { address, bits }
    }

    fn has(range: Prefix, address: &str) -> bool {
        range.contains(address.parse().unwrap())
    }

    #[test]
    fn a_prefix_has_the_addresses_that_begin_with_it() {
        let net = prefix("10.1.2.3", 24);
        assert!(has(net, "10.1.2.255") && !has(net, "10.1.3.0") && !has(net, "::"));
        assert!(has(prefix("10.1.2.3", 0), "255.0.0.1"));
        let host = prefix("10.1.2.3", 32);
        assert!(has(host, "10.1.2.3") && !has(host, "10.1.2.2"));
        let net = prefix("fd00::1", 64);
        assert!(has(net, "fd00::ffff:0:0:2") && !has(net, "fd00:0:0:1::1"));
        assert!(has(prefix("::", 0), "ffff::1") && !has(prefix("::", 0), "1.2.3.4"));
        assert!(has(prefix("::1", 128), "::1") && !has(prefix("::1", 128), "::2"));
        assert!(!prefix("10.0.0.0", 33).is_valid() && prefix("::", 128).is_valid());
    }

    #[test]
    fn both_ends_belong_to_a_range() {
        let range = PortRange {
            first: 80,
            last: 81,
        };
        assert!(range.contains(80) && range.contains(81));
        assert!(!range.contains(79) && !range.contains(82));
    }
}
