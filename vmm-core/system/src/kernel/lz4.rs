//! One block of LZ4, unpacked in steps.
//!
//! A block is a row of *sequences* (LZ4 Block Format Description, in LZ4's own `doc`): a token with two
//! lengths, bytes to be taken as they are, and where in the output the bytes behind those stand already.
//! Decoders that are packaged unpack a block in one go, and a stock kernel's have 8 MiB.

/// How many bytes are unpacked in a step.
const STEP: usize = 2048;
/// Bytes of a length that are read in a step.
const LENGTH_STEP: u32 = 2048;
/// A length of so much goes on in the next byte.
const MORE: u8 = 15;
/// The shortest repetition.
const MIN_MATCH: usize = 4;
/// Most pieces are short: up to so many bytes are copied as so many, what is too much being written
/// over by the next piece.
const SHORT: usize = 16;

/// Unpacks a block to the beginning of `out`, of which more may be changed; tells how much that was.
/// `None` for a bad block, or one for which there is no room. Calls `give_way` between steps.
pub(super) fn unpack(block: &[u8], out: &mut [u8], give_way: &mut dyn FnMut()) -> Option<usize> {
    let mut rest = block;
    let mut unpacked = Unpacked {
        out,
        at: 0,
        rested: 0,
        give_way,
    };
    loop {
        let token = byte(&mut rest)?;
        let literals = unpacked.length(&mut rest, token >> 4)?;
        unpacked.append(&mut rest, literals)?;
        let Some((offset, behind)) = rest.split_first_chunk() else {
            return rest.is_empty().then_some(unpacked.at);
        };
        rest = behind;
        let count = unpacked.length(&mut rest, token & MORE)?;
        let offset = u16::from_le_bytes(*offset);
        unpacked.repeat(offset.into(), count.checked_add(MIN_MATCH)?)?;
    }
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

/// What has been unpacked so far.
struct Unpacked<'a> {
    out: &'a mut [u8],
    at: usize,
    /// Where it was when the caller had its last call.
    rested: usize,
    give_way: &'a mut dyn FnMut(),
}

