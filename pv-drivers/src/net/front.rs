//! The front end of a network interface.

use abi::xenbus::XenbusState;
use abi::{EvtchnPort, GrantRef, PAGE_SIZE};

use super::{NotSent, Received, Receiver, Sender};
use crate::guest::event_channel;
use crate::guest::gnttab::Access;
use crate::guest::page::OwnPage;
use crate::ring::Broken;
use crate::shared_page::SharedPage;
use crate::xenbus::{Bus, Device, Driver, Error, FrontEnd, end};

/// An address of Ethernet.
pub type Mac = [u8; 6];

/// The pages of an interface, which are to be used for nothing else: for its rings, for `RX` pieces
/// of frames to be received and `TX` to be sent, each at most as many as a ring has slots (256).
#[derive(Clone, Copy, Debug)]
pub struct Pages<const RX: usize, const TX: usize> {
    /// For the transmit ring and the receive ring.
    pub rings: [OwnPage; 2],
    /// For what is received.
    pub rx: [OwnPage; RX],
    /// For what is sent.
    pub tx: [OwnPage; TX],
}

/// An interface with one queue. Frames are copied into and out of pages that stay granted; nothing
/// waits.
#[derive(Debug)]
pub struct Front<const RX: usize, const TX: usize> {
    pages: Pages<RX, TX>,
    mac: Mac,
    link: Option<Link<RX, TX>>,
}

/// The front end of a network interface.
pub type InterfaceFront<const RX: usize, const TX: usize> = FrontEnd<Front<RX, TX>>;

/// What the connection has taken of the guest.
#[derive(Debug)]
struct Link<const RX: usize, const TX: usize> {
    sender: Sender<TX>,
    receiver: Receiver<RX>,
    rings: [Option<GrantRef>; 2],
    port: Option<EvtchnPort>,
    /// The back end serves it.
    is_up: bool,
}

impl<const RX: usize, const TX: usize> Front<RX, TX> {
    /// A front end with these pages.
    #[must_use]
    pub const fn new(pages: Pages<RX, TX>) -> Self {
        const {
            let slots = abi::ring::entries(size_of::<abi::netif::RxRequest>(), PAGE_SIZE);
            assert!(RX <= slots && TX <= slots, "more pages than slots");
        }
        Self {
            pages,
            mac: [0; 6],
            link: None,
        }
    }

    /// Its address, once it was connected.
    #[must_use]
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// The port whose event says that frames have come or gone.
    #[must_use]
    pub fn port(&self) -> Option<EvtchnPort> {
        self.link.as_ref()?.port
    }

    fn up(&mut self) -> Option<&mut Link<RX, TX>> {
        self.link.as_mut().filter(|link| link.is_up)
    }

    /// Whether a frame of so many bytes would be taken now.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.is_up && link.sender.has_room(len))
    }

    /// Sends a frame; the back end sees it after [`Front::publish`].
    ///
    /// # Errors
    /// [`NotSent`]; full, too, while there is no connection.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), NotSent> {
        self.up().ok_or(NotSent::Full)?.sender.send(frame)
    }

    /// Copies the next frame that came into `out`; see [`Receiver::receive`].
    ///
    /// # Errors
    /// [`Broken`]: the back end makes no sense, and a [`FrontEnd::restart`] is due.
    pub fn receive(&mut self, out: &mut [u8]) -> Result<Option<Received>, Broken> {
        match self.up() {
            Some(link) => link.receiver.receive(out),
            None => Ok(None),
        }
    }

    /// Takes back the pages of frames that have gone, to make room.
    ///
    /// # Errors
    /// [`Broken`], as above.
    pub fn reclaim(&mut self) -> Result<(), Broken> {
        self.up().map_or(Ok(()), |link| link.sender.reclaim())
    }

    /// Shows the back end the frames that were sent and the pages that are free again.
    pub fn publish(&mut self) {
        if let Some(link) = self.up() {
            let told = [link.sender.publish(), link.receiver.publish()];
            if let (true, Some(port)) = (told.contains(&true), link.port) {
                // A port that is not open any more has nobody at its other end.
                let _ = event_channel::send(port);
            }
        }
    }
}

impl<const RX: usize, const TX: usize> Driver for Front<RX, TX> {
    const KIND: &'static str = "vif";
    // There is nothing to learn of the back end.
    const OFFERED: XenbusState = XenbusState::Connected;

    fn offer<T: AsRef<[SharedPage]>>(
        &mut self,
        bus: &mut Bus<T>,
        device: &Device,
    ) -> Result<(), Error> {
        let mac = device.own(&mut bus.store, "mac")?;
        self.mac = parse_mac(&mac).ok_or(Error::Key("mac"))?;
        let back = device.back_id();
        let [tx_ring, rx_ring] = self.pages.rings;
        // One page holds a ring.
        let sender = Sender::new(tx_ring, self.pages.tx).ok_or(Error::NoGrant)?;
        let receiver = Receiver::new(rx_ring, self.pages.rx).ok_or(Error::NoGrant)?;
        let link = self.link.insert(Link {
            sender,
            receiver,
            rings: [None; 2],
            port: None,
            is_up: false,
        });
        for (gref, page) in link.rings.iter_mut().zip(self.pages.rings) {
            *gref = Some(bus.grant(back, page, Access::Write)?);
        }
        let grants = &mut bus.grants;
        link.sender.grant(grants, back).ok_or(Error::NoGrant)?;
        link.receiver.grant(grants, back).ok_or(Error::NoGrant)?;
        // Nobody is there yet who could be told.
        let _ = link.receiver.publish();
        let port = *link.port.insert(bus.offer_port(back)?);
        let store = &mut bus.store;
        for (key, gref) in ["tx-ring-ref", "rx-ring-ref"].into_iter().zip(link.rings) {
            device.set(store, key, gref.unwrap_or_default())?;
        }
        device.set(store, "event-channel", port)?;
        for key in [
            "request-rx-copy",
            "feature-rx-notify",
            "feature-sg",
            "feature-gso-tcpv4",
            "feature-gso-tcpv6",
            "feature-ipv6-csum-offload",
        ] {
            device.set(store, key, 1)?;
        }
        Ok(())
    }

    fn begin<T: AsRef<[SharedPage]>>(&mut self, _: &mut Bus<T>, _: &Device) -> Result<(), Error> {
        if let Some(link) = &mut self.link {
            link.is_up = true;
        }
        Ok(())
    }

    fn release<T: AsRef<[SharedPage]>>(&mut self, bus: &mut Bus<T>) -> bool {
        let Some(link) = &mut self.link else {
            return true;
        };
        link.is_up = false;
        if let Some(port) = link.port.take() {
            // It was ours.
            let _ = event_channel::close(port);
        }
        let grants = &mut bus.grants;
        let mut done = link.sender.end(grants);
        done &= link.receiver.end(grants);
        for gref in &mut link.rings {
            done &= end(grants, gref);
        }
        if done {
            self.link = None;
        }
        done
    }
}

/// Reads an address, such as the key `mac` has.
#[must_use]
pub fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn addresses_have_six_bytes() {
        assert_eq!(parse_mac("02:00:00:00:00:0a"), Some([2, 0, 0, 0, 0, 10]));
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:0a:00",
            "02:00:00:00:00:xx",
            "2:100:0:0:0:0",
        ] {
            assert_eq!(parse_mac(bad), None);
        }
    }
}
