//! Turning VMX on and off on one CPU.
//!
//! SDM 3C, "Discovering Support for VMX" and "Enabling and Entering VMX Operation".
#![expect(unsafe_code, reason = "VMXON, and the control registers it needs")]

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use abi::Hpa;

use crate::caps::{CapMsrs, Controls, Features};
use crate::cpu::{cpuid, cr, msr};
use crate::instr::{self, InveptKind, VmFail, invept, invvpid};
use crate::vmcs::region::write_revision;

/// `IA32_FEATURE_CONTROL`: the MSR is locked until reset.
const LOCK: u64 = 1 << 0;
/// `IA32_FEATURE_CONTROL`: VMXON works outside SMX operation.
const VMX_OUTSIDE_SMX: u64 = 1 << 2;

/// "No VMCS is current": what VMPTRST stores then.
pub(crate) const NO_VMCS: Hpa = Hpa::new(u64::MAX);

/// Why VMX cannot be used on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableError {
    /// CPUID does not report VMX.
    NoVmx(Surroundings),
    /// The firmware locked `IA32_FEATURE_CONTROL` with VMX off.
    LockedOff {
        /// The MSR's value.
        feature_control: u64,
    },
    /// `IA32_FEATURE_CONTROL` cannot be read or does not take the value.
    FeatureControl,
    /// The VMX capability MSRs cannot be read.
    NoCapabilities,
    /// CR0 or CR4 does not take the value VMX operation needs.
    FixedBits,
    /// VMXON failed.
    Vmxon(VmFail),
}

/// Where a CPU without VMX is found, which decides what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// Another maker's CPU.
    OtherVendor,
    /// Inside Linux KVM.
    Kvm,
    /// Inside another hypervisor or an emulator.
    Hypervisor,
    /// On the machine itself.
    Machine,
}

impl Surroundings {
    /// From CPUID's vendor and, inside a hypervisor, that one's signature.
    const fn new(vendor: &[u8; 12], hypervisor: Option<&[u8; 12]>) -> Self {
        match (vendor, hypervisor) {
            (b"GenuineIntel", Some(b"KVMKVMKVM\0\0\0")) => Self::Kvm,
            (b"GenuineIntel", Some(_)) => Self::Hypervisor,
            (b"GenuineIntel", None) => Self::Machine,
            _ => Self::OtherVendor,
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::OtherVendor => "it is not Intel's; use an Intel CPU that has it",
            Self::Kvm => {
                "have the outer KVM pass it on: load kvm_intel with nested=1 there, and give QEMU \
                 -cpu host"
            }
            Self::Hypervisor => "have the outer hypervisor pass it on",
            Self::Machine => "use a CPU that has it, and enable it in the firmware set-up",
        }
    }
}

impl fmt::Display for EnableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tessera needs Intel VT-x: ")?;
        match self {
            Self::NoVmx(surroundings) => write!(
                f,
                "this CPU reports no VMX (CPUID.1:ECX bit 5); {}",
                surroundings.remedy()
            ),
            Self::LockedOff { feature_control } => write!(
                f,
                "the firmware locked it off (IA32_FEATURE_CONTROL = {feature_control:#x}); enable \
                 virtualization in the firmware set-up and power-cycle",
            ),
            Self::FeatureControl => {
                f.write_str("IA32_FEATURE_CONTROL cannot be set; update the firmware")
            }
            Self::NoCapabilities => f.write_str("the VMX capability MSRs cannot be read"),
            Self::FixedBits => f.write_str("CR0 or CR4 does not take the bits VMXON needs"),
            Self::Vmxon(error) => write!(f, "VMXON failed: {error}"),
        }
    }
}

/// What a CPU's `IA32_FEATURE_CONTROL` calls for before VMXON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeatureControl {
    Ready,
    Write(u64),
}

fn check_feature_control(value: u64) -> Result<FeatureControl, EnableError> {
    match (value & LOCK != 0, value & VMX_OUTSIDE_SMX != 0) {
        (true, true) => Ok(FeatureControl::Ready),
        (true, false) => Err(EnableError::LockedOff {
            feature_control: value,
        }),
        (false, _) => Ok(FeatureControl::Write(value | LOCK | VMX_OUTSIDE_SMX)),
    }
}

