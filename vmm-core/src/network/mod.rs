//! The networks of the host: one switch each, who is at which port, and the network card behind
//! which the world outside is.
//!
//! They are there as long as the hypervisor runs. An interface is at a port while its front end is
//! connected ([`backend`]), the uplink as long as the network is.
//!
//! A network's lock is taken for a question and never kept: frames are copied outside of it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod assign;
mod card;
mod uplink;

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use abi::DomId;
use spin::{Mutex, Once};
use system::network::NetworkConfig;
pub use system::network::{MacAddr, PciAddress};
use vswitch::{Destination, Ethernet, NotItsAddress, PortId, TooManyGroups};

pub use card::{Arrived, Buffer, Halves, MAX_FRAME, MIN_FRAME, NetworkCard, Receive, Transmit};
pub(crate) use uplink::Uplink;

use crate::backend;
use crate::percpu;
use crate::time::{Tsc, tsc_khz};

static NETWORKS: Once<Vec<Network>> = Once::new();

/// A card has interrupted, and nobody has looked since.
static ARRIVED: AtomicBool = AtomicBool::new(false);
/// More has come in than one go's share.
static MORE: AtomicBool = AtomicBool::new(false);

/// An interface: a device of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The domain.
    pub domain: DomId,
    /// The device's place in its list.
    pub device: u16,
}

/// Who is at a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// An interface.
    Vif(Member),
    /// The world outside.
    Uplink,
}

/// A network.
#[derive(Debug)]
pub struct Network {
    name: String,
    uplink: Option<Uplink>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    switch: vswitch::Network,
    /// Who is at which port, by the port's index.
    places: Vec<Option<Place>>,
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To this one.
    One(Place),
    /// To all that [`Network::next_hearer`] names.
    Hearers,
    /// To nobody.
    Nobody,
}

/// Makes the networks, with those of the machine's cards that they are to have. Called once,
/// before the first domain.
pub fn init(networks: &[NetworkConfig], cards: &[&'static dyn NetworkCard]) {
    NETWORKS.call_once(|| {
        let assigned = assign::assign(networks, cards);
        let pairs = networks.iter().zip(assigned);
        pairs
            .map(|(config, card)| Network::new(config, card))
            .collect()
    });
    for uplink in all().filter_map(Network::uplink) {
        uplink.start();
    }
}

/// The network with this place in the configuration.
#[must_use]
pub fn get(number: u16) -> Option<&'static Network> {
    NETWORKS.get()?.get(usize::from(number))
}

fn all() -> impl Iterator<Item = &'static Network> {
    NETWORKS.get().into_iter().flatten()
}

/// Notes that a card has something, and interrupts no more until somebody has looked.
pub fn arrived() {
    ARRIVED.store(true, Ordering::Release);
    if let Some(boot_cpu) = percpu::by_id(0) {
        boot_cpu.reschedule();
    }
}

/// Looks at the cards if one has interrupted. Called on the boot pCPU.
pub fn serve_arrived() {
    if ARRIVED.load(Ordering::Relaxed) && ARRIVED.swap(false, Ordering::AcqRel) {
        serve();
    }
}

/// Looks at the cards with more than a share. Called on the boot pCPU.
pub fn serve_more() {
    if MORE.swap(false, Ordering::AcqRel) {
        serve();
    }
}

/// True when [`serve_more`] has something to do.
#[must_use]
pub fn has_more() -> bool {
    MORE.load(Ordering::Acquire)
}

fn serve() {
    for network in all() {
        let Some(uplink) = network.uplink() else {
            continue;
        };
        if uplink.serve(network, |frame, page, member| {
            backend::deliver(frame, page, member)
        }) {
            MORE.store(true, Ordering::Release);
        }
    }
}

/// Logs what became of the frames of uplinks.
pub fn report() {
    for network in all() {
        if let Some(uplink) = network.uplink() {
            uplink.report(&network.name);
        }
    }
}

