//! The task-state segment in memory: SDM 3A, "Task-State Segment (TSS)" and "16-Bit Task-State
//! Segment (TSS)".
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{General, Selectors};

/// The size of the largest state, in bytes.
pub(super) const MAX_SIZE: usize = 104;

/// The two formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The 80286's.
    Bits16,
    /// The 80386's.
    Bits32,
}

/// What a task has of a processor, as a TSS holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Image {
    /// CR3; the 16-bit format has none.
    pub(super) cr3: Option<u32>,
    pub(super) eip: u32,
    pub(super) eflags: u32,
    pub(super) general: General,
    pub(super) selectors: Selectors,
    pub(super) ldt: u16,
    /// The T flag: a debug trap when the task begins.
    pub(super) trap: bool,
}

impl Format {
    /// From the type in a TSS descriptor.
    pub(super) const fn of(kind: u8) -> Self {
        if kind & 8 != 0 {
            Self::Bits32
        } else {
            Self::Bits16
        }
    }

    /// The bytes that a switch reads.
    pub(super) const fn size(self) -> usize {
        match self {
            Self::Bits16 => 44,
            Self::Bits32 => MAX_SIZE,
        }
    }

    /// The bytes that a switch away from the task writes: from the instruction pointer to the
    /// last segment selector.
    pub(super) const fn saved(self) -> (usize, usize) {
        match self {
            Self::Bits16 => (14, 42),
            Self::Bits32 => (32, 96),
        }
    }

    /// Puts what a switch saves into the TSS.
    pub(super) fn save(
        self,
        tss: &mut [u8; MAX_SIZE],
        eip: u32,
        eflags: u32,
        general: &General,
        selectors: &Selectors,
    ) {
        let (start, _) = self.saved();
        let words = [eip, eflags].into_iter().chain(*general);
        match self {
            Self::Bits16 => {
                // FS and GS have no place in it.
                let words = words.map(low).chain(selectors.iter().copied().take(4));
                for (index, word) in (0..MAX_SIZE).zip(words) {
                    put(tss, at(start, index, 2), &word.to_le_bytes());
                }
            }
            Self::Bits32 => {
                for (index, word) in (0..MAX_SIZE).zip(words) {
                    put(tss, at(start, index, 4), &word.to_le_bytes());
                }
                for (index, selector) in selectors.iter().enumerate() {
                    put(
                        tss,
                        at(start, index.saturating_add(10), 4),
                        &selector.to_le_bytes(),
                    );
                }
            }
        }
    }

    /// Reads a task.
    pub(super) fn load(self, tss: &[u8; MAX_SIZE]) -> Image {
        let (start, _) = self.saved();
        match self {
            Self::Bits16 => {
                let word = |index| get16(tss, at(start, index, 2));
                // The upper halves are not the task's; processors set them.
                let register = |index: usize| 0xffff_0000 | u32::from(word(index));
                Image {
                    cr3: None,
                    eip: u32::from(word(0)),
                    eflags: u32::from(word(1)),
                    general: core::array::from_fn(|index| register(index.saturating_add(2))),
                    selectors: core::array::from_fn(|index| {
                        if index < 4 {
                            word(index.saturating_add(10))
                        } else {
                            0
                        }
                    }),
                    ldt: word(14),
                    trap: false,
                }
            }
            Self::Bits32 => {
                let word = |index| get32(tss, at(start, index, 4));
                Image {
                    cr3: Some(get32(tss, 28)),
                    eip: word(0),
                    eflags: word(1),
                    general: core::array::from_fn(|index| word(index.saturating_add(2))),
                    selectors: core::array::from_fn(|index| low(word(index.saturating_add(10)))),
                    ldt: low(word(16)),
                    trap: get16(tss, 100) & 1 != 0,
                }
            }
        }
    }
}

/// Offset of an element of `size` bytes.
const fn at(start: usize, index: usize, size: usize) -> usize {
    start.saturating_add(index.saturating_mul(size))
}

const fn low(word: u32) -> u16 {
    (word & 0xffff) as u16
}

fn put(tss: &mut [u8; MAX_SIZE], at: usize, bytes: &[u8]) {
    for (slot, byte) in tss.iter_mut().skip(at).zip(bytes) {
        *slot = *byte;
    }
}

fn get16(tss: &[u8; MAX_SIZE], at: usize) -> u16 {
    let bytes = tss.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u16::from_le_bytes)
}

fn get32(tss: &[u8; MAX_SIZE], at: usize) -> u32 {
    let bytes = tss.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::{Format, MAX_SIZE};

    const GENERAL: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 0x8_0008];
    const SELECTORS: [u16; 6] = [0x10, 0x18, 0x20, 0x28, 0x30, 0x38];

    #[test]
    fn what_is_saved_comes_back() {
        let mut tss = [0; MAX_SIZE];
        Format::Bits32.save(&mut tss, 0x1234_5678, 0x202, &GENERAL, &SELECTORS);
        let image = Format::Bits32.load(&tss);
        assert_eq!((image.eip, image.eflags), (0x1234_5678, 0x202));
        assert_eq!((image.general, image.selectors), (GENERAL, SELECTORS));
        assert_eq!((image.cr3, image.ldt, image.trap), (Some(0), 0, false));
    }

    #[test]
    fn the_short_format_keeps_lower_halves() {
        let mut tss = [0; MAX_SIZE];
        Format::Bits16.save(&mut tss, 0x1234_5678, 0x202, &GENERAL, &SELECTORS);
        let image = Format::Bits16.load(&tss);
        assert_eq!((image.eip, image.eflags), (0x5678, 0x202));
        assert_eq!(image.general[7], 0xffff_0008);
        assert_eq!(image.selectors, [0x10, 0x18, 0x20, 0x28, 0, 0]);
        assert!(tss[42..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn fields_are_where_the_manual_has_them() {
        let mut tss = [0; MAX_SIZE];
        Format::Bits32.save(&mut tss, 0, 0, &GENERAL, &SELECTORS);
        assert_eq!(
            (tss[0x28], tss[0x44], tss[0x48], tss[0x5c]),
            (1, 8, 0x10, 0x38)
        );
        tss[0x1c..0x20].copy_from_slice(&[0, 0x10, 0, 0]);
        (tss[0x60], tss[0x64]) = (0x40, 1);
        let image = Format::Bits32.load(&tss);
        assert_eq!(
            (image.cr3, image.ldt, image.trap),
            (Some(0x1000), 0x40, true)
        );
    }
}
