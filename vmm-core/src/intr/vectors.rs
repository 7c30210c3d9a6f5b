//! A set of interrupt vectors, as IRR and ISR hold it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

/// 256 vectors, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct VectorSet([u64; 4]);

/// The word and the bit of `vector` in an array of 64-bit words.
pub(super) const fn position(vector: u8) -> (usize, u64) {
    (
        (vector >> 6) as usize,
        1_u64.rotate_left((vector & 63) as u32),
    )
}

impl VectorSet {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        let [w0, w1, w2, w3] = self.0;
        w0 | w1 | w2 | w3 == 0
    }

    pub(super) fn insert(&mut self, vector: u8) {
        let (word, bit) = position(vector);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    pub(super) fn remove(&mut self, vector: u8) {
        let (word, bit) = position(vector);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Adds the 64 vectors that start at `index * 64`.
    pub(super) fn insert_word(&mut self, index: usize, bits: u64) {
        if let Some(word) = self.0.get_mut(index) {
            *word |= bits;
        }
    }

    /// The highest vector of the set.
    pub(super) fn highest(&self) -> Option<u8> {
        let [w0, w1, w2, w3] = self.0;
        for (base, word) in [(192, w3), (128, w2), (64, w1), (0, w0)] {
            if let Some(bit) = word.checked_ilog2() {
                return u8::try_from(bit).ok().map(|bit| base | bit);
            }
        }
        None
    }

    /// The register `index` (0 to 7) of the eight 32-bit ones that show the set.
    pub(super) fn register(&self, index: u32) -> u32 {
        let word = self.0.get((index >> 1) as usize).copied().unwrap_or(0);
        let half = if index & 1 == 0 { word } else { word >> 32 };
        u32::try_from(half & 0xffff_ffff).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::VectorSet;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn highest_is_the_maximum(vectors: std::vec::Vec<u8>, gone in any::<u8>()) {
            let mut set = VectorSet::default();
            for &vector in &vectors {
                set.insert(vector);
            }
            set.remove(gone);
            let left = vectors.iter().copied().filter(|&v| v != gone).max();
            assert_eq!(set.highest(), left);
            for vector in 0..=255_u8 {
                let shown = set.register(u32::from(vector) / 32) >> (vector % 32) & 1;
                assert_eq!(shown == 1, vectors.contains(&vector) && vector != gone);
            }
        }
    }
}