impl Network {
    fn new(config: &NetworkConfig, card: Option<&dyn NetworkCard>) -> Self {
        let mut inner = Inner {
            switch: vswitch::Network::new(),
            places: Vec::new(),
        };
        let name = config.name.clone();
        let uplink = config.uplink.as_ref().zip(card).and_then(|(config, card)| {
            let (place, address) = (card.place(), card.address());
            let made = card.start().zip(inner.attach_uplink());
            if made.is_some() {
                log::info!("network {name}: uplink {place}, {address}");
            } else {
                log::warn!("network {name}: {place} does not start: it goes on without an uplink");
            }
            let (halves, port) = made?;
            Some(Uplink::new((place, port), config, halves))
        });
        Self {
            name,
            uplink,
            inner: Mutex::new(inner),
        }
    }

    /// The uplink, if there is one.
    pub(crate) const fn uplink(&self) -> Option<&Uplink> {
        self.uplink.as_ref()
    }

    /// Puts an interface at a port; `None` when its address is taken, or there is no memory.
    pub fn attach(&self, address: MacAddr, more: u16, member: Member) -> Option<PortId> {
        let mut inner = self.inner.lock();
        let port = inner.switch.attach(address, more).ok()?;
        inner.set(port, Place::Vif(member))
    }

    /// Takes an interface away from its port.
    pub fn detach(&self, port: PortId) {
        let Inner { switch, places } = &mut *self.inner.lock();
        switch.detach(port);
        if let Some(place) = places.get_mut(port.index()) {
            *place = None;
        }
    }

    /// Where a frame goes that came from this port.
    ///
    /// # Errors
    /// [`NotItsAddress`]: it says that it is from somebody else.
    pub fn route(&self, from: PortId, frame: Ethernet) -> Result<Route, NotItsAddress> {
        let mut inner = self.inner.lock();
        Ok(match inner.switch.route(from, frame, seconds())? {
            Destination::Port(port) => inner.at(port).map_or(Route::Nobody, Route::One),
            Destination::Hearers => Route::Hearers,
            Destination::Nobody => Route::Nobody,
        })
    }

    /// The next port behind the port `after` that hears a frame for `destination`, and who is
    /// there.
    #[must_use]
    pub fn next_hearer(
        &self,
        from: PortId,
        destination: MacAddr,
        after: Option<PortId>,
    ) -> Option<(PortId, Place)> {
        let inner = self.inner.lock();
        let port = inner.switch.next_hearer(from, destination, after)?;
        Some((port, inner.at(port)?))
    }

    /// See [`vswitch::Network::select_groups`].
    pub fn select_groups(&self, port: PortId, selective: bool) {
        self.inner.lock().switch.select_groups(port, selective);
    }

    /// Adds a group to those that a port hears, or takes it from them.
    ///
    /// # Errors
    /// [`TooManyGroups`].
    pub fn set_group(&self, port: PortId, group: MacAddr, join: bool) -> Result<(), TooManyGroups> {
        let switch = &mut self.inner.lock().switch;
        if join {
            switch.join(port, group)
        } else {
            switch.leave(port, group);
            Ok(())
        }
    }
}

impl Inner {
    fn attach_uplink(&mut self) -> Option<PortId> {
        let port = self.switch.attach_uplink().ok()?;
        self.set(port, Place::Uplink)
    }

    /// Notes who is at a port; without memory for that the port goes again.
    fn set(&mut self, port: PortId, who: Place) -> Option<PortId> {
        let Self { switch, places } = self;
        let needed = port.index().saturating_add(1);
        if lists::grow_to(places, needed, || None).is_err() {
            switch.detach(port);
            return None;
        }
        *places.get_mut(port.index())? = Some(who);
        Some(port)
    }

    fn at(&self, port: PortId) -> Option<Place> {
        self.places.get(port.index()).copied().flatten()
    }
}

/// Seconds since the machine's start, about: addresses grow old by them.
fn seconds() -> u32 {
    let ticks = tsc_khz().saturating_mul(1000);
    let seconds = Tsc::now().0.checked_div(ticks).unwrap_or(0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
