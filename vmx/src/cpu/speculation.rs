//! What speculative execution calls for between guests and at VM entry.
//!
//! * IBPB when another guest's vCPU takes over a CPU, so that branch predictions trained by one
//!   do not steer the other.
//! * An L1D flush before VM entry on CPUs with L1TF, and VERW on those whose buffers leak (MDS,
//!   TAA, MMIO stale data, RFDS).
//!
//! SDM 3A, "Speculative Execution Side Channel Mitigations" tells the interfaces.
#![expect(unsafe_code, reason = "command MSRs and VERW")]

use core::arch::asm;
use core::fmt;

use super::{cpuid, msr};

/// CPUID.7.0:EDX: VERW clears buffers.
const MD_CLEAR: u32 = 1 << 10;
/// CPUID.7.0:EDX: IBRS and IBPB.
const IBRS_IBPB: u32 = 1 << 26;
/// CPUID.7.0:EDX: `IA32_FLUSH_CMD`.
const L1D_FLUSH: u32 = 1 << 28;
/// CPUID.7.0:EDX: `IA32_ARCH_CAPABILITIES`.
const ARCH_CAPABILITIES: u32 = 1 << 29;
/// CPUID.7.0:EBX: restricted transactional memory.
const RTM: u32 = 1 << 11;

/// Bits of `IA32_ARCH_CAPABILITIES`.
mod arch {
    pub(super) const RDCL_NO: u64 = 1 << 0;
    pub(super) const IBRS_ALL: u64 = 1 << 1;
    pub(super) const SKIP_L1DFL_VMENTRY: u64 = 1 << 3;
    pub(super) const MDS_NO: u64 = 1 << 5;
    pub(super) const TAA_NO: u64 = 1 << 8;
    pub(super) const STALE_DATA_NO: u64 = 7 << 13;
    pub(super) const FB_CLEAR: u64 = 1 << 17;
    pub(super) const RFDS_NO: u64 = 1 << 27;
    pub(super) const RFDS_CLEAR: u64 = 1 << 28;
}

/// `IA32_SPEC_CTRL`: indirect branch restricted speculation.
const SPEC_CTRL_IBRS: u64 = 1 << 0;

/// Facts the choice depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// CPUID.1:EAX.
    signature: u32,
    /// CPUID.7.0:EBX and EDX.
    leaf7_ebx: u32,
    leaf7_edx: u32,
    /// `IA32_ARCH_CAPABILITIES`, 0 when absent.
    arch_capabilities: u64,
}

/// What to do on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices")]
pub struct Mitigations {
    /// Predictions are dropped when another vCPU takes over.
    pub ibpb: bool,
    /// The L1 data cache is flushed before VM entry.
    pub l1d_flush: bool,
    /// Buffers are cleared before VM entry.
    pub verw: bool,
    /// IBRS stays on: the CPU keeps root mode's predictions apart by itself.
    pub enhanced_ibrs: bool,
    /// The CPU has L1TF but no way to flush.
    pub l1tf_unmitigated: bool,
}

impl Mitigations {
    /// Finds out what this CPU calls for. Never faults.
    #[must_use]
    pub fn detect() -> Self {
        let leaf7 = cpuid::leaf(7, 0);
        let arch_capabilities = if leaf7.edx & ARCH_CAPABILITIES == 0 {
            0
        } else {
            msr::rdmsr_safe(msr::IA32_ARCH_CAPABILITIES).unwrap_or(0)
        };
        Self::choose(Facts {
            signature: cpuid::leaf(1, 0).eax,
            leaf7_ebx: leaf7.ebx,
            leaf7_edx: leaf7.edx,
            arch_capabilities,
        })
    }

    const fn choose(facts: Facts) -> Self {
        let caps = facts.arch_capabilities;
        let l1tf = has_l1tf(facts) && caps & arch::SKIP_L1DFL_VMENTRY == 0;
        let can_flush = facts.leaf7_edx & L1D_FLUSH != 0;
        let has_taa = facts.leaf7_ebx & RTM != 0 && caps & arch::TAA_NO == 0;
        let buffers = facts.leaf7_edx & MD_CLEAR != 0 && (caps & arch::MDS_NO == 0 || has_taa);
        let stale_data =
            caps & arch::FB_CLEAR != 0 && caps & arch::STALE_DATA_NO != arch::STALE_DATA_NO;
        let register_file = caps & arch::RFDS_CLEAR != 0 && caps & arch::RFDS_NO == 0;
        let l1d_flush = l1tf && can_flush;
        let verw = buffers || stale_data || register_file;
        Self {
            ibpb: facts.leaf7_edx & IBRS_IBPB != 0,
            l1d_flush,
            verw,
            enhanced_ibrs: facts.leaf7_edx & IBRS_IBPB != 0 && caps & arch::IBRS_ALL != 0,
            l1tf_unmitigated: l1tf && !can_flush,
        }
    }

    /// Sets what stays set on this CPU. Once per CPU.
    pub fn init_cpu(&self) {
        if self.enhanced_ibrs {
            // SAFETY: the MSR exists; IBRS only restricts speculation.
            let set = unsafe { msr::wrmsr_safe(msr::IA32_SPEC_CTRL, SPEC_CTRL_IBRS) };
            debug_assert!(set.is_some(), "CPUID reports it");
        }
    }

    /// To be called when another vCPU than the last one takes over this CPU.
    #[inline]
    pub fn on_vcpu_switch(&self) {
        if self.ibpb {
            // SAFETY: the MSR exists (CPUID); bit 0 drops predictions.
            unsafe { msr::write(msr::IA32_PRED_CMD, 1) };
        }
    }

