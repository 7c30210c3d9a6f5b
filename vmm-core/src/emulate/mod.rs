//! Emulation of one instruction whose memory operand is not RAM.
//!
//! An access outside RAM exits with an EPT violation. The caller copies the instruction's bytes
//! once, has them decoded ([`Recent`]) and calls [`emulate`], which carries the instruction out on a
//! [`Machine`]: plain moves, string moves, arithmetic, logic and bit tests. Whatever else a guest
//! uses there ends it, with the bytes in the crash line.
//!
//! An operand is translated, for writing where it will be written, before anything changes: a
//! fault leaves the vCPU as it was, but for the iterations a string instruction has behind it.
//! Segment limits are not looked at; the processor has passed the access that led here.
//!
//! SDM 2, "Instruction Set Reference".
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod alu;
mod execute;
mod operand;
mod plain;
mod recent;
mod string;

use abi::{Gpa, Gva};
use iced_x86::{Decoder, DecoderOptions, Instruction};

pub use recent::{Decoded, Recent};

use crate::fault::{GuestFault, InsnBytes};

/// The width of code, from the code segment and IA32_EFER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeWidth {
    /// Real-address mode, virtual-8086 mode, and 16-bit segments.
    Bits16,
    /// 32-bit segments.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

/// A segment register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// What an instruction does to its operand in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes it, or reads and writes it.
    Write,
}

/// The vCPU that executes the instruction.
pub trait Machine {
    /// A general-purpose register by its encoding: 0 is RAX, 4 is RSP, 15 is R15.
    fn gpr(&mut self, number: u8) -> u64;
    /// Sets all 64 bits of a general-purpose register.
    fn set_gpr(&mut self, number: u8, value: u64);
    /// RFLAGS.
    fn rflags(&mut self) -> u64;
    /// Sets RFLAGS.
    fn set_rflags(&mut self, rflags: u64);
    /// The base of a segment; in 64-bit mode asked for FS and GS only.
    fn segment_base(&mut self, segment: Segment) -> u64;
    /// Translates an address with the guest's page tables, its privilege level and `access`.
    ///
    /// # Errors
    /// The fault the access would raise: #PF, or #GP for an address that is not canonical.
    fn translate(&mut self, address: Gva, access: Access) -> Result<Gpa, GuestFault>;
    /// Reads up to eight bytes that do not cross a page, from RAM, a device or nothing at all.
    fn read(&mut self, gpa: Gpa, bytes: &mut [u8]);
    /// Writes up to eight bytes that do not cross a page.
    fn write(&mut self, gpa: Gpa, bytes: &[u8]);
    /// True when a repeated instruction is to stop between two iterations, because the vCPU has
    /// something else to do first.
    fn is_wanted_elsewhere(&mut self) -> bool;
}

/// What became of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is complete; go on at `next_rip`.
    Done {
        /// The address of the next instruction.
        next_rip: u64,
    },
    /// A repeated string instruction has iterations left: execute it again.
    Repeat,
    /// It raises this fault.
    Fault(GuestFault),
    /// It is not emulated.
    Unsupported(InsnBytes),
}

/// Why an instruction is not complete.
enum Stop {
    Repeat,
    Fault(GuestFault),
    Unsupported,
}

impl From<GuestFault> for Stop {
    fn from(fault: GuestFault) -> Self {
        Self::Fault(fault)
    }
}

/// Decodes the instruction at `rip`, whose first bytes are `bytes`.
#[inline(never)]
#[must_use]
pub fn decode(bytes: &[u8], rip: u64, width: CodeWidth) -> Instruction {
    let bits = match width {
        CodeWidth::Bits16 => 16,
        CodeWidth::Bits32 => 32,
        CodeWidth::Bits64 => 64,
    };
    match Decoder::try_with_ip(bits, bytes, rip, DecoderOptions::NONE) {
        Ok(mut decoder) => decoder.decode(),
        Err(_) => Instruction::default(),
    }
}

/// Has the decoder make its tables, which takes some 840,000 instructions, before a guest's exit
/// needs them.
pub fn prepare() {
    const NOP: u8 = 0x90;
    let _ = decode(&[NOP], 0, CodeWidth::Bits64);
}

/// Executes a decoded instruction, which is at `rip` and whose first bytes are `bytes`, on
/// `machine`.
pub fn emulate<M: Machine>(
    machine: &mut M,
    insn: &Instruction,
    bytes: &[u8],
    rip: u64,
    width: CodeWidth,
) -> Outcome {
    let mut run = Run {
        machine,
        insn,
        width,
    };
    match run.execute() {
        Ok(()) => Outcome::Done {
            next_rip: next_rip(rip, insn, width),
        },
        Err(Stop::Repeat) => Outcome::Repeat,
        Err(Stop::Fault(fault)) => Outcome::Fault(fault),
        Err(Stop::Unsupported) => {
            let shown = if insn.is_invalid() {
                InsnBytes::MAX
            } else {
                insn.len()
            };
            Outcome::Unsupported(InsnBytes::new(bytes.get(..shown).unwrap_or(bytes)))
        }
    }
}

fn next_rip(rip: u64, insn: &Instruction, width: CodeWidth) -> u64 {
    let next = rip.wrapping_add(insn.len() as u64);
    match width {
        CodeWidth::Bits64 => next,
        CodeWidth::Bits16 | CodeWidth::Bits32 => next & 0xffff_ffff,
    }
}

/// One instruction on its machine.
struct Run<'a, M> {
    machine: &'a mut M,
    insn: &'a Instruction,
    width: CodeWidth,
}

#[cfg(test)]
fn emulate_bytes<M: Machine>(machine: &mut M, bytes: &[u8], rip: u64, width: CodeWidth) -> Outcome {
    emulate(machine, &decode(bytes, rip, width), bytes, rip, width)
}

#[cfg(test)]
mod native_tests;
#[cfg(test)]
mod tests;
