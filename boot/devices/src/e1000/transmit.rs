//! Frames that go out: "Packet Transmission" of the manual.

use super::registers::TRANSMIT;
use super::start::Memory;
use super::{MAX_FRAME, RING, after, before, buffer, descriptor};
use crate::{DmaMemory, Registers};

/// The descriptor ends a frame, to which the card adds the check sequence; it says when it is done.
const COMMAND: u64 = 0b1011 << 24;
/// The card is done.
const DONE: u32 = 1;

/// The transmitting half of a card.
#[derive(Debug)]
pub struct Transmit<R, M> {
    registers: R,
    memory: Memory<M>,
    /// The first place that the card has not been found done with.
    clean: u16,
    /// Where the next frame goes.
    next: u16,
    /// Frames were put in that the card does not know of.
    unsaid: bool,
}

impl<R: Registers, M: DmaMemory> Transmit<R, M> {
    pub(super) const fn new(registers: R, memory: Memory<M>) -> Self {
        Self {
            registers,
            memory,
            clean: 0,
            next: 0,
            unsaid: false,
        }
    }

    /// How many frames can be put in. Looks for those that have been sent.
    pub fn room(&mut self) -> u16 {
        while self.clean != self.next {
            let at = descriptor(self.clean).saturating_add(12);
            if self.memory.ring.read32(at) & DONE == 0 {
                break;
            }
            self.clean = after(self.clean);
        }
        let waiting = match self.next.checked_sub(self.clean) {
            Some(waiting) => waiting,
            None => RING.saturating_sub(self.clean).saturating_add(self.next),
        };
        // All places taken would look like none.
        before(0).saturating_sub(waiting)
    }

    /// The number of the buffer that the next frame goes into.
    #[must_use]
    pub const fn buffer(&self) -> u16 {
        self.next
    }

    /// Puts the frame in that the buffer holds; there is [`Transmit::room`]. The card hears of it by
    /// [`Transmit::publish`].
    pub fn put(&mut self, len: usize) {
        let at = descriptor(self.next);
        let buffer = buffer(self.memory.buffers, self.next);
        let len = len.min(MAX_FRAME) as u64;
        self.memory.ring.write64(at, buffer);
        self.memory
            .ring
            .write64(at.saturating_add(8), COMMAND | len);
        self.next = after(self.next);
        self.unsaid = true;
    }

    /// Has the card send what was put in.
    pub fn publish(&mut self) {
        if core::mem::take(&mut self.unsaid) {
            self.registers.write32(TRANSMIT.tail(), self.next.into());
        }
    }
}
