//! An interface's rules.

use alloc::vec::Vec;
use core::net::IpAddr;

use system::network::{Action, Direction, PortRange, Prefix, Rule};

use crate::packet::{Malformed, Packet};

/// The rules of one interface, of which the first that fits decides.
#[derive(Debug, Default)]
pub struct Filter {
    rules: Vec<Rule>,
    otherwise: Action,
}

impl Filter {
    /// The rules in their order, and what becomes of a packet that none of them fits.
    #[must_use]
    pub const fn new(rules: Vec<Rule>, otherwise: Action) -> Self {
        Self { rules, otherwise }
    }

    /// True when every packet may pass: there is no need to look at one.
    #[inline]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.rules.is_empty() && matches!(self.otherwise, Action::Allow)
    }

    /// True when a frame may pass, of `length` bytes of which `window` are the first. A malformed
    /// one may only where there are no rules.
    #[must_use]
    pub fn passes(&self, direction: Direction, window: &[u8], length: usize) -> bool {
        if self.is_open() {
            return true;
        }
        match Packet::parse(window, length) {
            Ok(packet) => self.verdict(direction, &packet) == Action::Allow,
            Err(Malformed) => false,
        }
    }

    fn verdict(&self, direction: Direction, packet: &Packet) -> Action {
        let fitting = self.rules.iter().find(|rule| fits(rule, direction, packet));
        fitting.map_or(self.otherwise, |rule| rule.action)
    }
}

fn fits(rule: &Rule, direction: Direction, packet: &Packet) -> bool {
    let (source, destination) = packet.addresses.unzip();
    let (source_port, destination_port) = packet.ports.unzip();
    rule.direction.is_none_or(|wanted| wanted == direction)
        && rule.ethertype.is_none_or(|kind| kind == packet.ethertype)
        && (rule.protocol.is_none() || rule.protocol == packet.protocol)
        && in_prefix(rule.source, source)
        && in_prefix(rule.destination, destination)
        && in_range(rule.source_port, source_port)
        && in_range(rule.destination_port, destination_port)
}

fn in_prefix(wanted: Option<Prefix>, address: Option<IpAddr>) -> bool {
    wanted.is_none_or(|prefix| address.is_some_and(|address| prefix.contains(address)))
}

fn in_range(wanted: Option<PortRange>, port: Option<u16>) -> bool {
    wanted.is_none_or(|range| port.is_some_and(|port| range.contains(port)))
}
