//! Model-specific registers.
//!
//! An MSR that may be absent is read through [`rdmsr_safe`]: the access is registered in the
//! section `.ex_table` as a pair of 64-bit addresses (the faulting instruction, where to go on),
//! and the host's `#GP` handler looks there before it gives up.
#![expect(unsafe_code, reason = "RDMSR and WRMSR")]

use core::arch::asm;

pub use x86::msr::{
    IA32_APIC_BASE, IA32_EFER, IA32_FEATURE_CONTROL, IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE,
    IA32_KERNEL_GSBASE, IA32_LSTAR, IA32_PAT, IA32_STAR, IA32_TSC_AUX, IA32_TSC_DEADLINE,
};

/// `IA32_CSTAR`.
pub const IA32_CSTAR: u32 = 0xc000_0083;
/// `IA32_SPEC_CTRL`.
pub const IA32_SPEC_CTRL: u32 = 0x48;
/// `IA32_PRED_CMD`.
pub const IA32_PRED_CMD: u32 = 0x49;
/// `IA32_ARCH_CAPABILITIES`.
pub const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
/// `IA32_FLUSH_CMD`.
pub const IA32_FLUSH_CMD: u32 = 0x10b;
/// `IA32_XSS`.
pub const IA32_XSS: u32 = 0xda0;
/// `IA32_VMX_BASIC`, the first of the VMX capability MSRs.
pub const IA32_VMX_BASIC: u32 = 0x480;

/// An MSR that every CPU in 64-bit mode has, and that can be read without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// `IA32_EFER`.
    Efer,
    /// `IA32_FS_BASE`.
    FsBase,
    /// `IA32_GS_BASE`.
    GsBase,
    /// `IA32_KERNEL_GS_BASE`.
    KernelGsBase,
    /// `IA32_STAR`.
    Star,
    /// `IA32_LSTAR`.
    Lstar,
    /// `IA32_CSTAR`.
    Cstar,
    /// `IA32_FMASK`.
    Fmask,
    /// `IA32_PAT`.
    Pat,
    /// `IA32_APIC_BASE`.
    ApicBase,
}

impl Known {
    /// The MSR's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Efer => IA32_EFER,
            Self::FsBase => IA32_FS_BASE,
            Self::GsBase => IA32_GS_BASE,
            Self::KernelGsBase => IA32_KERNEL_GSBASE,
            Self::Star => IA32_STAR,
            Self::Lstar => IA32_LSTAR,
            Self::Cstar => IA32_CSTAR,
            Self::Fmask => IA32_FMASK,
            Self::Pat => IA32_PAT,
            Self::ApicBase => IA32_APIC_BASE,
        }
    }
}

/// Reads an MSR that every CPU has.
#[inline]
#[must_use]
pub fn read_known(msr: Known) -> u64 {
    // SAFETY: the MSR exists and reading it has no effect.
    unsafe { read(msr.number()) }
}

/// Reads an MSR.
///
/// # Safety
/// The MSR exists (else `#GP`, and the host dies) and reading it has no effect.
#[inline]
#[must_use]
pub unsafe fn read(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "rdmsr",
            in("ecx") msr,
            out("eax") low,
            out("edx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    join(low, high)
}

/// Writes an MSR.
///
/// # Safety
/// The MSR exists, takes the value, and the host goes on working with it.
#[inline]
pub unsafe fn write(msr: u32, value: u64) {
    let (low, high) = split(value);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") msr,
            in("eax") low,
            in("edx") high,
            options(nostack, preserves_flags),
        );
    }
}

/// The exception-table entry for the instruction at label 2, whose fault goes on at label 3.
/// Only the bare-metal image has a handler that uses it.
#[cfg(target_os = "none")]
macro_rules! ex_table_entry {
    () => {
        ".pushsection .ex_table,\"a\",@progbits\n.balign 8\n.quad 2b\n.quad 3b\n.popsection"
    };
}
#[cfg(not(target_os = "none"))]
macro_rules! ex_table_entry {
    () => {
        ""
    };
}

/// Reads an MSR; `None` when the CPU has none of that number.
#[must_use]
pub fn rdmsr_safe(msr: u32) -> Option<u64> {
    let (low, high): (u32, u32);
    let faulted: u32;
    // SAFETY: a fault goes on at label 3; no MSR has an effect when it is read. The flags are
    // those of the fault's return, so not preserved.
    unsafe {
        asm!(
            "xor {faulted:e}, {faulted:e}",
            "2: rdmsr",
            "jmp 4f",
            "3: mov {faulted:e}, 1",
            "4:",
            ex_table_entry!(),
            faulted = out(reg) faulted,
            in("ecx") msr,
            inout("eax") 0_u32 => low,
            inout("edx") 0_u32 => high,
            options(nomem, nostack),
        );
    }
    (faulted == 0).then_some(join(low, high))
}

/// Writes an MSR; `None` when the CPU has none of that number or refuses the value.
///
/// # Safety
/// If the MSR takes the value, the host goes on working with it.
pub unsafe fn wrmsr_safe(msr: u32, value: u64) -> Option<()> {
    let (low, high) = split(value);
    let faulted: u32;
    // SAFETY: a fault goes on at label 3; the caller answers for the value.
    unsafe {
        asm!(
            "xor {faulted:e}, {faulted:e}",
            "2: wrmsr",
            "jmp 4f",
            "3: mov {faulted:e}, 1",
            "4:",
            ex_table_entry!(),
            faulted = out(reg) faulted,
            in("ecx") msr,
            in("eax") low,
            in("edx") high,
            options(nostack),
        );
    }
    (faulted == 0).then_some(())
}

const fn join(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn split(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

#[cfg(test)]
mod tests {
    use super::{Known, join, split};

    #[test]
    fn halves_are_split_and_joined() {
        let (low, high) = split(0x0123_4567_89ab_cdef);
        assert_eq!((low, high), (0x89ab_cdef, 0x0123_4567));
        assert_eq!(join(low, high), 0x0123_4567_89ab_cdef);
    }

    #[test]
    fn numbers_are_the_manuals() {
        assert_eq!(Known::Efer.number(), 0xc000_0080);
        assert_eq!(Known::GsBase.number(), 0xc000_0101);
        assert_eq!(Known::KernelGsBase.number(), 0xc000_0102);
        assert_eq!(Known::Pat.number(), 0x277);
        assert_eq!(Known::ApicBase.number(), 0x1b);
        assert_eq!(super::IA32_TSC_DEADLINE, 0x6e0);
        assert_eq!(super::IA32_FEATURE_CONTROL, 0x3a);
    }
}
