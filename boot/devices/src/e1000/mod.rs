//! Intel's 8254x network cards, such as the 82540EM.
//!
//! ```text
//!  Receive                                Transmit
//!  ring of descriptors, a buffer each     ring of descriptors, a buffer each
//!   head (RDH): where the card fills       clean: the card is done up to here
//!   next: what was filled next             next: where the next frame goes
//!   tail (RDT): behind what it may fill    tail (TDT): behind what is to be sent
//! ```
//!
//! Rings have legacy descriptors and every frame one buffer, since frames are no longer than
//! [`MAX_FRAME`]. The card hears all frames: which of them are wanted, the switch behind it knows.
//! Of the card's offloads none is used.
//!
//! A card interrupts when it has filled buffers. It is masked then ([`Interrupts::take`]) until its
//! user has looked at the ring and found nothing left: a cause that came meanwhile interrupts at
//! once. The link comes up by itself, and whoever sends before it is up loses the frame. Sent frames
//! are looked for when the next ones are sent.
//!
//! Facts by Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual".

mod receive;
mod registers;
mod start;
#[cfg(test)]
mod tests;
mod transmit;

pub use receive::{Broken, Receive, Received};
pub use start::{Card, Found, Interrupts, Memory, NoCard, find};
pub use transmit::Transmit;

/// The cards, by vendor and device number in configuration space: 82540EM, 82545EM.
pub const CARDS: [(u16, u16); 2] = [(0x8086, 0x100e), (0x8086, 0x100f)];

/// Descriptors of a ring.
pub const RING: u16 = 256;
/// Bytes of a ring.
pub const RING_BYTES: usize = RING as usize * DESCRIPTOR;
/// Bytes of a buffer.
pub const BUFFER: usize = 2048;
/// Bytes of the buffers of a ring, one behind the other.
pub const BUFFERS_BYTES: usize = RING as usize * BUFFER;
/// The longest frame, with the tag of a virtual LAN and without the frame check sequence.
pub const MAX_FRAME: usize = 1518;

const DESCRIPTOR: usize = 16;

/// The next place in a ring.
const fn after(place: u16) -> u16 {
    match place.checked_add(1) {
        Some(next) if next < RING => next,
        _ => 0,
    }
}

/// The place before that.
const fn before(place: u16) -> u16 {
    match place.checked_sub(1) {
        Some(before) => before,
        None => RING.saturating_sub(1),
    }
}

/// Where a descriptor is in its ring, in bytes.
fn descriptor(place: u16) -> usize {
    usize::from(place).saturating_mul(DESCRIPTOR)
}

/// Where a buffer is for the card.
fn buffer(buffers: u64, place: u16) -> u64 {
    let offset = u64::from(place).saturating_mul(BUFFER as u64);
    buffers.saturating_add(offset)
}
