//! Numbers that look random and are the same each time.

use super::Choice;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
#[derive(Clone, Copy, Debug)]
pub struct Generator(u64);

impl Generator {
    /// A generator that starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Choice for Generator {
    fn below(&mut self, end: u32) -> u32 {
        let [a, b, c, d, ..] = self.any().to_le_bytes();
        u32::from_le_bytes([a, b, c, d]) % end
    }

    fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
