//! Network interfaces: the back end of `public/io/netif.h`.
//!
//! ```text
//!  sender's event --> Vif::serve --> send: whose is it, may it, where to (network::Network)
//!                                      |
//!                                      +--> receive, of each who hears it --> their event
//!                                      +--> the network's uplink
//! ```
//!
//! A frame is delivered in the very exit in which its sender's event comes. The two halves of an
//! interface have a lock each: a sender's half is taken first and receivers' halves, one at a
//! time, below it, so that two who send to each other never wait for each other.
//!
//! Nobody waits for a receiver: one that has no room loses the frame, and the counters tell.

mod receive;
mod send;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU16, Ordering};

use abi::{EvtchnPort, GrantRef};
use pv_drivers::grants::Grants;
use pv_drivers::net::{Frame, Offers};
use pv_drivers::ring::Broken;
use spin::Mutex;
use system::network::{MacAddr, VifConfig};
use vswitch::{Bucket, Counters, Filter, PortId, flow};
use xenstore::Error;

use super::driver::{Driver, Outcome};
use super::front::{Front, Refusal};
use super::keys::{Announcement, Keys, Prefix};
use crate::domain::{Domain, list};
use crate::evtchn::DeviceQueue;
use crate::network::{self, Member, Network};

use receive::Receiver;
use send::Sender;

/// The most queues of one interface.
const MAX_QUEUES: u32 = 4;

/// One queue. Each half is one of the device's own queues; without split event channels the sending
/// half's port is that of the other half, too.
#[derive(Debug, Default)]
struct Queue {
    sender: Mutex<Sender>,
    receiver: Mutex<Receiver>,
}

/// A queue's sending half, as one of the device's.
const fn sender(queue: u16) -> u16 {
    queue.saturating_mul(2)
}

/// A queue's receiving half.
const fn receiver(queue: u16) -> u16 {
    sender(queue).saturating_add(1)
}

/// An interface of a domain.
#[derive(Debug)]
pub(super) struct Vif {
    number: u16,
    mac: MacAddr,
    more_addresses: u16,
    network: Option<&'static Network>,
    filter: Filter,
    bucket: Option<Mutex<Bucket>>,
    /// Every queue it may have.
    queues: Box<[Queue]>,
    /// How many of them are connected.
    connected: AtomicU16,
    /// Where it is at the switch.
    place: Mutex<Option<PortId>>,
}

impl Vif {
    /// An interface of a description, for a domain with so many vCPUs; `number` is its place among
    /// the domain's.
    pub(super) fn new(number: u16, config: &VifConfig, vcpus: u32) -> Self {
        let bucket = |rate: system::network::Rate| Bucket::new(rate.bytes_per_second, rate.burst);
        Self {
            number,
            mac: config.mac,
            more_addresses: config.more_addresses,
            network: network::get(config.network),
            filter: Filter::new(config.rules.clone(), config.otherwise),
            bucket: config.rate.map(|rate| Mutex::new(bucket(rate))),
            queues: (0..vcpus.clamp(1, MAX_QUEUES))
                .map(|_| Queue::default())
                .collect(),
            connected: AtomicU16::new(0),
            place: Mutex::new(None),
        }
    }

