//! Choices made of bytes.

use calls::Choice;

/// The bytes that a target makes operations of. Where they have run out, every choice is the first.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// Choices made of these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// True when nothing is left to choose by.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.bytes.split_at(self.bytes.len().min(N));
        self.bytes = rest;
        let mut value = [0; N];
        value[..taken.len()].copy_from_slice(taken);
        value
    }

    /// A number below `end`, which is not 0, for an index.
    pub fn index(&mut self, end: usize) -> usize {
        let end = u32::try_from(end).expect("few things to choose from");
        self.below(end) as usize
    }

    /// One of two.
    pub fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Some bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.take()
    }
}

impl Choice for Input<'_> {
    fn below(&mut self, end: u32) -> u32 {
        if end <= 256 {
            u32::from(u8::from_le_bytes(self.take())) % end
        } else {
            u32::from_le_bytes(self.take()) % end
        }
    }

    fn any(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
