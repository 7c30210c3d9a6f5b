//! The VMX capability MSRs as raw values.

use super::bits;
use crate::cpu::msr;

/// Raw values of the VMX capability MSRs; 0 for one that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapMsrs {
    /// `IA32_VMX_BASIC`.
    pub basic: u64,
    /// `IA32_VMX_PINBASED_CTLS`.
    pub pin: u64,
    /// `IA32_VMX_PROCBASED_CTLS`.
    pub proc: u64,
    /// `IA32_VMX_EXIT_CTLS`.
    pub exit: u64,
    /// `IA32_VMX_ENTRY_CTLS`.
    pub entry: u64,
    /// `IA32_VMX_MISC`.
    pub misc: u64,
    /// `IA32_VMX_CR0_FIXED0`.
    pub cr0_fixed0: u64,
    /// `IA32_VMX_CR0_FIXED1`.
    pub cr0_fixed1: u64,
    /// `IA32_VMX_CR4_FIXED0`.
    pub cr4_fixed0: u64,
    /// `IA32_VMX_CR4_FIXED1`.
    pub cr4_fixed1: u64,
    /// `IA32_VMX_VMCS_ENUM`.
    pub vmcs_enum: u64,
    /// `IA32_VMX_PROCBASED_CTLS2`.
    pub proc2: u64,
    /// `IA32_VMX_EPT_VPID_CAP`.
    pub ept_vpid: u64,
    /// `IA32_VMX_TRUE_PINBASED_CTLS`.
    pub true_pin: u64,
    /// `IA32_VMX_TRUE_PROCBASED_CTLS`.
    pub true_proc: u64,
    /// `IA32_VMX_TRUE_EXIT_CTLS`.
    pub true_exit: u64,
    /// `IA32_VMX_TRUE_ENTRY_CTLS`.
    pub true_entry: u64,
    /// `IA32_VMX_VMFUNC`.
    pub vmfunc: u64,
    /// `IA32_VMX_PROCBASED_CTLS3`.
    pub proc3: u64,
    /// `IA32_VMX_EXIT_CTLS2`.
    pub exit2: u64,
}

/// `IA32_VMX_BASIC` bit 55: the TRUE MSRs exist.
const HAS_TRUE_MSRS: u64 = 1 << 55;

/// True when the upper half of a control MSR allows `bit` to be 1.
const fn allows(msr: u64, bit: u32) -> bool {
    msr >> 32 & bit as u64 != 0
}

impl CapMsrs {
    /// Reads them on this CPU; `None` when one that must exist does not. Never faults.
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::from_source(msr::rdmsr_safe)
    }

    /// Collects them from `source`, asking only for those the others say exist.
    pub fn from_source(mut source: impl FnMut(u32) -> Option<u64>) -> Option<Self> {
        let mut msrs = Self {
            basic: source(0x480)?,
            pin: source(0x481)?,
            proc: source(0x482)?,
            exit: source(0x483)?,
            entry: source(0x484)?,
            misc: source(0x485)?,
            cr0_fixed0: source(0x486)?,
            cr0_fixed1: source(0x487)?,
            cr4_fixed0: source(0x488)?,
            cr4_fixed1: source(0x489)?,
            vmcs_enum: source(0x48a)?,
            ..Self::default()
        };
        if msrs.has_true_msrs() {
            msrs.true_pin = source(0x48d)?;
            msrs.true_proc = source(0x48e)?;
            msrs.true_exit = source(0x48f)?;
            msrs.true_entry = source(0x490)?;
        }
        let primary = msrs.proc | msrs.true_proc;
        if allows(primary, bits::ACTIVATE_SECONDARY_CONTROLS) {
            msrs.proc2 = source(0x48b)?;
        }
        if allows(msrs.proc2, bits::ENABLE_EPT | bits::ENABLE_VPID) {
            msrs.ept_vpid = source(0x48c)?;
        }
        if allows(msrs.proc2, bits::ENABLE_VM_FUNCTIONS) {
            msrs.vmfunc = source(0x491)?;
        }
        // Primary bit 17 and VM-exit bit 31 activate further words, which are left off: what
        // they could do is only reported.
        if allows(primary, 1 << 17) {
            msrs.proc3 = source(0x492).unwrap_or(0);
        }
        if allows(msrs.exit | msrs.true_exit, 1 << 31) {
            msrs.exit2 = source(0x493).unwrap_or(0);
        }
        Some(msrs)
    }

    /// True when the TRUE control MSRs exist.
    #[must_use]
    pub const fn has_true_msrs(&self) -> bool {
        self.basic & HAS_TRUE_MSRS != 0
    }
}
