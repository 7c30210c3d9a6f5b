//! What a disk says of itself (IDENTIFY DEVICE).

use heapless::String;

use super::command;

/// Words of the answer.
pub(super) const WORDS: usize = 256;

const GENERAL: usize = 0;
const SERIAL: usize = 10;
const MODEL: usize = 27;
const CAPABILITIES: usize = 49;
const COMMANDS: usize = 83;
const SECTORS: usize = 100;
const SECTOR_SIZE: usize = 106;

const NO_ATA: u16 = 1 << 15;
const HAS_DMA: u16 = 1 << 8;
const HAS_LBA: u16 = 1 << 9;
/// What words 83 and 106 have in their upper bits when they mean something.
const VALID: u16 = 0b11 << 14;
const IS_VALID: u16 = 0b01 << 14;
const HAS_48_BITS: u16 = 1 << 10;
const HAS_FLUSH: u16 = 1 << 12;
const HAS_FLUSH_EXT: u16 = 1 << 13;
const LARGE_SECTORS: u16 = 1 << 12;

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The maker's name for its kind.
    pub model: String<40>,
    /// The maker's number for this one; empty if it has none.
    pub serial: String<20>,
    /// How many sectors of 512 bytes it has.
    pub sectors: u64,
    /// The command that has it bring on the medium what it holds back.
    pub(super) flush: u8,
}

impl Identity {
    /// Reads the answer.
    ///
    /// # Errors
    /// Why the disk cannot be used.
    pub(super) fn parse(words: &[u16; WORDS]) -> Result<Self, &'static str> {
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        let needs = HAS_DMA | HAS_LBA;
        if word(GENERAL) & NO_ATA != 0 {
            return Err("it is no ATA disk");
        }
        if word(CAPABILITIES) & needs != needs {
            return Err("it has no DMA");
        }
        let commands = word(COMMANDS);
        if commands & VALID != IS_VALID || commands & HAS_48_BITS == 0 {
            return Err("it has no 48-bit addresses");
        }
        let flush = if commands & HAS_FLUSH_EXT != 0 {
            command::FLUSH_CACHE_EXT
        } else if commands & HAS_FLUSH != 0 {
            command::FLUSH_CACHE
        } else {
            return Err("it cannot flush its cache");
        };
        let number = words.iter().skip(SECTORS).take(4).rev();
        let sectors = number.fold(0, |all, word| all << 16 | u64::from(*word));
        if !(1..=1 << 48).contains(&sectors) {
            return Err("it has no sectors");
        }
        let size = word(SECTOR_SIZE);
        if size & VALID == IS_VALID && size & LARGE_SECTORS != 0 {
            return Err("its sectors are not of 512 bytes");
        }
        Ok(Self {
            model: text(words, MODEL),
            serial: text(words, SERIAL),
            sectors,
            flush,
        })
    }
}

/// A text as long as `N` says, two characters in a word, the first in the upper half.
fn text<const N: usize>(words: &[u16], at: usize) -> String<N> {
    let words = words.iter().skip(at);
    let bytes = words.flat_map(|word| word.to_be_bytes()).take(N);
    let mut text: String<N> = String::new();
    for byte in bytes {
        let shown = if byte == b' ' || byte.is_ascii_graphic() {
            char::from(byte)
        } else {
            ' '
        };
        // There are at most `N`.
        let _ = text.push(shown);
    }
    // An ASCII text that fits still does without its spaces.
    String::try_from(text.trim()).unwrap_or_default()
}