/// Checks that VMX can be turned on here, and reads what it can do. Changes nothing, never
/// faults.
///
/// # Errors
/// When it cannot.
pub fn available() -> Result<CapMsrs, EnableError> {
    if !cpuid::has_vmx() {
        let hypervisor = cpuid::hypervisor();
        let surroundings = Surroundings::new(&cpuid::vendor(), hypervisor.as_ref());
        return Err(EnableError::NoVmx(surroundings));
    }
    let value = msr::rdmsr_safe(msr::IA32_FEATURE_CONTROL).ok_or(EnableError::FeatureControl)?;
    check_feature_control(value)?;
    CapMsrs::read().ok_or(EnableError::NoCapabilities)
}

/// Proof that VMX operation is on, on the CPU that owns this value.
#[derive(Debug)]
pub struct VmxOn {
    /// Identity of this CPU among those that turned VMX on; never 0.
    pub(crate) id: u32,
    /// The VMCS that is current.
    pub(crate) current: Cell<Hpa>,
    /// A [`crate::CurrentVmcs`] exists.
    pub(crate) in_use: Cell<bool>,
    pub(crate) features: Features,
    /// Bound to one CPU: neither `Send` nor `Sync`.
    cpu: PhantomData<*const ()>,
}

/// Turns VMX operation on: locks `IA32_FEATURE_CONTROL` open when the firmware left it unlocked,
/// sets the CR0 and CR4 bits VMX operation fixes, VMXON, and drops stale translations.
///
/// # Errors
/// When the CPU refuses; it is left as it was, but for CR4.VMXE and the fixed bits.
///
/// # Safety
/// 1. `region` is a frame of our own, for this CPU alone and until VMXOFF; `virt` its address.
/// 2. `controls` were negotiated on this machine.
/// 3. VMX is off on this CPU. (On: error from VMXON, but a fault where VMX was never enabled.)
pub unsafe fn enable(
    virt: NonNull<u8>,
    region: Hpa,
    controls: &Controls,
) -> Result<VmxOn, EnableError> {
    open_feature_control()?;
    // SAFETY: 2: the fixed bits are this machine's.
    unsafe { set_fixed_bits(controls) }?;
    // SAFETY: 1.
    unsafe { write_revision(virt, controls.revision) };
    // SAFETY: 1, and CR4.VMXE was just set.
    unsafe { instr::vmxon(region) }.map_err(EnableError::Vmxon)?;
    let on = VmxOn::new(controls.features);
    on.flush_all();
    Ok(on)
}

fn open_feature_control() -> Result<(), EnableError> {
    let value = msr::rdmsr_safe(msr::IA32_FEATURE_CONTROL).ok_or(EnableError::FeatureControl)?;
    if let FeatureControl::Write(new) = check_feature_control(value)? {
        // SAFETY: locks VMX on until reset; a refusal is caught.
        let written = unsafe { msr::wrmsr_safe(msr::IA32_FEATURE_CONTROL, new) };
        written.ok_or(EnableError::FeatureControl)?;
        if msr::rdmsr_safe(msr::IA32_FEATURE_CONTROL) != Some(new) {
            return Err(EnableError::FeatureControl);
        }
    }
    Ok(())
}

/// # Safety
/// `controls` were negotiated on this machine.
unsafe fn set_fixed_bits(controls: &Controls) -> Result<(), EnableError> {
    let cr0 = controls.cr0.apply(cr::read_cr0());
    let cr4 = controls.cr4.apply(cr::read_cr4() | cr::CR4_VMXE);
    // Paging, protection and PAE stay as they are: VMX operation wants them on as we do.
    if cr4 & cr::CR4_VMXE == 0 || cr4 & cr::CR4_PAE == 0 || cr0 & cr::CR0_PG == 0 {
        return Err(EnableError::FixedBits);
    }
    // SAFETY: only bits the CPU says it supports in VMX operation change; NE and VMXE in
    // practice.
    unsafe { cr::write_cr0(cr0) };
    // SAFETY: as above.
    unsafe { cr::write_cr4(cr4) };
    Ok(())
}

