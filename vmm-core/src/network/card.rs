//! A network card as its driver, which boot has, offers it.

use alloc::boxed::Box;
use core::fmt;

use pv_drivers::shared_page::SharedPage;
use system::network::{MacAddr, PciAddress};

/// The longest frame on a cable, with the tag of a virtual LAN and without the check sequence
/// (IEEE 802.3).
pub const MAX_FRAME: usize = 1518;
/// The shortest.
pub const MIN_FRAME: usize = 60;

/// A card that boot has a driver for.
pub trait NetworkCard: Sync + fmt::Debug {
    /// Where it is.
    fn place(&self) -> PciAddress;
    /// Its own address, which nothing here uses.
    fn address(&self) -> MacAddr;
    /// Has it send and receive; `None` when it cannot, or does already. It interrupts
    /// ([`arrived`](super::arrived)) from the first [`Receive::rearm`] on.
    fn start(&self) -> Option<Halves>;
}

/// A card that runs.
#[derive(Debug)]
pub struct Halves {
    /// Frames that go out.
    pub transmit: Box<dyn Transmit>,
    /// Frames that come in.
    pub receive: Box<dyn Receive>,
}

/// Room for a frame in memory that the card reads or writes: [`MAX_FRAME`] bytes or more, inside
/// the page.
#[derive(Clone, Copy, Debug)]
pub struct Buffer<'a> {
    /// The page.
    pub page: &'a SharedPage,
    /// Where in it.
    pub offset: u16,
}

/// The transmitting half of a card.
pub trait Transmit: Send + fmt::Debug {
    /// How many frames can be put in.
    fn room(&mut self) -> usize;
    /// Where the next frame goes, when there is room.
    fn buffer(&self) -> Option<Buffer<'_>>;
    /// Puts in the frame that the buffer holds, of [`MIN_FRAME`] to [`MAX_FRAME`] bytes.
    fn put(&mut self, len: usize);
    /// Has the card send what was put in.
    fn publish(&mut self);
}

/// What came in.
#[derive(Clone, Copy, Debug)]
pub enum Arrived<'a> {
    /// A frame of so many bytes.
    Frame(Buffer<'a>, u16),
    /// No whole good frame.
    Broken,
}

/// The receiving half of a card.
pub trait Receive: Send + fmt::Debug {
    /// What came in next, if anything did; the same until [`Receive::give_back`].
    fn look(&mut self) -> Option<Arrived<'_>>;
    /// Gives the buffer back of what came in next.
    fn give_back(&mut self);
    /// Tells the card of the buffers that were given back.
    fn publish(&mut self);
    /// Has the card interrupt once when something comes in, or has come in since the last look.
    fn rearm(&mut self);
    /// How many frames the card had no buffer for since the last call.
    fn missed(&mut self) -> u64;
}
