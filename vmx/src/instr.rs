//! The VMX instructions, one `asm!` each, with their outcome read in the same block.
//!
//! SDM 3D, "VMX Instruction Reference". CF after a VMX instruction means there was no current
//! VMCS to record an error in; ZF means the current VMCS's VM-instruction error tells it.
#![expect(unsafe_code, reason = "VMX instructions")]

use core::arch::asm;
use core::fmt;

use abi::{Gva, Hpa};

use crate::vmcs::field;

/// Why a VMX instruction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFail {
    /// There is no current VMCS (VMfailInvalid).
    Invalid,
    /// The current VMCS's VM-instruction error (VMfailValid).
    Valid(InstructionError),
}

impl fmt::Display for VmFail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("no current VMCS"),
            Self::Valid(error) => error.fmt(f),
        }
    }
}

/// A VM-instruction error number: SDM 3D, "VM Instruction Error Numbers".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionError(pub u32);

impl InstructionError {
    /// VM entry with invalid control fields.
    pub const INVALID_CONTROLS: Self = Self(7);
    /// VM entry with invalid host-state fields.
    pub const INVALID_HOST_STATE: Self = Self(8);

    /// What the manual says of the number.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            1 => "VMCALL executed in VMX root operation",
            2 => "VMCLEAR with invalid physical address",
            3 => "VMCLEAR with VMXON pointer",
            4 => "VMLAUNCH with non-clear VMCS",
            5 => "VMRESUME with non-launched VMCS",
            6 => "VMRESUME after VMXOFF",
            7 => "VM entry with invalid control field(s)",
            8 => "VM entry with invalid host-state field(s)",
            9 => "VMPTRLD with invalid physical address",
            10 => "VMPTRLD with VMXON pointer",
            11 => "VMPTRLD with incorrect VMCS revision identifier",
            12 => "VMREAD/VMWRITE from/to unsupported VMCS component",
            13 => "VMWRITE to read-only VMCS component",
            15 => "VMXON executed in VMX root operation",
            16 => "VM entry with invalid executive-VMCS pointer",
            17 => "VM entry with non-launched executive VMCS",
            18 => "VM entry with executive-VMCS pointer not VMXON pointer",
            19 => "VMCALL with non-clear VMCS",
            20 => "VMCALL with invalid VM-exit control fields",
            22 => "VMCALL with incorrect MSEG revision identifier",
            23 => "VMXOFF under dual-monitor treatment of SMIs and SMM",
            24 => "VMCALL with invalid SMM-monitor features",
            25 => "VM entry with invalid VM-execution control fields in executive VMCS",
            26 => "VM entry with events blocked by MOV SS",
            28 => "invalid operand to INVEPT/INVVPID",
            _ => "unknown VM-instruction error",
        }
    }
}

impl fmt::Display for InstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (VM-instruction error {})", self.name(), self.0)
    }
}

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
        fn $name(kind: u64, descriptor: &[u64; 2]) -> Result<(), VmFail> {
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

/// Which translations INVEPT drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InveptKind {
    /// Those of one EPT pointer (the value of the VMCS field, not just the root).
    Single(u64),
    /// All.
    All,
}

/// Drops translations cached from EPT structures on this CPU. Only in VMX operation.
pub fn invept(kind: InveptKind) -> Result<(), VmFail> {
    match kind {
        InveptKind::Single(eptp) => invept_raw(1, &[eptp, 0]),
        InveptKind::All => invept_raw(2, &[0, 0]),
    }
}

/// Which translations INVVPID drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvvpidKind {
    /// Those of one address of one VPID.
    Address(u16, Gva),
    /// Those of one VPID.
    Single(u16),
    /// All except VPID 0.
    All,
    /// Those of one VPID except the global ones.
    SingleRetainingGlobals(u16),
}

/// Drops linear translations cached on this CPU. Only in VMX operation.
pub fn invvpid(kind: InvvpidKind) -> Result<(), VmFail> {
    match kind {
        InvvpidKind::Address(vpid, address) => invvpid_raw(0, &[u64::from(vpid), address.raw()]),
        InvvpidKind::Single(vpid) => invvpid_raw(1, &[u64::from(vpid), 0]),
        InvvpidKind::All => invvpid_raw(2, &[0, 0]),
        InvvpidKind::SingleRetainingGlobals(vpid) => invvpid_raw(3, &[u64::from(vpid), 0]),
    }
}

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

#[expect(
    clippy::panic,
    reason = "an access the CPU refuses is our bug; the VMCS is unusable"
)]
fn access_failed(instruction: &str, encoding: u32) -> ! {
    panic!(
        "{instruction} of {} ({encoding:#x}) failed: {}",
        field::name(encoding),
        last_error()
    );
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{InstructionError, VmFail};
    use std::string::ToString;

    #[test]
    fn errors_are_named() {
        let error = VmFail::Valid(InstructionError::INVALID_CONTROLS);
        let text = "VM entry with invalid control field(s) (VM-instruction error 7)";
        assert_eq!(error.to_string(), text);
        assert_eq!(VmFail::Invalid.to_string(), "no current VMCS");
        assert_eq!(InstructionError(14).name(), "unknown VM-instruction error");
    }
}