impl Unpacked<'_> {
    /// The rest of a length that begins in a token.
    #[inline]
    fn length(&mut self, rest: &mut &[u8], begun: u8) -> Option<usize> {
        if begun == MORE {
            self.long(rest)
        } else {
            Some(begun.into())
        }
    }

    fn long(&mut self, rest: &mut &[u8]) -> Option<usize> {
        let mut length = usize::from(MORE);
        for count in 1_u32.. {
            let more = byte(rest)?;
            length = length.checked_add(more.into())?;
            if more != u8::MAX {
                break;
            }
            if count.is_multiple_of(LENGTH_STEP) {
                (self.give_way)();
            }
        }
        Some(length)
    }

    /// Takes bytes as they are.
    #[inline]
    fn append(&mut self, rest: &mut &[u8], count: usize) -> Option<()> {
        if count <= SHORT
            && let Some(from) = rest.first_chunk::<SHORT>()
            && let Some(to) = self.out.get_mut(self.at..)?.first_chunk_mut()
        {
            *to = *from;
            *rest = rest.get(count..)?;
            self.moved(count);
            return Some(());
        }
        let (bytes, behind) = rest.split_at_checked(count)?;
        *rest = behind;
        for part in bytes.chunks(STEP) {
            let end = self.at.checked_add(part.len())?;
            self.out.get_mut(self.at..end)?.copy_from_slice(part);
            self.moved(part.len());
        }
        Some(())
    }

    /// Takes `count` bytes from `offset` bytes back on; what is written may be among them.
    #[inline]
    fn repeat(&mut self, offset: usize, count: usize) -> Option<()> {
        let from = self.at.checked_sub(offset).filter(|_| offset != 0)?;
        if count <= SHORT
            && offset >= SHORT
            && let Some(bytes) = self.out.get(from..)?.first_chunk::<SHORT>().copied()
            && let Some(to) = self.out.get_mut(self.at..)?.first_chunk_mut()
        {
            *to = bytes;
            self.moved(count);
            return Some(());
        }
        // A whole number of periods, of which each time twice as many are there.
        let mut back = offset;
        let mut left = count;
        while left != 0 {
            let now = left.min(back).min(STEP);
            let from = self.at.checked_sub(back)?;
            let (before, behind) = self.out.split_at_mut_checked(self.at)?;
            let source = before.get(from..)?.get(..now)?;
            behind.get_mut(..now)?.copy_from_slice(source);
            self.moved(now);
            left = left.saturating_sub(now);
            if now == back {
                back = back.saturating_mul(2);
            }
        }
        Some(())
    }

    #[inline]
    fn moved(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
        if self.at.saturating_sub(self.rested) >= STEP {
            self.rested = self.at;
            (self.give_way)();
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::{STEP, unpack};
    use lz4_flex::block::{compress, decompress_into};
    use proptest::prelude::{
        Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    /// Bytes that repeat themselves near and far, and some that do not.
    fn data() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (any::<u8>(), 1..700_usize).prop_map(|(byte, count)| std::vec![byte; count]),
            prop::collection::vec(any::<u8>(), 1..80),
            prop::collection::vec(0..3_u8, 1..600),
            (prop::collection::vec(any::<u8>(), 1..30), 1..40_usize)
                .prop_map(|(bytes, count)| bytes.repeat(count)),
            // Longer than a step.
            (prop::collection::vec(any::<u8>(), 1..3 * STEP), 1..4_usize)
                .prop_map(|(bytes, count)| bytes.repeat(count)),
            (prop::collection::vec(any::<u8>(), 1..30), 200..500_usize)
                .prop_map(|(bytes, count)| bytes.repeat(count)),
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    fn agrees(block: &[u8], room: usize) {
        let (mut ours, mut theirs) = (std::vec![0; room], std::vec![0; room]);
        let wanted = decompress_into(block, &mut theirs).ok();
        assert_eq!(unpack(block, &mut ours, &mut || ()), wanted);
        if let Some(size) = wanted {
            assert_eq!(ours[..size], theirs[..size]);
        }
    }

    #[test]
    fn a_long_run_goes_in_steps() {
        let size = 3 << 20;
        for byte in [0, 1] {
            // All the same, or nothing like the other.
            let mut bytes = std::vec![0; size];
            let mut state = 1_u32;
            for place in bytes.iter_mut().filter(|_| byte != 0) {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *place = state.to_le_bytes()[3];
            }
            let (mut out, mut steps) = (std::vec![7; size], 0);
            let unpacked = unpack(&compress(&bytes), &mut out, &mut || steps += 1);
            assert_eq!(unpacked, Some(size));
            assert!(out == bytes);
            assert!(steps >= size / STEP, "{steps} steps");
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(data in data()) {
            let block = compress(&data);
            for more in [0, 1, 40] {
                let mut out = std::vec![0; data.len() + more];
                prop_assert_eq!(unpack(&block, &mut out, &mut || ()), Some(data.len()));
                prop_assert_eq!(&out[..data.len()], &data[..]);
            }
            if let Some(less) = data.len().checked_sub(1) {
                prop_assert!(unpack(&block, &mut std::vec![0; less], &mut || ()).is_none());
            }
        }

        #[test]
        fn a_changed_block_is_what_another_decoder_makes_of_it(
            data in data(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            room in 0..20_000_usize,
        ) {
            let mut block = compress(&data);
            for (at, byte) in changes {
                let at = at.index(block.len());
                block[at] = byte;
            }
            agrees(&block, room);
        }

        #[test]
        fn any_bytes_are_what_another_decoder_makes_of_them(
            block in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            agrees(&block, 3000);
        }
    }
}
