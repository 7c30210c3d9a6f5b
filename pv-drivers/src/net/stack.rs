//! A network interface as a device of smoltcp.

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use super::{Checksum, Front, InterfaceFront, MAX_FRAME, offload};
use crate::ring::Broken;

/// The longest frame that smoltcp is to send.
const SENT: usize = 1514;

/// Where frames are put together for smoltcp.
#[derive(Debug)]
pub struct Buffers {
    rx: [u8; MAX_FRAME],
    tx: [u8; SENT],
}

impl Buffers {
    /// Empty ones.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rx: [0; MAX_FRAME],
            tx: [0; SENT],
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// The interface for one call of smoltcp's.
#[derive(Debug)]
pub struct Device<'a, const RX: usize, const TX: usize> {
    front: &'a mut InterfaceFront<RX, TX>,
    buffers: &'a mut Buffers,
    broken: bool,
}

impl<'a, const RX: usize, const TX: usize> Device<'a, RX, TX> {
    /// Lends the interface; first it takes back the pages of frames that have gone.
    ///
    /// # Errors
    /// [`Broken`]: the back end makes no sense, and a restart is due.
    pub fn new(
        front: &'a mut InterfaceFront<RX, TX>,
        buffers: &'a mut Buffers,
    ) -> Result<Self, Broken> {
        front.reclaim()?;
        Ok(Self {
            front,
            buffers,
            broken: false,
        })
    }

    /// Shows the back end what smoltcp did.
    ///
    /// # Errors
    /// [`Broken`], as above.
    pub fn finish(self) -> Result<(), Broken> {
        self.front.publish();
        if self.broken { Err(Broken) } else { Ok(()) }
    }
}

impl<const RX: usize, const TX: usize> phy::Device for Device<'_, RX, TX> {
    type RxToken<'t>
        = RxToken<'t>
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t, RX, TX>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_, RX, TX>)> {
        // What came is left where it is until it can be answered.
        if !self.front.has_room(SENT) {
            return None;
        }
        let Buffers { rx, tx } = &mut *self.buffers;
        let received = self.front.receive(rx);
        let received = received.inspect_err(|_| self.broken = true).ok()??;
        let frame = rx.get_mut(..received.len)?;
        if received.checksum == Checksum::Blank {
            // smoltcp drops what is not right.
            let _ = offload::complete_checksum(frame);
        }
        let answer = TxToken {
            front: self.front,
            buffer: tx,
        };
        Some((RxToken(frame), answer))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_, RX, TX>> {
        self.front.has_room(SENT).then_some(TxToken {
            front: self.front,
            buffer: &mut self.buffers.tx,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = SENT;
        capabilities
    }
}

/// A frame that came.
#[derive(Debug)]
pub struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, act: F) -> R {
        act(self.0)
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct TxToken<'a, const RX: usize, const TX: usize> {
    front: &'a mut Front<RX, TX>,
    buffer: &'a mut [u8; SENT],
}

impl<const RX: usize, const TX: usize> phy::TxToken for TxToken<'_, RX, TX> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, act: F) -> R {
        // No more than the capabilities say.
        let (frame, _) = self.buffer.split_at_mut(len.min(SENT));
        let result = act(frame);
        // There was room, and should the connection have ended the frame is lost like any other.
        let _ = self.front.send(frame);
        result
    }
}