impl VmxOn {
    fn new(features: Features) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            current: Cell::new(NO_VMCS),
            in_use: Cell::new(false),
            features,
            cpu: PhantomData,
        }
    }

    /// The model of a CPU that each thread of a host has (`instr/model.rs`).
    #[cfg(any(test, feature = "model"))]
    #[must_use]
    pub fn of_thread(features: Features) -> Self {
        Self::new(features)
    }

    /// Drops all guest translations cached on this CPU.
    pub fn flush_all(&self) {
        let ept = invept(InveptKind::All);
        debug_assert!(ept.is_ok(), "INVEPT of all contexts is required");
        if self.features.contains(Features::VPID) && self.features.contains(Features::INVVPID_ALL) {
            let vpid = invvpid(instr::InvvpidKind::All);
            debug_assert!(vpid.is_ok(), "negotiated");
        }
    }

    /// Turns VMX operation off, so that INIT and reset work again. Only for the way down: any
    /// VMCS still active on this CPU is lost.
    ///
    /// # Safety
    /// This value is not used afterwards, nor any VMCS that is active on this CPU. May be called
    /// while a [`crate::CurrentVmcs`] exists, as long as it is not used again either.
    pub unsafe fn disable(&self) {
        // SAFETY: the caller's promise.
        let _: Result<(), VmFail> = unsafe { instr::vmxoff() };
        // SAFETY: VMXE may be cleared after VMXOFF.
        unsafe { cr::write_cr4(cr::read_cr4() & !cr::CR4_VMXE) };
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{EnableError, FeatureControl, Surroundings, VmFail, check_feature_control};
    use std::string::ToString;

    #[test]
    fn feature_control_is_opened_only_when_unlocked() {
        assert_eq!(check_feature_control(0x5), Ok(FeatureControl::Ready));
        assert_eq!(check_feature_control(0x10_0005), Ok(FeatureControl::Ready));
        assert_eq!(check_feature_control(0), Ok(FeatureControl::Write(0x5)));
        assert_eq!(
            check_feature_control(0x10_0000),
            Ok(FeatureControl::Write(0x10_0005))
        );
        for locked in [0x1, 0x3] {
            let error = EnableError::LockedOff {
                feature_control: locked,
            };
            assert_eq!(check_feature_control(locked), Err(error));
        }
    }

    #[test]
    fn what_helps_depends_on_where_the_cpu_is() {
        let intel = b"GenuineIntel";
        let remedy = |vendor, hypervisor| Surroundings::new(vendor, hypervisor).remedy();
        assert!(remedy(intel, Some(b"KVMKVMKVM\0\0\0")).contains("nested=1"));
        assert!(remedy(intel, Some(b"TCGTCGTCGTCG")).contains("outer hypervisor"));
        assert!(remedy(intel, None).contains("firmware"));
        // Under KVM on AMD it is the CPU, not the set-up.
        let amd = remedy(b"AuthenticAMD", Some(b"KVMKVMKVM\0\0\0"));
        assert!(amd.contains("not Intel's"), "{amd}");
    }

    #[test]
    fn every_refusal_is_one_line_that_names_the_need() {
        let all = [
            EnableError::NoVmx(Surroundings::OtherVendor),
            EnableError::NoVmx(Surroundings::Kvm),
            EnableError::NoVmx(Surroundings::Hypervisor),
            EnableError::NoVmx(Surroundings::Machine),
            EnableError::LockedOff { feature_control: 1 },
            EnableError::FeatureControl,
            EnableError::NoCapabilities,
            EnableError::FixedBits,
            EnableError::Vmxon(VmFail::Invalid),
        ];
        for error in all {
            let line = error.to_string();
            assert!(line.starts_with("Tessera needs Intel VT-x: "), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }
}