    /// True when [`Self::before_entry`] has anything to do.
    #[must_use]
    pub const fn needed_before_entry(&self) -> bool {
        self.l1d_flush || self.verw
    }

    /// To be called right before VM entry.
    pub fn before_entry(&self) {
        if self.l1d_flush {
            // SAFETY: the MSR exists (CPUID); bit 0 writes back and drops the L1 data cache.
            unsafe { msr::write(msr::IA32_FLUSH_CMD, 1) };
        }
        if self.verw {
            verw();
        }
    }
}

/// The CPU is of a kind that has L1TF. Those that say so in `IA32_ARCH_CAPABILITIES`, all of
/// other makers' families, and Atoms do not.
const fn has_l1tf(facts: Facts) -> bool {
    let family = facts.signature >> 8 & 0xf;
    let model = facts.signature >> 12 & 0xf0 | facts.signature >> 4 & 0xf;
    let atom = matches!(
        model,
        0x1c | 0x26
            | 0x27
            | 0x35
            | 0x36
            | 0x37
            | 0x4a
            | 0x4c
            | 0x4d
            | 0x5a
            | 0x5c
            | 0x5d
            | 0x5f
            | 0x65
            | 0x6e
            | 0x75
            | 0x7a
            | 0x86
            | 0x96
            | 0x9c
    );
    family == 6 && !atom && facts.arch_capabilities & arch::RDCL_NO == 0
}

/// VERW of a valid selector: what MD_CLEAR makes clear the buffers.
fn verw() {
    // SAFETY: tests a selector for write access; the memory form is the one that clears.
    unsafe {
        asm!(
            "push {selector}",
            "mov {selector:x}, ss",
            "mov [rsp], {selector:x}",
            "verw word ptr [rsp]",
            "pop {selector}",
            selector = out(reg) _,
        );
    }
}

/// One line for the boot log.
impl fmt::Display for Mitigations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        let all = [
            (self.ibpb, "IBPB at vCPU switch"),
            (self.enhanced_ibrs, "enhanced IBRS"),
            (self.l1d_flush, "L1D flush at VM entry"),
            (self.verw, "VERW at VM entry"),
            (
                self.l1tf_unmitigated,
                "L1TF without a way to flush: update the microcode",
            ),
        ];
        for (_, text) in all.into_iter().filter(|(on, _)| *on) {
            f.write_str(if any { ", " } else { "" })?;
            f.write_str(text)?;
            any = true;
        }
        f.write_str(if any { "" } else { "none called for" })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Facts, IBRS_IBPB, L1D_FLUSH, MD_CLEAR, Mitigations, RTM, arch};
    use std::string::ToString;

    const SKYLAKE: u32 = 0x0005_0654;
    const GOLDMONT: u32 = 0x0005_06c9;

    #[test]
    fn a_skylake_with_microcode_needs_everything() {
        let all = Mitigations::choose(Facts {
            signature: SKYLAKE,
            leaf7_edx: IBRS_IBPB | L1D_FLUSH | MD_CLEAR,
            ..Facts::default()
        });
        assert!(all.ibpb && all.l1d_flush && all.verw);
        assert!(!all.enhanced_ibrs && !all.l1tf_unmitigated);
        let text = "IBPB at vCPU switch, L1D flush at VM entry, VERW at VM entry";
        assert_eq!(all.to_string(), text);
    }

    #[test]
    fn a_cpu_without_the_bits_can_do_nothing() {
        let old = Mitigations::choose(Facts {
            signature: SKYLAKE,
            ..Facts::default()
        });
        assert!(!old.ibpb && !old.l1d_flush && !old.verw && old.l1tf_unmitigated);
        let atom = Mitigations::choose(Facts {
            signature: GOLDMONT,
            ..Facts::default()
        });
        assert_eq!(atom, Mitigations::default());
        assert_eq!(atom.to_string(), "none called for");
    }

    #[test]
    fn capabilities_lift_what_they_name() {
        let base = Facts {
            signature: SKYLAKE,
            leaf7_edx: IBRS_IBPB | L1D_FLUSH | MD_CLEAR,
            ..Facts::default()
        };
        let with = |arch_capabilities| {
            Mitigations::choose(Facts {
                arch_capabilities,
                ..base
            })
        };
        assert!(!with(arch::RDCL_NO).l1d_flush);
        assert!(!with(arch::SKIP_L1DFL_VMENTRY).l1d_flush);
        assert!(!with(arch::MDS_NO).verw);
        assert!(with(arch::MDS_NO | arch::FB_CLEAR).verw);
        assert!(!with(arch::MDS_NO | arch::FB_CLEAR | arch::STALE_DATA_NO).verw);
        assert!(with(arch::MDS_NO | arch::RFDS_CLEAR).verw);
        assert!(!with(arch::MDS_NO | arch::RFDS_CLEAR | arch::RFDS_NO).verw);
        assert!(with(arch::IBRS_ALL).enhanced_ibrs);
        let tsx = Facts {
            leaf7_ebx: RTM,
            arch_capabilities: arch::MDS_NO,
            ..base
        };
        assert!(Mitigations::choose(tsx).verw);
        let fixed = Facts {
            arch_capabilities: arch::MDS_NO | arch::TAA_NO,
            ..tsx
        };
        assert!(!Mitigations::choose(fixed).verw);
    }
}
