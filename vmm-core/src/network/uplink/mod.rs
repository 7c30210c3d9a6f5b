//! The way from a network to the world outside: a network card at a port of the switch.
//!
//! ```text
//!  sender's pages --> Sending: filter, rate, cut into segments, checksums --> card's buffers
//!  card's buffers --> Receiving: whose is it, filter, where to --> receivers' pages
//! ```
//!
//! Both ways a frame is copied once. One that goes out is in the card's memory when its sender gets
//! its answer, so that nothing of a guest's is held. What comes in is looked at when the card has
//! interrupted, a share at a time, and the card interrupts again when nothing is left; what comes in
//! faster than that finds the card without buffers, which are a fixed number.
//!
//! The locks of both halves are taken like those of an interface's halves: that of the receiving one
//! before those of receivers, that of the sending one below a sender's.

mod receiving;
mod sending;
#[cfg(test)]
mod tests;

use pv_drivers::grants::Grants;
use pv_drivers::net::Frame;
use spin::{Mutex, Once};
use system::network::{PciAddress, UplinkConfig};
use vswitch::{Bucket, Filter, PortId};

use super::{Halves, Member, Network};
use crate::time::{Scale, Tsc, tsc_khz};

pub(super) use receiving::OnePage;
use receiving::Receiving;
use sending::Sending;

/// A network's uplink.
#[derive(Debug)]
pub(crate) struct Uplink {
    place: PciAddress,
    port: PortId,
    filter: Filter,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
}

impl Uplink {
    /// The uplink at a port, behind the card at a place.
    pub(super) fn new(
        (place, port): (PciAddress, PortId),
        config: &UplinkConfig,
        card: Halves,
    ) -> Self {
        let bucket = |rate: system::network::Rate| Bucket::new(rate.bytes_per_second, rate.burst);
        Self {
            place,
            port,
            filter: Filter::new(config.rules.clone(), config.otherwise),
            sending: Mutex::new(Sending::new(card.transmit, config.rate.map(bucket))),
            receiving: Mutex::new(Receiving::new(card.receive)),
        }
    }

    /// Has the card interrupt.
    pub(super) fn start(&self) {
        self.receiving.lock().start();
    }

    /// Sends a frame of a guest's outside. How many frames that took, for who counts the work.
    pub(crate) fn send(&self, frame: &Frame, sender: &impl Grants) -> usize {
        let now = now();
        self.sending.lock().send(frame, sender, &self.filter, now)
    }

    /// Has the card send what was sent since the last call.
    pub(crate) fn publish(&self) {
        self.sending.lock().publish();
    }

    /// Passes on the share of one go of what has come in; true when more is there.
    pub(super) fn serve(
        &self,
        network: &Network,
        deliver: impl FnMut(&mut Frame, &OnePage<'_>, Member) -> bool,
    ) -> bool {
        let mut receiving = self.receiving.lock();
        receiving.serve((network, self.port), &self.filter, deliver)
    }

    pub(super) fn report(&self, network: &str) {
        let sent = self.sending.lock().counters;
        let received = self.receiving.lock().counters();
        let place = self.place;
        log::info!("network {network}: uplink {place}: sent {sent}; received {received}");
    }
}

/// The time by which rates are kept, in nanoseconds.
fn now() -> u64 {
    static SCALE: Once<Scale> = Once::new();
    let scale = SCALE.call_once(|| Scale::from_khz(tsc_khz()));
    scale.ns(Tsc::now().0)
}
