//! Last-branch records: the registers that keep where the CPU last jumped from and to.
//!
//! Which there are goes by the model (SDM 3B, "Last Branch Records"; SDM 4). CPUs since Alder
//! Lake and Sapphire Rapids have architectural ones instead, which IA32_DEBUGCTL.LBR does not
//! turn on. A VM exit clears IA32_DEBUGCTL, so nothing is recorded in the hypervisor, which uses
//! none of these registers: what is in them is the guest's.
#![expect(unsafe_code, reason = "reads and writes the records")]

use super::{cpuid, msr};

/// `IA32_DEBUGCTL`.
const IA32_DEBUGCTL: u32 = 0x1d9;
/// IA32_DEBUGCTL.LBR: branches are recorded.
pub const DEBUGCTL_LBR: u64 = 1 << 0;

/// `MSR_LBR_SELECT`, `MSR_LASTBRANCH_TOS`, `MSR_LER_FROM_LIP` and `MSR_LER_TO_LIP`.
const SINGLE: [u32; 4] = [0x1c8, 0x1c9, 0x1dd, 0x1de];
/// The most registers that a model has.
pub const MAX_REGISTERS: usize = SINGLE.len() + 3 * 32;

/// The registers of a CPU model.
#[derive(Debug, PartialEq, Eq)]
pub struct Stack {
    depth: u32,
    /// The first `MSR_LASTBRANCH_x_FROM_IP`, `MSR_LASTBRANCH_x_TO_IP` and, where they exist,
    /// `MSR_LBR_INFO_x`.
    columns: &'static [u32],
}

/// From Westmere, the first with unrestricted guests, to Broadwell.
const WESTMERE: Stack = Stack {
    depth: 16,
    columns: &[0x680, 0x6c0],
};
/// From Skylake to Rocket Lake, and the Atoms since Goldmont Plus.
const SKYLAKE: Stack = Stack {
    depth: 32,
    columns: &[0x680, 0x6c0, 0xdc0],
};
const GOLDMONT: Stack = Stack {
    depth: 32,
    columns: &[0x680, 0x6c0],
};
const SILVERMONT: Stack = Stack {
    depth: 8,
    columns: &[0x40, 0x60],
};

/// A register of a [`Stack`]: safe to write, as it has no effect on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u32);

impl Stack {
    /// What this CPU has, if it is a known model and the registers are really there: a
    /// hypervisor around this one may have none.
    #[must_use]
    pub fn detect() -> Option<&'static Self> {
        let stack = Self::of_model(cpuid::leaf(1, 0).eax)?;
        let there = stack.registers().all(|it| msr::rdmsr_safe(it.0).is_some());
        (there && can_be_on()).then_some(stack)
    }

    /// The registers of the model with this CPUID.1:EAX, if it is known.
    #[must_use]
    pub const fn of_model(signature: u32) -> Option<&'static Self> {
        let family = signature >> 8 & 0xf;
        let model = (signature >> 4 & 0xf) | (signature >> 12 & 0xf0);
        if family != 6 {
            return None;
        }
        Some(match model {
            0x25 | 0x2c | 0x2f | 0x2a | 0x2d | 0x3a | 0x3e | 0x3c | 0x3f | 0x45 | 0x46 | 0x3d
            | 0x47 | 0x4f | 0x56 => &WESTMERE,
            0x4e | 0x5e | 0x55 | 0x8e | 0x9e | 0x66 | 0x67 | 0xa5 | 0xa6 | 0x6a | 0x6c | 0x7d
            | 0x7e | 0x8a | 0x8c | 0x8d | 0xa7 | 0xa8 | 0x7a | 0x86 | 0x96 | 0x9c => &SKYLAKE,
            0x5c | 0x5f => &GOLDMONT,
            0x37 | 0x4a | 0x4c | 0x4d | 0x5a | 0x5d => &SILVERMONT,
            _ => return None,
        })
    }

    /// All registers, always in the same order.
    pub fn registers(&self) -> impl Iterator<Item = Register> + '_ {
        let columns = self.columns.iter();
        let stacked = columns.flat_map(|&first| first..first.saturating_add(self.depth));
        SINGLE.into_iter().chain(stacked).map(Register)
    }

    /// The register of this number, with its place among all.
    #[must_use]
    pub fn find(&self, msr: u32) -> Option<(usize, Register)> {
        let places = 0..MAX_REGISTERS;
        places.zip(self.registers()).find(|(_, it)| it.0 == msr)
    }
}

/// True when IA32_DEBUGCTL.LBR can be set.
fn can_be_on() -> bool {
    let Some(before) = msr::rdmsr_safe(IA32_DEBUGCTL) else {
        return false;
    };
    // SAFETY: recording branches has no effect on the host.
    let written = unsafe { msr::wrmsr_safe(IA32_DEBUGCTL, before | DEBUGCTL_LBR) };
    let on = msr::rdmsr_safe(IA32_DEBUGCTL).is_some_and(|now| now & DEBUGCTL_LBR != 0);
    // SAFETY: its value before.
    let restored = unsafe { msr::wrmsr_safe(IA32_DEBUGCTL, before) };
    on && written.and(restored).is_some()
}

