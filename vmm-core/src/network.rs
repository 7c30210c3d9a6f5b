//! The networks of the host: one switch each, and which domain's interface is at which port.
//!
//! They are there as long as the hypervisor runs. An interface is at a port while its front end is
//! connected ([`backend`](crate::backend)).
//!
//! A network's lock is taken for a question and never kept: frames are copied outside of it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use alloc::vec::Vec;

use abi::DomId;
use spin::{Mutex, Once};
use system::network::{MacAddr, NetworkConfig};
use vswitch::{Destination, Ethernet, NotItsAddress, PortId, TooManyGroups};

use crate::time::{Tsc, tsc_khz};

static NETWORKS: Once<Vec<Network>> = Once::new();

/// An interface: a device of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The domain.
    pub domain: DomId,
    /// The device's place in its list.
    pub device: u16,
}

/// A network.
#[derive(Debug)]
pub struct Network(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    switch: vswitch::Network,
    /// Who is at which port, by the port's index.
    members: Vec<Option<Member>>,
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To this interface.
    One(Member),
    /// To all that [`Network::next_hearer`] names.
    Hearers,
    /// To nobody.
    Nobody,
}

/// Makes the networks. Called once, before the first domain.
pub fn init(networks: &[NetworkConfig]) {
    NETWORKS.call_once(|| {
        let new = |_: &NetworkConfig| {
            Network(Mutex::new(Inner {
                switch: vswitch::Network::new(),
                members: Vec::new(),
            }))
        };
        networks.iter().map(new).collect()
    });
}

/// The network with this place in the configuration.
#[must_use]
pub fn get(number: u16) -> Option<&'static Network> {
    NETWORKS.get()?.get(usize::from(number))
}

impl Network {
    /// Puts an interface at a port; `None` when its address is taken, or there is no memory.
    pub fn attach(&self, address: MacAddr, more: u16, member: Member) -> Option<PortId> {
        let Inner { switch, members } = &mut *self.0.lock();
        let port = switch.attach(address, more).ok()?;
        let needed = port.index().saturating_add(1);
        if lists::grow_to(members, needed, || None).is_err() {
            switch.detach(port);
            return None;
        }
        if let Some(place) = members.get_mut(port.index()) {
            *place = Some(member);
        }
        Some(port)
    }

    /// Takes an interface away from its port.
    pub fn detach(&self, port: PortId) {
        let Inner { switch, members } = &mut *self.0.lock();
        switch.detach(port);
        if let Some(place) = members.get_mut(port.index()) {
            *place = None;
        }
    }

    /// Where a frame goes that came from this port.
    ///
    /// # Errors
    /// [`NotItsAddress`]: it says that it is from somebody else.
    pub fn route(&self, from: PortId, frame: Ethernet) -> Result<Route, NotItsAddress> {
        let mut inner = self.0.lock();
        Ok(match inner.switch.route(from, frame, seconds())? {
            Destination::Port(port) => inner.member(port).map_or(Route::Nobody, Route::One),
            Destination::Hearers => Route::Hearers,
            Destination::Nobody => Route::Nobody,
        })
    }

    /// The next interface behind the port `after` that hears a frame for `destination`.
    #[must_use]
    pub fn next_hearer(
        &self,
        from: PortId,
        destination: MacAddr,
        after: Option<PortId>,
    ) -> Option<(PortId, Member)> {
        let inner = self.0.lock();
        let port = inner.switch.next_hearer(from, destination, after)?;
        Some((port, inner.member(port)?))
    }

    /// See [`vswitch::Network::select_groups`].
    pub fn select_groups(&self, port: PortId, selective: bool) {
        self.0.lock().switch.select_groups(port, selective);
    }

    /// Adds a group to those that a port hears, or takes it from them.
    ///
    /// # Errors
    /// [`TooManyGroups`].
    pub fn set_group(&self, port: PortId, group: MacAddr, join: bool) -> Result<(), TooManyGroups> {
        let switch = &mut self.0.lock().switch;
        if join {
            switch.join(port, group)
        } else {
            switch.leave(port, group);
            Ok(())
        }
    }
}

impl Inner {
    fn member(&self, port: PortId) -> Option<Member> {
        self.members.get(port.index()).copied().flatten()
    }
}

/// Seconds since the machine's start, about: addresses grow old by them.
fn seconds() -> u32 {
    let ticks = tsc_khz().saturating_mul(1000);
    let seconds = Tsc::now().0.checked_div(ticks).unwrap_or(0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
