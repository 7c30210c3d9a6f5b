//! The move that drivers reach their devices with, by a way that is shorter than the general one.
//!
//! It is MOV between a register and memory, of 32 or 64 bits, in 64-bit mode, to an address that is
//! made of 64-bit registers and a displacement. Whatever is not as plain is left to the general
//! way, which does these moves as well.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use abi::{Gpa, Gva, PAGE_SIZE};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::alu::Width;
use super::operand::Gpr;
use super::{Access, CodeWidth, Machine, Outcome};

/// A plain move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlainMove {
    access: Access,
    register: u8,
    wide: bool,
    /// Bytes of the instruction.
    len: u8,
    base: Option<u8>,
    /// A register, and the power of two that it is multiplied with.
    index: Option<(u8, u32)>,
    displacement: u64,
}

impl PlainMove {
    /// What a decoded instruction is, if it is a plain move.
    pub(super) fn of(insn: &Instruction, width: CodeWidth) -> Option<Self> {
        let (access, operand) = match (insn.op_kind(0), insn.op_kind(1)) {
            (OpKind::Register, OpKind::Memory) => (Access::Read, 0),
            (OpKind::Memory, OpKind::Register) => (Access::Write, 1),
            _ => return None,
        };
        let based = !matches!(insn.memory_segment(), Register::FS | Register::GS);
        if width != CodeWidth::Bits64 || insn.mnemonic() != Mnemonic::Mov || !based {
            return None;
        }
        let register = Gpr::of(insn.op_register(operand))?;
        let wide = match register.width {
            Width::Double => false,
            Width::Quad => true,
            Width::Byte | Width::Word => return None,
        };
        // The decoder has added RIP to the displacement already.
        let base = match insn.memory_base() {
            Register::RIP => None,
            base => Some(whole(base)?),
        };
        let index = match insn.memory_index() {
            Register::None => None,
            index => Some((whole(index)?, insn.memory_index_scale().checked_ilog2()?)),
        };
        Some(Self {
            access,
            register: register.number,
            wide,
            len: u8::try_from(insn.len()).ok()?,
            base,
            index,
            displacement: insn.memory_displacement64(),
        })
    }

    /// Carries it out, at `rip`; nothing has changed when it takes the general way.
    #[inline]
    pub fn emulate<M: Machine>(self, machine: &mut M, rip: u64) -> Option<Outcome> {
        let mut address = self.displacement;
        if let Some(base) = self.base {
            address = address.wrapping_add(machine.gpr(base));
        }
        if let Some((index, scale)) = self.index {
            address = address.wrapping_add(machine.gpr(index).wrapping_shl(scale));
        }
        let address = Gva::new(address);
        let len = if self.wide { 8 } else { 4 };
        if address.page_offset() > PAGE_SIZE.wrapping_sub(len) {
            return None;
        }
        Some(match machine.translate(address, self.access) {
            Ok(gpa) => {
                self.carry_out(machine, gpa);
                let next_rip = rip.wrapping_add(u64::from(self.len));
                Outcome::Done { next_rip }
            }
            Err(fault) => Outcome::Fault(fault),
        })
    }

    fn carry_out<M: Machine>(self, machine: &mut M, gpa: Gpa) {
        match (self.access, self.wide) {
            (Access::Read, false) => {
                let mut bytes = [0; 4];
                machine.read(gpa, &mut bytes);
                machine.set_gpr(self.register, u32::from_le_bytes(bytes).into());
            }
            (Access::Read, true) => {
                let mut bytes = [0; 8];
                machine.read(gpa, &mut bytes);
                machine.set_gpr(self.register, u64::from_le_bytes(bytes));
            }
            (Access::Write, false) => {
                let [a, b, c, d, ..] = machine.gpr(self.register).to_le_bytes();
                machine.write(gpa, &[a, b, c, d]);
            }
            (Access::Write, true) => {
                let bytes = machine.gpr(self.register).to_le_bytes();
                machine.write(gpa, &bytes);
            }
        }
    }
}

/// The number of a 64-bit register.
fn whole(register: Register) -> Option<u8> {
    Gpr::of(register)
        .filter(|gpr| gpr.width == Width::Quad)
        .map(|gpr| gpr.number)
}
