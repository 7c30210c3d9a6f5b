//! The instruction that was decoded last: a driver accesses its device from the same place again
//! and again, and decoding is a quarter of the work.

use iced_x86::Instruction;

use super::plain::PlainMove;
use super::{CodeWidth, decode};
use crate::fault::InsnBytes;

/// Remembers one instruction, with all that its decoding depends on.
#[derive(Debug)]
pub struct Recent {
    code: [u8; InsnBytes::MAX],
    rip: u64,
    /// `None` when nothing has been decoded.
    width: Option<CodeWidth>,
    decoded: Decoded,
}

/// A decoded instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// As the decoder describes it.
    pub insn: Instruction,
    /// The same, if it is no more than a plain move.
    pub plain: Option<PlainMove>,
}

impl Default for Recent {
    fn default() -> Self {
        Self::new()
    }
}

impl Recent {
    /// Remembers nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            code: [0; InsnBytes::MAX],
            rip: 0,
            width: None,
            decoded: Decoded {
                insn: Instruction::default(),
                plain: None,
            },
        }
    }

    /// The instruction at `rip` whose first bytes are `code`.
    pub fn decode(&mut self, code: &[u8; InsnBytes::MAX], rip: u64, width: CodeWidth) -> &Decoded {
        if self.rip != rip || self.width != Some(width) || self.code != *code {
            self.code = *code;
            self.rip = rip;
            self.width = Some(width);
            let insn = decode(code, rip, width);
            let plain = PlainMove::of(&insn, width);
            self.decoded = Decoded { insn, plain };
        }
        &self.decoded
    }
}

#[cfg(test)]
mod tests {
    use super::{CodeWidth, Recent, decode};

    #[test]
    fn what_is_remembered_is_what_decoding_gives() {
        let mut recent = Recent::new();
        // mov eax, [rip + 0x10]; mov eax, [0x10] in 32-bit code; mov eax, ebx; something invalid.
        let codes: [&[u8]; 4] = [
            &[0x8b, 0x05, 0x10],
            &[0x8b, 0x04, 0x25],
            &[0x89, 0xd8],
            &[6],
        ];
        for rip in [0x1000, 0x1000, 0x2000] {
            for code in codes {
                let mut bytes = [0; 15];
                bytes[..code.len()].copy_from_slice(code);
                for width in [CodeWidth::Bits64, CodeWidth::Bits32, CodeWidth::Bits32] {
                    let expected = decode(&bytes, rip, width);
                    assert_eq!(recent.decode(&bytes, rip, width).insn, expected);
                }
            }
        }
    }
}
