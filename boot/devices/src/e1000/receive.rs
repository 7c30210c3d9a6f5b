//! Frames that come in: "Packet Reception" of the manual.

use super::registers::{MPC, RECEIVE};
use super::start::Memory;
use super::{BUFFER, RING, after, before, buffer, descriptor};
use crate::{DmaMemory, Registers};

/// A frame's shortest length: its header.
const MIN_FRAME: usize = 14;

/// The card has filled the buffer.
const DONE: u8 = 1;
/// It holds the end of a frame.
const END: u8 = 1 << 1;
/// Errors of the frame as a whole; those of checksums inside are for the receiver to find.
const ERRORS: u8 = 0b1001_0111;

/// A frame that came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// The number of its buffer, below [`RING`].
    pub buffer: u16,
    /// Its length, 14 to [`BUFFER`].
    pub len: u16,
}

/// A buffer holds no whole good frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// The receiving half of a card.
#[derive(Debug)]
pub struct Receive<R, M> {
    registers: R,
    memory: Memory<M>,
    /// The next buffer that the card fills, or has filled.
    next: u16,
    /// Buffers were given back that the card does not know of.
    unsaid: bool,
    /// The end of a frame that is too long has not come yet.
    in_long_frame: bool,
}

impl<R: Registers, M: DmaMemory> Receive<R, M> {
    pub(super) fn new(registers: R, memory: Memory<M>) -> Self {
        let mut receive = Self {
            registers,
            memory,
            next: 0,
            unsaid: false,
            in_long_frame: false,
        };
        for place in 0..RING {
            receive.clear(place);
        }
        receive
    }

    /// What came in next, if anything did; [`Receive::give_back`] goes on behind it.
    pub fn look(&self) -> Option<Result<Received, Broken>> {
        let at = descriptor(self.next).saturating_add(8);
        // In one go: length and checksum, 2 bytes each, status, errors.
        let [a, b, _, _, status, errors, _, _] = self.memory.ring.read64(at).to_le_bytes();
        if status & DONE == 0 {
            return None;
        }
        let len = u16::from_le_bytes([a, b]);
        let is_whole = status & END != 0 && !self.in_long_frame;
        let is_good =
            is_whole && errors & ERRORS == 0 && (MIN_FRAME..=BUFFER).contains(&usize::from(len));
        let buffer = self.next;
        Some(is_good.then_some(Received { buffer, len }).ok_or(Broken))
    }

    /// Gives the buffer that [`Receive::look`] told of back to the card, which hears of it by
    /// [`Receive::publish`].
    pub fn give_back(&mut self) {
        let at = descriptor(self.next).saturating_add(8);
        let [.., status, _, _, _] = self.memory.ring.read64(at).to_le_bytes();
        self.in_long_frame = status & END == 0;
        self.clear(self.next);
        self.next = after(self.next);
        self.unsaid = true;
    }

    /// Tells the card of the buffers that it was given back.
    pub fn publish(&mut self) {
        if core::mem::take(&mut self.unsaid) {
            self.registers
                .write32(RECEIVE.tail(), before(self.next).into());
        }
    }

    /// How many frames found no room since the last call.
    pub fn missed(&self) -> u32 {
        match self.registers.read32(MPC) {
            // A card that is gone.
            u32::MAX => 0,
            missed => missed,
        }
    }

    /// Writes a descriptor as the card wants it for an empty buffer.
    fn clear(&mut self, place: u16) {
        let at = descriptor(place);
        let buffer = buffer(self.memory.buffers, place);
        self.memory.ring.write64(at.saturating_add(8), 0);
        self.memory.ring.write64(at, buffer);
    }
}