    /// The queues that it may have.
    fn count(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn queues(&self) -> u16 {
        sender(self.count())
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
        match self.count() {
            // A front end without the key has one queue.
            0 | 1 => Ok(()),
            count => keys.set("multi-queue-max-queues", count),
        }
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
        let what = "multi-queue-num-queues";
        let count = keys.front_number(what, what)?.unwrap_or(1);
        let count = u16::try_from(count).ok();
        let count = count.filter(|count| (1..=self.count()).contains(count));
        let count = count.ok_or(Refusal::Key(what))?;
        let queues = || (0..count).zip(&self.queues);
        let prefix = |queue| Prefix((count > 1).then_some(queue));
        // Before the senders: who sends can be answered.
        for (number, queue) in queues() {
            let (tx, rx) = ports(keys, prefix(number))?;
            let ports = ((tx, sender(number)), rx.map(|rx| (rx, receiver(number))));
            let ring = key(keys, prefix(number), "rx-ring-ref")?;
            let mut receiver = queue.receiver.lock();
            receiver.connect(front, GrantRef(ring), offers, ports)?;
        }
        self.connected.store(count, Ordering::Release);
        let network = self.network.ok_or(Refusal::Network)?;
        let place = network.attach(self.mac, self.more_addresses, front.member());
        let place = place.ok_or(Refusal::Network)?;
        *self.place.lock() = Some(place);
        network.select_groups(place, flag(keys, "request-multicast-control")?);
        for (number, queue) in queues() {
            let (port, _) = ports(keys, prefix(number))?;
            let ring = key(keys, prefix(number), "tx-ring-ref")?;
            let mut half = queue.sender.lock();
            half.connect(front, GrantRef(ring), (port, sender(number)), place)?;
        }
        Ok(())
    }

    pub(super) fn disconnect(&self, front: Front<'_>) {
        let place = self.place.lock().take();
        for queue in &self.queues {
            queue.sender.lock().disconnect(front);
        }
        if let Some((network, place)) = self.network.zip(place) {
            network.detach(place);
        }
        self.connected.store(0, Ordering::Release);
        for queue in &self.queues {
            queue.receiver.lock().disconnect(front);
        }
    }

    pub(super) fn serve(&self, front: Front<'_>, half: u16) -> Result<Outcome, Refusal> {
        let Some(queue) = self.queues.get(usize::from(half / 2)) else {
            return Ok(Outcome::default());
        };
        queue.receiver.lock().check()?;
        match self.network {
            Some(network) if half.is_multiple_of(2) => {
                let mut sender = queue.sender.lock();
                let bucket = self.bucket.as_ref();
                Ok(sender.serve(front, network, &self.filter, bucket)?)
            }
            // A receiver's event says that it has room, and nobody waits for that.
            _ => Ok(Outcome::default()),
        }
    }

    /// The queue that a frame is received by. All frames of a flow come by one.
    fn queue_of(&self, frame: &Frame) -> Option<(u16, &Queue)> {
        let number = match self.connected.load(Ordering::Acquire) {
            0 | 1 => 0,
            count => {
                let queue = flow(frame.head(), frame.len()).checked_rem(count.into())?;
                u16::try_from(queue).ok()?
            }
        };
        Some((number, self.queues.get(usize::from(number))?))
    }

    /// Logs what became of the interface's frames.
    pub(super) fn report(&self, domain: &str) {
        let none = Counters::default;
        let senders = self.queues.iter().map(|queue| queue.sender.lock().counters);
        let sent = senders.fold(none(), |sum, more| sum.with(&more));
        let receivers = self
            .queues
            .iter()
            .map(|queue| queue.receiver.lock().counters);
        let received = receivers.fold(none(), |sum, more| sum.with(&more));
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
pub(super) fn deliver(frame: &mut Frame, sender: &impl Grants, member: Member) -> bool {
    let Some(domain) = list::by_id(member.domain) else {
        return false;
    };
    let Some(device) = domain.devices.get(member.device) else {
        return false;
    };
    let Driver::Vif(vif) = &device.driver else {
        return false;
    };
    let Some((number, queue)) = vif.queue_of(frame) else {
        return false;
    };
    let own = Front::new(&domain, member.device);
    let mut half = queue.receiver.lock();
    let received = half.receive(frame, sender, own, &vif.filter);
    drop(half);
    match received {
        Ok(None) => {}
        Ok(Some((port, half))) => tell(&domain, member.device, port, half),
        // What follows takes locks that come before those of the sender.
        Err(Broken) => device.leave(1u32.checked_shl(receiver(number).into()).unwrap_or(0)),
    }
    true
}

/// Raises the event of one half.
fn tell(domain: &Arc<Domain>, device: u16, port: EvtchnPort, queue: u16) {
    let queue = DeviceQueue { device, queue };
    let wake = domain.evtchn.lock().raise_device(port, queue);
    domain.wake(wake);
}

/// A number that the front end must give for a queue.
fn key(keys: &Keys<'_, '_>, prefix: Prefix, key: &'static str) -> Result<u32, Refusal> {
    let number = keys.front_number(format_args!("{prefix}{key}"), key)?;
    number.ok_or(Refusal::Key(key))
}

/// Whether the front end says 1.
fn flag(keys: &Keys<'_, '_>, key: &'static str) -> Result<bool, Refusal> {
    Ok(keys.front_number(key, key)? == Some(1))
}

/// The port of a queue's sending half, or of both, and that of the receiving half if it has its own.
fn ports(keys: &Keys<'_, '_>, prefix: Prefix) -> Result<(EvtchnPort, Option<EvtchnPort>), Refusal> {
    // Keys of an earlier connection may still be there; Linux's back end looks in this order, too.
    let own = |key| {
        let port = keys.front_number(format_args!("{prefix}{key}"), key);
        port.map(|port| port.map(EvtchnPort))
    };
    if let (Some(tx), Some(rx)) = (own("event-channel-tx")?, own("event-channel-rx")?) {
        return Ok((tx, Some(rx)));
    }
    Ok((EvtchnPort(key(keys, prefix, "event-channel")?), None))
}
