//! The VMX instructions: SDM 3D, "VMX Instruction Reference".
//!
//! They are the CPU's (`cpu`). What runs the code above in a process, for tests, has a model of the
//! VMCS in their place (`model`).

#[cfg(not(any(test, feature = "model")))]
mod cpu;
#[cfg(any(test, feature = "model"))]
mod model;

use core::fmt;

use abi::Gva;

#[cfg(not(any(test, feature = "model")))]
use cpu as machine;
#[cfg(any(test, feature = "model"))]
use model as machine;

use machine::{invept_raw, invvpid_raw};
pub(crate) use machine::{
    last_error, vmclear, vmptrld, vmread, vmread_proven, vmwrite, vmwrite_proven, vmxoff, vmxon,
};

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

/// An access that the CPU refuses is our bug; the VMCS is unusable.
#[track_caller]
fn access_failed(instruction: &str, encoding: u32) -> ! {
    invariant::broken(format_args!(
        "{instruction} of {} ({encoding:#x}) failed: {}",
        field::name(encoding),
        last_error()
    ))
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
