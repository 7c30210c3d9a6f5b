//! One network: its ports, the addresses behind them, and where a frame goes.

use alloc::vec::Vec;

use lists::{NoMemory, TryPush as _};
use system::network::MacAddr;

use crate::ethernet::Ethernet;
use crate::groups::{Groups, TooManyGroups};
use crate::table::{Known, Table};

/// The most ports of one network.
pub const MAX_PORTS: usize = 4096;
/// The most addresses outside that are remembered at a time.
pub const MAX_OUTSIDE: u16 = 1024;

/// The number of a port in its network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortId(u16);

impl PortId {
    /// The number; a low one, so that a list by it is short.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To this port.
    Port(PortId),
    /// To every port that [`Network::next_hearer`] names.
    Hearers,
    /// To nobody.
    Nobody,
}

/// A frame's source is no address of the port that it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotItsAddress;

/// Why a port cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// The address is that of a group, or all zeros.
    NoStation,
    /// Another port has this address, or is the uplink.
    Taken,
    /// There are [`MAX_PORTS`].
    Full,
    /// There is no memory.
    NoMemory,
}

impl From<NoMemory> for AttachError {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

#[derive(Debug)]
struct Port {
    /// Its own address; the uplink has none.
    address: Option<MacAddr>,
    /// Addresses that it may have besides its own.
    limit: u16,
    /// How many it has.
    learned: u16,
    /// The second at which its old addresses were last looked for.
    swept: u32,
    groups: Groups,
}

/// A network.
#[derive(Debug, Default)]
pub struct Network {
    ports: Vec<Option<Port>>,
    table: Table,
}

impl Network {
    /// A network without ports.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ports: Vec::new(),
            table: Table::new(),
        }
    }

    /// Adds a port with an address of its own, behind which up to `limit` further addresses may
    /// be found. Whoever else was known by that address is forgotten.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&mut self, address: MacAddr, limit: u16) -> Result<PortId, AttachError> {
        if !address.is_station() {
            return Err(AttachError::NoStation);
        }
        let known = self.table.find(address).copied();
        if known.is_some_and(|entry| entry.known == Known::Own) {
            return Err(AttachError::Taken);
        }
        let id = self.add(Some(address), limit)?;
        if let Some(entry) = known {
            self.forget(address, entry.port);
        }
        self.table.insert(address, id, Known::Own);
        Ok(id)
    }

    /// Adds the port behind which the world outside is: any address that is nobody's here may be
    /// there, and what is for an unknown address goes there. Up to [`MAX_OUTSIDE`] addresses are
    /// remembered, so that nobody here can take them and nobody else hears what is for them.
    ///
    /// # Errors
    /// [`AttachError`]; a network has one.
    pub fn attach_uplink(&mut self) -> Result<PortId, AttachError> {
        if self
            .ports
            .iter()
            .flatten()
            .any(|port| port.address.is_none())
        {
            return Err(AttachError::Taken);
        }
        // With room for interfaces, so that those that come and go leave no more memory taken.
        self.table
            .reserve(usize::from(MAX_OUTSIDE).saturating_mul(2))?;
        self.add(None, MAX_OUTSIDE)
    }

    fn add(&mut self, address: Option<MacAddr>, limit: u16) -> Result<PortId, AttachError> {
        let free = self.ports.iter().position(Option::is_none);
        let index = free.unwrap_or(self.ports.len());
        let id = match u16::try_from(index) {
            Ok(id) if index < MAX_PORTS => PortId(id),
            _ => return Err(AttachError::Full),
        };
        let others = self.ports.iter().flatten().map(|port| port.limit);
        let limits = others.chain([limit]).map(usize::from);
        let addresses = limits.fold(0, |sum: usize, limit| {
            sum.saturating_add(limit).saturating_add(1)
        });
        self.table.reserve(addresses)?;
        self.ports.try_reserve(1).map_err(NoMemory::from)?;
        let port = Port {
            address,
            limit,
            learned: 0,
            swept: 0,
            groups: Groups::default(),
        };
        match self.ports.get_mut(index) {
            Some(place) => *place = Some(port),
            None => self.ports.try_push(Some(port))?,
        }
        Ok(id)
    }

    /// Removes a port with all its addresses.
    pub fn detach(&mut self, id: PortId) {
        if let Some(place) = self.ports.get_mut(id.index()) {
            *place = None;
        }
        self.table.remove(|entry| entry.port == id);
    }

    /// Where a frame goes that came from the port `from` at the second `now`; learns where its
    /// source is.
    ///
    /// # Errors
    /// [`NotItsAddress`]: the frame must not go anywhere.
    #[inline]
    pub fn route(
        &mut self,
        from: PortId,
        frame: Ethernet,
        now: u32,
    ) -> Result<Destination, NotItsAddress> {
        let port = self.port(from).ok_or(NotItsAddress)?;
        if Some(frame.source) != port.address {
            self.learn(from, frame.source, now)?;
        }
        let destination = frame.destination;
        if destination.is_group() {
            return Ok(if is_link_local(destination) {
                Destination::Nobody
            } else {
                Destination::Hearers
            });
        }
        Ok(match self.table.find(destination) {
            Some(entry) if entry.port == from => Destination::Nobody,
            Some(entry) => Destination::Port(entry.port),
            None => Destination::Hearers,
        })
    }

    /// The port with the lowest number above `after` that hears a frame for `destination`, a
    /// group or an address that is not known, from the port `from`.
    ///
    /// A port that has no address but its own hears nothing that is for an unknown one.
    #[must_use]
    pub fn next_hearer(
        &self,
        from: PortId,
        destination: MacAddr,
        after: Option<PortId>,
    ) -> Option<PortId> {
        let first = after.map_or(0, |after| after.index().saturating_add(1));
        let hears = |port: &Port| {
            if destination == MacAddr::BROADCAST {
                true
            } else if destination.is_group() {
                port.groups.hear(destination)
            } else {
                port.limit > 0
            }
        };
        let ports = (0..=u16::MAX).map(PortId).zip(&self.ports).skip(first);
        ports
            .filter_map(|(id, port)| Some((id, port.as_ref()?)))
            .find(|&(id, port)| id != from && hears(port))
            .map(|(id, _)| id)
    }

    /// Lets a port choose the groups it hears, or, at first and when not `selective`, hear all.
    /// Its list is empty then.
    pub fn select_groups(&mut self, id: PortId, selective: bool) {
        if let Some(port) = self.port_mut(id) {
            port.groups = Groups::new(selective);
        }
    }

    /// Adds a group to those that a port chooses.
    ///
    /// # Errors
    /// [`TooManyGroups`].
    pub fn join(&mut self, id: PortId, group: MacAddr) -> Result<(), TooManyGroups> {
        self.port_mut(id)
            .map_or(Ok(()), |port| port.groups.add(group))
    }

    /// Takes a group from those that a port chooses.
    pub fn leave(&mut self, id: PortId, group: MacAddr) {
        if let Some(port) = self.port_mut(id) {
            port.groups.remove(group);
        }
    }

    /// Sees to it that `address` is known to be behind the port `from`, whose own it is not.
    fn learn(&mut self, from: PortId, address: MacAddr, now: u32) -> Result<(), NotItsAddress> {
        let port = self.port(from).ok_or(NotItsAddress)?;
        let is_uplink = port.address.is_none();
        if port.limit == 0 || !address.is_station() {
            return Err(NotItsAddress);
        }
        match self.table.find_mut(address) {
            Some(entry) if entry.port == from => {
                entry.known = Known::Since(now);
                return Ok(());
            }
            // Another's, as long as that one uses it.
            Some(entry) if !entry.is_old(now) => return Err(NotItsAddress),
            Some(entry) => {
                let other = entry.port;
                self.forget(address, other);
            }
            None => {}
        }
        if !self.has_room(from, now) {
            // Nobody says how many there are outside.
            return if is_uplink {
                Ok(())
            } else {
                Err(NotItsAddress)
            };
        }
        if let Some(port) = self.port_mut(from) {
            port.learned = port.learned.saturating_add(1);
        }
        self.table.insert(address, from, Known::Since(now));
        Ok(())
    }

    /// True when the port may have one more address; forgets its old ones for that. Looks for them
    /// once a second at most, since the sender of a frame is behind every look.
    fn has_room(&mut self, id: PortId, now: u32) -> bool {
        let Some(port) = self.ports.get_mut(id.index()).and_then(Option::as_mut) else {
            return false;
        };
        if port.learned >= port.limit && port.swept != now {
            port.swept = now;
            let gone = self
                .table
                .remove(|entry| entry.port == id && entry.is_old(now));
            port.learned = port.learned.saturating_sub(gone);
        }
        port.learned < port.limit
    }

    /// Forgets an address that was learned behind a port.
    fn forget(&mut self, address: MacAddr, id: PortId) {
        self.table.take(address);
        if let Some(port) = self.port_mut(id) {
            port.learned = port.learned.saturating_sub(1);
        }
    }

    /// Addresses that are known.
    #[cfg(test)]
    pub(crate) fn addresses(&self) -> usize {
        self.table.len()
    }

    fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())?.as_ref()
    }

    fn port_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(id.index())?.as_mut()
    }
}

/// True for the groups that concern one cable only, such as those of spanning trees, pauses and
/// LLDP; no bridge passes them on (IEEE 802.1Q, "Reserved addresses").
const fn is_link_local(group: MacAddr) -> bool {
    matches!(group.0, [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00..=0x0f])
}
