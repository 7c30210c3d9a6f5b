//! Port I/O: a PVH guest has no devices behind ports. Reads give all ones, writes vanish.

use abi::Gva;
use vmx::exit::{AddressSize, IoAccess, StringIo};
use vmx::vmcs::field;

use super::Outcome;
use crate::vcpu::Running;

/// Elements of a string instruction that one exit handles; the guest executes the rest again.
const STRING_LIMIT: u64 = 256;
/// RFLAGS.DF.
const DIRECTION_FLAG: u64 = 1 << 10;

/// Handles an I/O instruction.
#[inline(never)]
pub fn handle(v: &mut Running<'_>, access: IoAccess) -> Outcome {
    match access.string {
        Some(string) => string_io(v, access, string),
        None => {
            if access.input {
                let regs = &mut v.cpu.regs;
                regs.rax = all_ones(regs.rax, access.size);
            }
            Outcome::Done
        }
    }
}

/// RAX after reading all ones of `size` bytes: a 32-bit result clears the upper half.
const fn all_ones(rax: u64, size: u8) -> u64 {
    match size {
        1 => rax | 0xff,
        2 => rax | 0xffff,
        _ => 0xffff_ffff,
    }
}

/// INS and OUTS, with or without REP (SDM 2A, "INS/INSB/INSW/INSD—Input from Port to String").
#[inline(never)]
fn string_io(v: &mut Running<'_>, access: IoAccess, string: StringIo) -> Outcome {
    let mask = string.address_size.mask();
    let count = if access.rep { v.cpu.regs.rcx & mask } else { 1 };
    let batch = count.min(STRING_LIMIT);
    let size = u64::from(access.size);
    let backward = v.vmcs.read(field::GUEST_RFLAGS) & DIRECTION_FLAG != 0;
    let step = if backward { size.wrapping_neg() } else { size };
    for index in 0..batch {
        if access.input {
            let at = Gva::new(string.linear.raw().wrapping_add(index.wrapping_mul(step)));
            let ones = [0xff; 4];
            let bytes = ones.get(..usize::from(access.size)).unwrap_or(&ones);
            if let Err(fault) = v.write_linear(at, bytes) {
                retire(v, access, string.address_size, index, step);
                return Outcome::Fault(fault);
            }
        }
    }
    retire(v, access, string.address_size, batch, step);
    if batch == count {
        Outcome::Done
    } else {
        Outcome::Again
    }
}

/// Moves RCX and RSI or RDI past `done` elements.
fn retire(v: &mut Running<'_>, access: IoAccess, width: AddressSize, done: u64, step: u64) {
    let regs = &mut v.cpu.regs;
    let moved = |old: u64, by: u64| merge(old, old.wrapping_add(by), width);
    let by = done.wrapping_mul(step);
    if access.input {
        regs.rdi = moved(regs.rdi, by);
    } else {
        regs.rsi = moved(regs.rsi, by);
    }
    if access.rep {
        regs.rcx = moved(regs.rcx, done.wrapping_neg());
    }
}

/// A register after an instruction with this address size wrote `new` to it.
const fn merge(old: u64, new: u64, width: AddressSize) -> u64 {
    match width {
        AddressSize::Bits16 => (old & !0xffff) | (new & 0xffff),
        AddressSize::Bits32 => new & 0xffff_ffff,
        AddressSize::Bits64 => new,
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressSize, all_ones, merge};

    #[test]
    fn a_read_changes_only_its_bytes() {
        assert_eq!(all_ones(0x1234_5678_9abc_de00, 1), 0x1234_5678_9abc_deff);
        assert_eq!(all_ones(0x1234_5678_9abc_0000, 2), 0x1234_5678_9abc_ffff);
        assert_eq!(all_ones(u64::MAX, 4), 0xffff_ffff);
    }

    #[test]
    fn address_size_bounds_what_a_string_instruction_moves() {
        assert_eq!(merge(0x1_ffff, 0x2_0001, AddressSize::Bits16), 0x1_0001);
        assert_eq!(merge(u64::MAX, 0x1_0000_0001, AddressSize::Bits32), 1);
    }
}