impl Register {
    /// The value, 0 should the register be missing on this CPU.
    #[must_use]
    pub fn read(self) -> u64 {
        msr::rdmsr_safe(self.0).unwrap_or(0)
    }

    /// Writes a value; `None` when the CPU refuses it.
    #[must_use]
    pub fn write(self, value: u64) -> Option<()> {
        // SAFETY: a record of branches has no effect on the host.
        unsafe { msr::wrmsr_safe(self.0, value) }
    }

    /// Writes back what was read before, or what comes nearest to it.
    pub fn restore(self, value: u64) {
        restore_with(value, |value| self.write(value).is_some());
    }
}

/// Writes a record as the CPU takes it. Haswells and Broadwells without TSX record an address in
/// the upper half with bits 62:61 clear, and Broadwells report such a last interrupt with bits
/// 63:61 clear, but refuse to take that back: there the bits belong to the address (errata
/// HSM182, BDM127 and BDM131, and those like them).
fn restore_with(value: u64, mut write: impl FnMut(u64) -> bool) {
    const ABORT_AND_IN_TX: u64 = 0b11 << 61;
    let flags_extended = value & !ABORT_AND_IN_TX | (value & 0b11 << 59) << 2;
    let extended = ((value << 16).cast_signed() >> 16).cast_unsigned();
    for candidate in [value, flags_extended, extended, 0] {
        if write(candidate) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GOLDMONT, MAX_REGISTERS, Register, SKYLAKE, Stack, WESTMERE, restore_with};

    #[test]
    fn models_have_their_registers() {
        assert_eq!(Stack::of_model(0x0005_0654), Some(&SKYLAKE));
        assert_eq!(Stack::of_model(0x0003_06c3), Some(&WESTMERE));
        assert_eq!(Stack::of_model(0x0005_06ca), Some(&GOLDMONT));
        // Sapphire Rapids, and what is no family 6.
        assert_eq!(Stack::of_model(0x0008_06f8), None);
        assert_eq!(Stack::of_model(0x0080_0f12), None);
    }

    #[test]
    fn registers_are_found_by_number() {
        assert_eq!(SKYLAKE.registers().count(), MAX_REGISTERS);
        for (place, register) in SKYLAKE.registers().enumerate() {
            assert_eq!(SKYLAKE.find(register.0), Some((place, register)));
        }
        assert_eq!(WESTMERE.registers().last(), Some(Register(0x6cf)));
        for absent in [0x1ca, 0x67f, 0x6a0, 0xddf + 1, 0x1d9] {
            assert_eq!(SKYLAKE.find(absent), None, "{absent:#x}");
        }
        assert_eq!(WESTMERE.find(0x690), None);
        assert_eq!(WESTMERE.find(0xdc0), None);
    }

    fn restored(value: u64, takes: impl Fn(u64) -> bool) -> u64 {
        let mut register = None;
        restore_with(value, |value| {
            let taken = takes(value);
            if taken {
                assert_eq!(register.replace(value), None, "written once");
            }
            taken
        });
        register.expect("something was written")
    }

    #[test]
    fn a_record_is_restored_as_it_was() {
        for value in [0, 0x1fff_8000_0010_2e60, 0xffff_ffff_8000_0000, u64::MAX] {
            assert_eq!(restored(value, |_| true), value);
        }
    }

    #[test]
    fn a_record_without_tsx_is_extended() {
        // Bits 62:61 belong to the address; bit 63 says that the branch was predicted wrong.
        let takes = |value: u64| {
            let address = value << 1;
            ((address << 15).cast_signed() >> 15).cast_unsigned() == address
        };
        assert_eq!(
            restored(0x1fff_8000_0010_2e60, takes),
            0x7fff_8000_0010_2e60
        );
        assert_eq!(
            restored(0x9fff_8000_0010_2e60, takes),
            0xffff_8000_0010_2e60
        );
        assert_eq!(
            restored(0x8000_0000_0010_2e60, takes),
            0x8000_0000_0010_2e60
        );
    }

    #[test]
    fn a_last_interrupt_is_extended() {
        let canonical = |value: u64| ((value << 16).cast_signed() >> 16).cast_unsigned() == value;
        assert_eq!(
            restored(0x1fff_8000_0010_2e60, canonical),
            0xffff_8000_0010_2e60
        );
        assert_eq!(restored(0x4000_0000_0010_2e60, canonical), 0x0010_2e60);
        assert_eq!(restored(0x1fff_8000_0010_2e60, |value| value == 0), 0);
    }
}
