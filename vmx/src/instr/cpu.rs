//! The instructions themselves, one `asm!` each, with their outcome read in the same block.
//!
//! CF after a VMX instruction means there was no current VMCS to record an error in; ZF means the
//! current VMCS's VM-instruction error tells it.
#![expect(unsafe_code, reason = "VMX instructions")]

use core::arch::asm;

use abi::Hpa;

use super::{InstructionError, VmFail, access_failed};
use crate::vmcs::field;

/// Turns an instruction's CF and ZF into a result.
fn outcome(carry: u8, zero: u8) -> Result<(), VmFail> {
    if carry != 0 {
        Err(VmFail::Invalid)
    } else if zero != 0 {
        Err(VmFail::Valid(last_error()))
    } else {
        Ok(())
    }
}

/// Reads the current VMCS's VM-instruction error; 0 when that fails too.
pub(crate) fn last_error() -> InstructionError {
    let value: u64;
    // SAFETY: VMREAD touches no memory here; a failure leaves the register alone, which is why
    // it starts as 0. Only called in VMX root operation, after a VMX instruction has failed.
    unsafe {
        asm!(
            "vmread {value}, {field}",
            value = inout(reg) 0_u64 => value,
            field = in(reg) u64::from(field::VM_INSTRUCTION_ERROR.encoding()),
            options(nomem, nostack),
        );
    }
    InstructionError(u32::try_from(value).unwrap_or(0))
}

macro_rules! pointer_instruction {
    ($(#[$doc:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$doc])*
        pub(crate) unsafe fn $name(region: Hpa) -> Result<(), VmFail> {
            let pointer = region.raw();
            let (carry, zero): (u8, u8);
            // SAFETY: the caller answers for the region; the operand is the local `pointer`.
            unsafe {
                asm!(
                    concat!($mnemonic, " qword ptr [{pointer}]"),
                    "setc {carry}",
                    "setz {zero}",
                    pointer = in(reg) &raw const pointer,
                    carry = out(reg_byte) carry,
                    zero = out(reg_byte) zero,
                    options(nostack),
                );
            }
            outcome(carry, zero)
        }
    };
}

pointer_instruction!(
    /// VMXON.
    ///
    /// # Safety
    /// `region` is a frame of our own that holds the VMCS revision identifier, is used for
    /// nothing else until VMXOFF, and CR4.VMXE is set.
    vmxon,
    "vmxon"
);
pointer_instruction!(
    /// VMCLEAR.
    ///
    /// # Safety
    /// `region` is a VMCS region of our own, active on no other CPU; this CPU is in VMX root
    /// operation.
    vmclear,
    "vmclear"
);
pointer_instruction!(
    /// VMPTRLD.
    ///
    /// # Safety
    /// As for [`vmclear`].
    vmptrld,
    "vmptrld"
);

/// VMXOFF.
///
/// # Safety
/// This CPU is in VMX root operation and no VMCS is active on it that is still needed.
pub(crate) unsafe fn vmxoff() -> Result<(), VmFail> {
    let (carry, zero): (u8, u8);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vmxoff",
            "setc {carry}",
            "setz {zero}",
            carry = out(reg_byte) carry,
            zero = out(reg_byte) zero,
            options(nostack),
        );
    }
    outcome(carry, zero)
}

macro_rules! invalidate {
    ($name:ident, $mnemonic:literal) => {
        pub(super) fn $name(kind: u64, descriptor: &[u64; 2]) -> Result<(), VmFail> {
            let (carry, zero): (u8, u8);
            // SAFETY: invalidating cached translations cannot break memory safety; the operand is
            // a 16-byte local. Memory is a clobber, so that changed tables are written first.
            unsafe {
                asm!(
                    concat!($mnemonic, " {kind}, xmmword ptr [{descriptor}]"),
                    "setc {carry}",
                    "setz {zero}",
                    kind = in(reg) kind,
                    descriptor = in(reg) descriptor,
                    carry = out(reg_byte) carry,
                    zero = out(reg_byte) zero,
                    options(nostack),
                );
            }
            outcome(carry, zero)
        }
    };
}

invalidate!(invept_raw, "invept");
invalidate!(invvpid_raw, "invvpid");

/// VMREAD of the current VMCS.
///
/// The failure branch is out of line, so that a read costs one instruction and a branch not
/// taken.
///
/// # Safety
/// This CPU is in VMX root operation and has a current VMCS.
#[inline(always)]
pub(crate) unsafe fn vmread(encoding: u32) -> u64 {
    let value: u64;
    // SAFETY: the caller's promise; the call in the cold section does not return.
    unsafe {
        asm!(
            "vmread {value}, {field}",
            "jbe 2f",
            ".pushsection .text.unlikely,\"ax\",@progbits",
            "2:",
            "mov edi, {field:e}",
            "call {failed}",
            "ud2",
            ".popsection",
            value = out(reg) value,
            field = in(reg) u64::from(encoding),
            failed = sym vmread_failed,
            options(readonly),
        );
    }
    value
}

/// VMWRITE to the current VMCS.
///
/// # Safety
/// As for [`vmread`], and the value does not make the next VM entry break the host.
#[inline(always)]
pub(crate) unsafe fn vmwrite(encoding: u32, value: u64) {
    // SAFETY: the caller's promise; the call in the cold section does not return.
    unsafe {
        asm!(
            "vmwrite {field}, {value}",
            "jbe 2f",
            ".pushsection .text.unlikely,\"ax\",@progbits",
            "2:",
            "mov edi, {field:e}",
            "call {failed}",
            "ud2",
            ".popsection",
            value = in(reg) value,
            field = in(reg) u64::from(encoding),
            failed = sym vmwrite_failed,
            options(readonly),
        );
    }
}

/// VMREAD of a field that the CPU is known to have.
///
/// # Safety
/// As for [`vmread`], and an earlier access to the field succeeded.
#[inline(always)]
pub(crate) unsafe fn vmread_proven(encoding: u32) -> u64 {
    let value: u64;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vmread {value}, {field}",
            value = out(reg) value,
            field = in(reg) u64::from(encoding),
            options(readonly, nostack),
        );
    }
    value
}

/// VMWRITE to a field that the CPU is known to have.
///
/// # Safety
/// As for [`vmwrite`], and an earlier write to the field succeeded.
#[inline(always)]
pub(crate) unsafe fn vmwrite_proven(encoding: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "vmwrite {field}, {value}",
            value = in(reg) value,
            field = in(reg) u64::from(encoding),
            options(readonly, nostack),
        );
    }
}

#[cold]
extern "sysv64" fn vmread_failed(encoding: u32) -> ! {
    access_failed("VMREAD", encoding)
}

#[cold]
extern "sysv64" fn vmwrite_failed(encoding: u32) -> ! {
    access_failed("VMWRITE", encoding)
}
