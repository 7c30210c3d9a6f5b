//! Network interfaces: the back end of `public/io/netif.h`.
//!
//! ```text
//!  sender's event --> Vif::serve --> send: whose is it, may it, where to (network::Network)
//!                                      |
//!                                      +--> receive, of each who hears it --> their event
//! ```
//!
//! A frame is delivered in the very exit in which its sender's event comes. The two halves of an
//! interface have a lock each: a sender's half is taken first and receivers' halves, one at a
//! time, below it, so that two who send to each other never wait for each other.
//!
//! Nobody waits for a receiver: one that has no room loses the frame, and the counters tell.

mod receive;
mod send;

use alloc::sync::Arc;
use core::fmt;

use abi::{EvtchnPort, GrantRef};
use pv_drivers::net::{Frame, Offers};
use pv_drivers::ring::Broken;
use spin::Mutex;
use system::network::{MacAddr, VifConfig};
use vswitch::{Bucket, Filter};
use xenstore::Error;

use super::driver::{Driver, Outcome};
use super::front::{Front, Refusal};
use super::keys::{Announcement, Keys};
use crate::domain::{Domain, list};
use crate::evtchn::DeviceQueue;
use crate::network::{self, Member, Network};

use receive::Receiver;
use send::Sender;

/// The number of the sending half, as one of the device's queues. Without split event channels
/// its port is that of the other half, too.
const SENDER: u16 = 0;
/// The number of the receiving half.
const RECEIVER: u16 = 1;

/// An interface of a domain.
#[derive(Debug)]
pub(super) struct Vif {
    number: u16,
    mac: MacAddr,
    more_addresses: u16,
    network: Option<&'static Network>,
    filter: Filter,
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
}

impl Vif {
    /// An interface of a description; `number` is its place among the domain's.
    pub(super) fn new(number: u16, config: &VifConfig) -> Self {
        let bucket = |rate: system::network::Rate| Bucket::new(rate.bytes_per_second, rate.burst);
        Self {
            number,
            mac: config.mac,
            more_addresses: config.more_addresses,
            network: network::get(config.network),
            filter: Filter::new(config.rules.clone(), config.otherwise),
            sender: Mutex::new(Sender::new(config.rate.map(bucket))),
            receiver: Mutex::new(Receiver::default()),
        }
    }

    pub(super) const fn queues(&self) -> u16 {
        RECEIVER + 1
    }

    pub(super) fn announce(&self, keys: &mut Announcement<'_>) -> Result<(), Error> {
        keys.set_front("handle", self.number)?;
        keys.set_front("mac", self.mac)?;
        keys.set_front("trusted", 1)?;
        keys.set("handle", self.number)?;
        keys.set("mac", self.mac)?;
        keys.set("type", "vif")?;
        keys.set("hotplug-status", "connected")?;
        for feature in [
            "feature-rx-copy",
            "feature-sg",
            "feature-gso-tcpv4",
            "feature-gso-tcpv6",
            "feature-ipv6-csum-offload",
            "feature-split-event-channels",
            "feature-multicast-control",
        ] {
            keys.set(feature, 1)?;
        }
        Ok(())
    }

    pub(super) fn connect(&self, keys: &Keys<'_, '_>, front: Front<'_>) -> Result<(), Refusal> {
        if !flag(keys, "request-rx-copy")? {
            return Err(Refusal::Key("request-rx-copy"));
        }
        let offers = Offers {
            scatter_gather: flag(keys, "feature-sg")?,
            gso_ipv4: flag(keys, "feature-gso-tcpv4")?,
            gso_ipv6: flag(keys, "feature-gso-tcpv6")?,
            blank_checksums: !flag(keys, "feature-no-csum-offload")?,
            blank_checksums_ipv6: flag(keys, "feature-ipv6-csum-offload")?,
        };
        let (tx_port, rx_port) = ports(keys)?;
        // Before the sender: who sends can be answered.
        let ring = GrantRef(number(keys, "rx-ring-ref")?);
        let mut receiver = self.receiver.lock();
        receiver.connect(front, ring, offers, (tx_port, rx_port))?;
        drop(receiver);
        let ring = GrantRef(number(keys, "tx-ring-ref")?);
        let network = self.network.ok_or(Refusal::Network)?;
        let place = network.attach(self.mac, self.more_addresses, front.member());
        let place = place.ok_or(Refusal::Network)?;
        network.select_groups(place, flag(keys, "request-multicast-control")?);
        let connected = self.sender.lock().connect(front, ring, tx_port, place);
        connected.inspect_err(|_| network.detach(place))
    }

    pub(super) fn disconnect(&self, front: Front<'_>) {
        let place = self.sender.lock().disconnect(front);
        if let Some((network, place)) = self.network.zip(place) {
            network.detach(place);
        }
        self.receiver.lock().disconnect(front);
    }

    pub(super) fn serve(&self, front: Front<'_>, queue: u16) -> Result<Outcome, Refusal> {
        self.receiver.lock().check()?;
        match self.network {
            Some(network) if queue == SENDER => {
                let mut sender = self.sender.lock();
                Ok(sender.serve(front, network, &self.filter)?)
            }
            // A receiver's event says that it has room, and nobody waits for that.
            _ => Ok(Outcome::default()),
        }
    }

    /// Logs what became of the interface's frames.
    pub(super) fn report(&self, domain: &str) {
        let sent = self.sender.lock().counters;
        let received = self.receiver.lock().counters;
        log::info!("{domain}: {self}: sent {sent}; received {received}");
    }
}

impl fmt::Display for Vif {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vif{}", self.number)
    }
}

/// Gives a frame to another interface and tells its front end; false when there is no such
/// interface any more.
fn deliver(frame: &mut Frame, sender: Front<'_>, member: Member) -> bool {
    let Some(domain) = list::by_id(member.domain) else {
        return false;
    };
    let Some(device) = domain.devices.get(member.device) else {
        return false;
    };
    let Driver::Vif(vif) = &device.driver else {
        return false;
    };
    let own = Front::new(&domain, member.device);
    let received = vif.receiver.lock().receive(frame, sender, own, &vif.filter);
    match received {
        Ok(None) => {}
        Ok(Some((port, queue))) => tell(&domain, member.device, port, queue),
        // What follows takes locks that come before those of the sender.
        Err(Broken) => device.leave(1 << RECEIVER),
    }
    true
}

/// Raises the event of one half.
fn tell(domain: &Arc<Domain>, device: u16, port: EvtchnPort, queue: u16) {
    let queue = DeviceQueue { device, queue };
    let wake = domain.evtchn.lock().raise_device(port, queue);
    domain.wake(wake);
}

/// A number that the front end must give.
fn number(keys: &Keys<'_, '_>, key: &'static str) -> Result<u32, Refusal> {
    keys.front_number(key, key)?.ok_or(Refusal::Key(key))
}

/// Whether the front end says 1.
fn flag(keys: &Keys<'_, '_>, key: &'static str) -> Result<bool, Refusal> {
    Ok(keys.front_number(key, key)? == Some(1))
}

/// The port of the sending half, or of both, and that of the receiving half if it has its own.
fn ports(keys: &Keys<'_, '_>) -> Result<(EvtchnPort, Option<EvtchnPort>), Refusal> {
    // Keys of an earlier connection may still be there; Linux's back end looks in this order, too.
    let own = |key| keys.front_number(key, key).map(|port| port.map(EvtchnPort));
    if let (Some(tx), Some(rx)) = (own("event-channel-tx")?, own("event-channel-rx")?) {
        return Ok((tx, Some(rx)));
    }
    Ok((EvtchnPort(number(keys, "event-channel")?), None))
}
