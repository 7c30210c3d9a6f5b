//! The MSRs of a guest: one table says what each access does. What is not in it faults.
//!
//! [`MsrPolicy`] belongs to a domain, [`MsrState`] to a vCPU. An access that exits gets a
//! [`Read`] or a [`Write`] for the exit handler to carry out; the MSRs of
//! [`MsrPolicy::passed_through`] do not exit at all.
//!
//! SDM 4, "Model-Specific Registers (MSRs)".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use abi::{Gfn, Gpa};
use vmx::cpu::last_branch::{DEBUGCTL_LBR, Stack};

use super::cpuid::CpuidPolicy;
use super::mtrr::Mtrrs;
use crate::fault::GuestFault;

/// Numbers of the MSRs a guest may touch, in the SDM's spelling.
pub mod number {
    #![expect(missing_docs, reason = "the names are the SDM's")]

    pub const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
    pub const IA32_PLATFORM_ID: u32 = 0x17;
    pub const IA32_APIC_BASE: u32 = 0x1b;
    pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
    pub const IA32_SPEC_CTRL: u32 = 0x48;
    pub const IA32_PRED_CMD: u32 = 0x49;
    pub const IA32_BIOS_UPDT_TRIG: u32 = 0x79;
    pub const IA32_BIOS_SIGN_ID: u32 = 0x8b;
    pub const MSR_PLATFORM_INFO: u32 = 0xce;
    pub const IA32_MTRRCAP: u32 = 0xfe;
    pub const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
    pub const MSR_MISC_FEATURES_ENABLES: u32 = 0x140;
    pub const IA32_SYSENTER_CS: u32 = 0x174;
    pub const IA32_SYSENTER_ESP: u32 = 0x175;
    pub const IA32_SYSENTER_EIP: u32 = 0x176;
    pub const IA32_PERF_STATUS: u32 = 0x198;
    pub const IA32_PERF_CTL: u32 = 0x199;
    pub const IA32_THERM_STATUS: u32 = 0x19c;
    pub const IA32_MISC_ENABLE: u32 = 0x1a0;
    pub const IA32_DEBUGCTL: u32 = 0x1d9;
    pub const IA32_MTRR_PHYSBASE0: u32 = 0x200;
    pub const IA32_MTRR_FIX4K_F8000: u32 = 0x26f;
    pub const IA32_PAT: u32 = 0x277;
    pub const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const IA32_TSC_DEADLINE: u32 = 0x6e0;
    pub const IA32_X2APIC_FIRST: u32 = 0x800;
    pub const IA32_X2APIC_LAST: u32 = 0x8ff;
    pub const IA32_XSS: u32 = 0xda0;
    pub const XEN_HYPERCALL_PAGE: u32 = crate::policy::cpuid::HYPERCALL_PAGE_MSR;
    pub const IA32_EFER: u32 = 0xc000_0080;
    pub const IA32_STAR: u32 = 0xc000_0081;
    pub const IA32_LSTAR: u32 = 0xc000_0082;
    pub const IA32_CSTAR: u32 = 0xc000_0083;
    pub const IA32_FMASK: u32 = 0xc000_0084;
    pub const IA32_FS_BASE: u32 = 0xc000_0100;
    pub const IA32_GS_BASE: u32 = 0xc000_0101;
    pub const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const IA32_TSC_AUX: u32 = 0xc000_0103;
}

/// Bits of IA32_EFER.
pub mod efer {
    /// SYSCALL enabled.
    pub const SCE: u64 = 1 << 0;
    /// IA-32e mode enabled.
    pub const LME: u64 = 1 << 8;
    /// IA-32e mode active; follows LME and CR0.PG.
    pub const LMA: u64 = 1 << 10;
    /// Execute-disable enabled.
    pub const NXE: u64 = 1 << 11;
}

/// MSRs of the host that a guest sees, as read on the boot pCPU (0 where the host has none).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostMsrs {
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_PLATFORM_ID.
    pub platform_id: u64,
    /// IA32_BIOS_SIGN_ID, the microcode revision.
    pub microcode: u64,
    /// IA32_ARCH_CAPABILITIES.
    pub arch_capabilities: u64,
    /// Its registers of last-branch records.
    pub last_branches: Option<&'static Stack>,
}

/// Which direction of an MSR is passed through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// RDMSR only.
    Read,
    /// WRMSR only.
    Write,
    /// Both.
    Both,
}

/// What an RDMSR that exits returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// This value.
    Value(u64),
    /// What the virtual local APIC's `msr_read` returns.
    LocalApic,
    /// The VMCS field GUEST_IA32_DEBUGCTL.
    DebugCtl,
    /// The vCPU's last-branch record; 0 while it has none.
    LastBranch,
}

/// What a WRMSR that exits does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// Nothing more.
    Done,
    /// What the virtual local APIC's `msr_write` does.
    LocalApic,
    /// Sets GUEST_IA32_EFER to what [`MsrPolicy::efer`] makes of the value.
    Efer,
    /// Sets the guest's TSC to the value, by its offset.
    Tsc,
    /// Sets the VMCS field GUEST_IA32_DEBUGCTL to this value.
    DebugCtl(u64),
    /// The same, and from now on the vCPU has last-branch records.
    RecordBranches(&'static Stack, u64),
    /// Sets the vCPU's last-branch record to the value, if the CPU takes it.
    LastBranch(&'static Stack),
    /// Fills the frame with the hypercall page; #GP when it is no writable RAM.
    HypercallPage(Gfn),
}

/// The MSRs of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrPolicy {
    misc_enable: u64,
    platform_id: u64,
    microcode: u64,
    arch_capabilities: Option<u64>,
    last_branches: Option<&'static Stack>,
    efer: u64,
    phys_bits: u8,
    xss: bool,
    tsc_aux: bool,
    spec_ctrl: bool,
    pat_switched: bool,
}

/// The MSRs of a vCPU that only the hypervisor keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsrState {
    mtrrs: Mtrrs,
    misc_features_enables: u64,
    pat: u64,
}

/// MSRs that no VMCS field holds and the hypervisor does not use: switched with the vCPU.
const SWITCHED: &[u32] = &[
    number::IA32_STAR,
    number::IA32_LSTAR,
    number::IA32_CSTAR,
    number::IA32_FMASK,
    number::IA32_KERNEL_GS_BASE,
    number::IA32_TSC_AUX,
];

#[rustfmt::skip]
const PASSED_THROUGH: &[(u32, Direction)] = &[
    (number::IA32_TIME_STAMP_COUNTER, Direction::Read),
    (number::IA32_SYSENTER_CS, Direction::Both),
    (number::IA32_SYSENTER_ESP, Direction::Both),
    (number::IA32_SYSENTER_EIP, Direction::Both),
    (number::IA32_PAT, Direction::Both),
    (number::IA32_EFER, Direction::Read),
    (number::IA32_STAR, Direction::Both),
    (number::IA32_LSTAR, Direction::Both),
    (number::IA32_CSTAR, Direction::Both),
    (number::IA32_FMASK, Direction::Both),
    (number::IA32_FS_BASE, Direction::Both),
    (number::IA32_GS_BASE, Direction::Both),
    (number::IA32_KERNEL_GS_BASE, Direction::Both),
    (number::IA32_TSC_AUX, Direction::Both),
    (number::IA32_SPEC_CTRL, Direction::Both),
    (number::IA32_PRED_CMD, Direction::Write),
];

/// IA32_PAT after a reset.
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// The fast-string bit: all that a guest sees of the host's IA32_MISC_ENABLE.
const MISC_ENABLE_HOST: u64 = 1 << 0;
/// Branch trace storage and event-based sampling are unavailable.
const MISC_ENABLE_UNAVAILABLE: u64 = 1 << 11 | 1 << 12;
const FEATURE_CONTROL_LOCKED: u64 = 1 << 0;
const CPUID_FAULTING_AVAILABLE: u64 = 1 << 31;
const CPUID_FAULTING: u64 = 1 << 0;
/// IA32_DEBUGCTL.BTF: RFLAGS.TF traps branches only.
pub const DEBUGCTL_BTF: u64 = 1 << 1;

/// Bits of IA32_ARCH_CAPABILITIES that say which flaws the processor does not have, or how it
/// clears its buffers: RDCL_NO, IBRS_ALL, RSBA, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO,
/// SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, FB_CLEAR, RRSBA, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO and
/// RFDS_CLEAR. Bits that stand for another MSR are left out.
const ARCH_CAPABILITIES_SHOWN: u64 = 1 << 0
    | 1 << 1
    | 1 << 2
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 0b111 << 13
    | 1 << 17
    | 1 << 19
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 0b11 << 27;

impl MsrState {
    /// The state after a reset.
    pub const RESET: Self = Self {
        mtrrs: Mtrrs::RESET,
        misc_features_enables: 0,
        pat: PAT_RESET,
    };

    /// True while the guest wants CPUID to fault outside ring 0.
    #[must_use]
    pub fn cpuid_faulting(&self) -> bool {
        self.misc_features_enables & CPUID_FAULTING != 0
    }
}

impl MsrPolicy {
    /// The MSRs that go with `cpuid`. `pat_switched` says whether VM entry and exit exchange
    /// IA32_PAT; else the processor keeps the hypervisor's, and what the guest writes has no
    /// effect but to be read back.
    #[must_use]
    pub fn new(cpuid: &CpuidPolicy, host: HostMsrs, pat_switched: bool) -> Self {
        let bit = |value: u32, bit: u32| value.wrapping_shr(bit) & 1 != 0;
        let extended = cpuid.fixed(0x8000_0001, 0).edx;
        let structured = cpuid.fixed(7, 0).edx;
        let when = |on, bits| if on { bits } else { 0 };
        Self {
            misc_enable: host.misc_enable & MISC_ENABLE_HOST | MISC_ENABLE_UNAVAILABLE,
            platform_id: host.platform_id,
            microcode: host.microcode,
            arch_capabilities: bit(structured, 29)
                .then_some(host.arch_capabilities & ARCH_CAPABILITIES_SHOWN),
            last_branches: host.last_branches,
            efer: when(bit(extended, 11), efer::SCE)
                | when(bit(extended, 20), efer::NXE)
                | when(bit(extended, 29), efer::LME | efer::LMA),
            phys_bits: cpuid.phys_bits(),
            xss: bit(cpuid.fixed(0xd, 1).eax, 3),
            tsc_aux: bit(extended, 27) || bit(cpuid.fixed(7, 0).ecx, 22),
            spec_ctrl: bit(structured, 26),
            pat_switched,
        }
    }

    /// The MSRs whose accesses do not exit: the processor checks them, and their values belong
    /// to the vCPU, in the VMCS or by [`switched`](Self::switched).
    pub fn passed_through(&self) -> impl Iterator<Item = (u32, Direction)> + '_ {
        PASSED_THROUGH
            .iter()
            .copied()
            .filter(|(msr, _)| match *msr {
                number::IA32_TSC_AUX => self.tsc_aux,
                number::IA32_SPEC_CTRL | number::IA32_PRED_CMD => self.spec_ctrl,
                number::IA32_PAT => self.pat_switched,
                _ => true,
            })
    }

    /// The MSRs to save and load when the vCPU on a pCPU changes. IA32_SPEC_CTRL is not among
    /// them: it changes with every entry and exit.
    pub fn switched(&self) -> impl Iterator<Item = u32> + '_ {
        SWITCHED
            .iter()
            .copied()
            .filter(|msr| *msr != number::IA32_TSC_AUX || self.tsc_aux)
    }

    /// What RDMSR does.
    ///
    /// # Errors
    /// #GP for an MSR the guest does not have.
    pub fn read(&self, state: &MsrState, msr: u32) -> Result<Read, GuestFault> {
        let value = match msr {
            number::IA32_PLATFORM_ID => self.platform_id,
            number::IA32_APIC_BASE
            | number::IA32_TSC_DEADLINE
            | number::IA32_X2APIC_FIRST..=number::IA32_X2APIC_LAST => return Ok(Read::LocalApic),
            number::IA32_FEATURE_CONTROL => FEATURE_CONTROL_LOCKED,
            number::IA32_BIOS_SIGN_ID => self.microcode,
            number::MSR_PLATFORM_INFO => CPUID_FAULTING_AVAILABLE,
            number::IA32_ARCH_CAPABILITIES => self.arch_capabilities.ok_or(GuestFault::GP0)?,
            number::MSR_MISC_FEATURES_ENABLES => state.misc_features_enables,
            number::IA32_PERF_STATUS | number::IA32_PERF_CTL | number::IA32_THERM_STATUS => 0,
            number::IA32_MISC_ENABLE => self.misc_enable,
            number::IA32_DEBUGCTL => return Ok(Read::DebugCtl),
            number::IA32_MTRRCAP
            | number::IA32_MTRR_PHYSBASE0..=number::IA32_MTRR_FIX4K_F8000
            | number::IA32_MTRR_DEF_TYPE => state.mtrrs.read(msr).ok_or(GuestFault::GP0)?,
            number::IA32_XSS if self.xss => 0,
            number::IA32_PAT => state.pat,
            number::XEN_HYPERCALL_PAGE => 0,
            _ => {
                self.last_branches_with(msr).ok_or(GuestFault::GP0)?;
                return Ok(Read::LastBranch);
            }
        };
        Ok(Read::Value(value))
    }

    /// What WRMSR does.
    ///
    /// # Errors
    /// #GP for an MSR the guest does not have or may not write, and for reserved bits.
    pub fn write(&self, state: &mut MsrState, msr: u32, value: u64) -> Result<Write, GuestFault> {
        let allowed = |mask: u64| {
            if value & !mask == 0 {
                Ok(())
            } else {
                Err(GuestFault::GP0)
            }
        };
        match msr {
            number::IA32_TIME_STAMP_COUNTER => return Ok(Write::Tsc),
            number::IA32_APIC_BASE
            | number::IA32_TSC_DEADLINE
            | number::IA32_X2APIC_FIRST..=number::IA32_X2APIC_LAST => return Ok(Write::LocalApic),
            // A guest has no business with microcode; loading it does nothing.
            number::IA32_BIOS_UPDT_TRIG | number::IA32_BIOS_SIGN_ID => {}
            number::MSR_MISC_FEATURES_ENABLES => {
                allowed(CPUID_FAULTING)?;
                state.misc_features_enables = value;
            }
            number::IA32_PERF_STATUS | number::IA32_PERF_CTL | number::IA32_THERM_STATUS => {}
            number::IA32_MISC_ENABLE if value == self.misc_enable => {}
            number::IA32_DEBUGCTL => {
                allowed(DEBUGCTL_BTF | DEBUGCTL_LBR)?;
                return Ok(self.debugctl(value));
            }
            number::IA32_MTRR_PHYSBASE0..=number::IA32_MTRR_FIX4K_F8000
            | number::IA32_MTRR_DEF_TYPE => state.mtrrs.write(msr, value, self.phys_bits)?,
            number::IA32_XSS if self.xss => allowed(0)?,
            number::IA32_PAT if is_pat(value) => state.pat = value,
            number::XEN_HYPERCALL_PAGE => {
                allowed(!0xfff)?;
                return Ok(Write::HypercallPage(Gpa::new(value).gfn()));
            }
            number::IA32_EFER => return Ok(Write::Efer),
            _ => {
                let stack = self.last_branches_with(msr).ok_or(GuestFault::GP0)?;
                return Ok(Write::LastBranch(stack));
            }
        }
        Ok(Write::Done)
    }

    /// LBR does nothing and reads as 0 where there are no such records, as on CPUs that have
    /// architectural ones instead.
    fn debugctl(&self, value: u64) -> Write {
        match self.last_branches {
            Some(stack) if value & DEBUGCTL_LBR != 0 => Write::RecordBranches(stack, value),
            _ => Write::DebugCtl(value & !DEBUGCTL_LBR),
        }
    }

    /// The last-branch records, if the MSR is one of their registers.
    fn last_branches_with(&self, msr: u32) -> Option<&'static Stack> {
        self.last_branches.filter(|stack| stack.find(msr).is_some())
    }

    /// The IA32_EFER that a write of `value` leaves; `current` is the value before it and
    /// `paging` the guest's CR0.PG.
    ///
    /// SDM 3A, "Initializing IA-32e Mode": LME cannot change while paging is on. LMA is the
    /// processor's and keeps its value.
    ///
    /// # Errors
    /// #GP for reserved bits, features the guest does not have, and a change of LME under paging.
    pub fn efer(&self, value: u64, current: u64, paging: bool) -> Result<u64, GuestFault> {
        let reserved = value & !self.efer != 0;
        let switches_mode = paging && (value ^ current) & efer::LME != 0;
        if reserved || switches_mode {
            return Err(GuestFault::GP0);
        }
        Ok(value & !efer::LMA | current & efer::LMA)
    }
}

/// True when each byte is a memory type. SDM 3A, "IA32_PAT MSR".
fn is_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

#[cfg(test)]
mod tests {
    use super::{Direction, HostMsrs, MsrPolicy, MsrState, PAT_RESET, Read, Write, efer, number};
    use crate::fault::GuestFault;
    use crate::policy::cpuid::{CpuidPolicy, Registers, Spec, Tsc, Usable};
    use abi::{DomId, Gfn};
    use proptest::prelude::{any, proptest};
    use vmx::cpu::last_branch::Stack;

    const HOST: HostMsrs = HostMsrs {
        misc_enable: 0x4_0085_0089,
        platform_id: 0x0014_0000_0000_0000,
        microcode: 0x2b00_05c0_0000_0000,
        arch_capabilities: u64::MAX,
        last_branches: None,
    };

    fn policy(usable: Usable) -> MsrPolicy {
        policy_with(usable, true)
    }

    fn policy_with(usable: Usable, pat_switched: bool) -> MsrPolicy {
        let host = |leaf: u32, _| match leaf {
            0 => Registers {
                eax: 0x20,
                ..Registers::default()
            },
            0x8000_0000 => Registers {
                eax: 0x8000_0008,
                ..Registers::default()
            },
            0x8000_0008 => Registers {
                eax: 0x3027,
                ..Registers::default()
            },
            _ => Registers {
                eax: u32::MAX,
                ebx: u32::MAX,
                ecx: u32::MAX,
                edx: u32::MAX,
            },
        };
        let tsc = Tsc {
            khz: 2_000_000,
            offset: 0,
            mul: 1 << 31,
            shift: 0,
        };
        let spec = Spec {
            domid: DomId(1),
            vcpus: 1,
            usable,
            tsc,
            upcall_vector: false,
        };
        MsrPolicy::new(&CpuidPolicy::new(host, &spec), HOST, pat_switched)
    }

    fn full() -> MsrPolicy {
        let xcr0 = 7;
        policy(Usable {
            invpcid: true,
            rdtscp: true,
            xsaves: true,
            spec_ctrl: true,
            xcr0,
        })
    }

    fn read(msr: u32) -> Result<Read, GuestFault> {
        full().read(&MsrState::RESET, msr)
    }

    fn write(msr: u32, value: u64) -> Result<Write, GuestFault> {
        full().write(&mut MsrState::RESET.clone(), msr, value)
    }

    const GP: Result<Read, GuestFault> = Err(GuestFault::GP0);
    const WRITE_GP: Result<Write, GuestFault> = Err(GuestFault::GP0);

    #[test]
    fn values_a_guest_reads() {
        assert_eq!(read(number::IA32_MISC_ENABLE), Ok(Read::Value(0x1801)));
        assert_eq!(
            read(number::IA32_PLATFORM_ID),
            Ok(Read::Value(HOST.platform_id))
        );
        assert_eq!(read(number::IA32_FEATURE_CONTROL), Ok(Read::Value(1)));
        assert_eq!(
            read(number::IA32_BIOS_SIGN_ID),
            Ok(Read::Value(HOST.microcode))
        );
        assert_eq!(read(number::IA32_MTRR_DEF_TYPE), Ok(Read::Value(0x806)));
        assert_eq!(read(number::IA32_MTRRCAP), Ok(Read::Value(0x508)));
        assert_eq!(read(0x26f), Ok(Read::Value(0)));
        assert_eq!(read(number::XEN_HYPERCALL_PAGE), Ok(Read::Value(0)));
        let Ok(Read::Value(capabilities)) = read(number::IA32_ARCH_CAPABILITIES) else {
            panic!("ARCH_CAPABILITIES is there")
        };
        assert_eq!(
            capabilities & (1 << 7 | 1 << 3 | 1 << 10 | 1 << 21 | 1 << 18),
            0
        );
        for lapic in [0x1b, 0x6e0, 0x800, 0x8ff] {
            assert_eq!(read(lapic), Ok(Read::LocalApic));
        }
    }

    #[test]
    fn unknown_and_hidden_ones_fault() {
        for msr in [
            0,
            0x33,
            0x3b,
            0x4e,
            0x79,
            0xcf,
            0x10f,
            0x119,
            0x122,
            0x123,
            0x179,
            0x17a,
            0x17f,
            0x186,
            0x1c4,
            0x1c9,
            0x210,
            0x24f,
            0x251,
            0x25a,
            0x267,
            0x270,
            0x280,
            0x345,
            0x38d,
            0x400,
            0x480,
            0x48b,
            0x7ff,
            0x900,
            0x982,
            0x4000_0001,
            0x4000_0021,
            0xc000_0105,
            0xc001_0015,
        ] {
            assert_eq!(read(msr), GP, "{msr:#x}");
        }
        for msr in [0, 0x17, 0x3a, 0xce, 0xfe, 0x10a, 0x10b, 0x210, 0x4000_0001] {
            assert_eq!(write(msr, 0), WRITE_GP, "{msr:#x}");
        }
        let bare = policy(Usable::default());
        assert_eq!(bare.read(&MsrState::RESET, number::IA32_XSS), GP);
        assert!(
            bare.passed_through()
                .all(|(msr, _)| msr != number::IA32_SPEC_CTRL)
        );
        assert!(bare.switched().all(|msr| msr != number::IA32_TSC_AUX));
    }

    #[test]
    fn a_pat_that_nothing_switches_is_only_kept() {
        let policy = policy_with(Usable::default(), false);
        let passed =
            |policy: &MsrPolicy| policy.passed_through().any(|(m, _)| m == number::IA32_PAT);
        assert!(passed(&full()) && !passed(&policy));
        let mut state = MsrState::RESET;
        let read = |state: &MsrState| policy.read(state, number::IA32_PAT);
        assert_eq!(read(&state), Ok(Read::Value(PAT_RESET)));
        let linux = 0x0407_0506_0007_0106;
        assert_eq!(
            policy.write(&mut state, number::IA32_PAT, linux),
            Ok(Write::Done)
        );
        for wrong in [2, 3 << 8, 8 << 56] {
            assert_eq!(policy.write(&mut state, number::IA32_PAT, wrong), WRITE_GP);
        }
        assert_eq!(read(&state), Ok(Read::Value(linux)));
    }

    #[test]
    fn writes() {
        assert_eq!(write(number::IA32_MISC_ENABLE, 0x1801), Ok(Write::Done));
        assert_eq!(write(number::IA32_MISC_ENABLE, 0x1800), WRITE_GP);
        assert_eq!(write(number::IA32_BIOS_SIGN_ID, 0), Ok(Write::Done));
        assert_eq!(write(number::IA32_XSS, 0), Ok(Write::Done));
        assert_eq!(write(number::IA32_XSS, 1 << 8), WRITE_GP);
        assert_eq!(write(number::IA32_DEBUGCTL, 2), Ok(Write::DebugCtl(2)));
        assert_eq!(write(number::IA32_DEBUGCTL, 3), Ok(Write::DebugCtl(2)));
        for bits in [1 << 6, 1 << 7, 1 << 8] {
            assert_eq!(write(number::IA32_DEBUGCTL, bits), WRITE_GP, "{bits:#x}");
        }
        assert_eq!(
            write(0x4000_0000, 0x5000),
            Ok(Write::HypercallPage(Gfn::new(5)))
        );
        assert_eq!(write(0x4000_0000, 0x5001), WRITE_GP);
    }

    #[test]
    fn last_branch_records_are_there_when_the_host_has_them() {
        let skylake = Stack::of_model(0x0005_0654).expect("a known model");
        let policy = MsrPolicy {
            last_branches: Some(skylake),
            ..full()
        };
        let mut state = MsrState::RESET;
        for msr in [0x1c8, 0x1c9, 0x1dd, 0x1de, 0x680, 0x69f, 0x6c0, 0xddf] {
            assert_eq!(policy.read(&state, msr), Ok(Read::LastBranch), "{msr:#x}");
            let written = policy.write(&mut state, msr, 1);
            assert_eq!(written, Ok(Write::LastBranch(skylake)), "{msr:#x}");
            assert_eq!(read(msr), GP, "{msr:#x} of a host without");
            assert_eq!(write(msr, 1), WRITE_GP, "{msr:#x} of a host without");
        }
        for msr in [0x1ca, 0x1db, 0x67f, 0x6a0, 0xde0] {
            assert_eq!(policy.read(&state, msr), GP, "{msr:#x}");
            assert_eq!(policy.write(&mut state, msr, 1), WRITE_GP, "{msr:#x}");
        }
        let mut control = |value| policy.write(&mut state, number::IA32_DEBUGCTL, value);
        assert_eq!(control(3), Ok(Write::RecordBranches(skylake, 3)));
        assert_eq!(control(2), Ok(Write::DebugCtl(2)));
        assert_eq!(control(1 << 11), WRITE_GP);
    }

    #[test]
    fn mtrrs_take_legal_values() {
        let policy = full();
        let mut state = MsrState::RESET;
        let mut write = |msr, value| policy.write(&mut state, msr, value);
        assert_eq!(write(0x2ff, 0xc06), Ok(Write::Done));
        assert_eq!(write(0x200, 0xe000_0006), Ok(Write::Done));
        assert_eq!(write(0x201, 0x7f_e000_0800), Ok(Write::Done));
        assert_eq!(write(0x250, 0x0606_0505_0404_0100), Ok(Write::Done));
        for (msr, value) in [
            (0x2ff, 0x802),
            (0x2ff, 0x1806),
            (0x200, 0x106),
            (0x200, 3),
            (0x200, 1 << 39 | 6),
            (0x201, 0x401),
            (0x201, 1 << 39),
            (0x250, 0x0606_0606_0606_0602),
            (0xfe, 0x508),
        ] {
            assert_eq!(write(msr, value), WRITE_GP, "{msr:#x} {value:#x}");
        }
        assert_eq!(policy.read(&state, 0x201), Ok(Read::Value(0x7f_e000_0800)));
        assert_eq!(policy.read(&state, 0x2ff), Ok(Read::Value(0xc06)));
    }

    #[test]
    fn cpuid_faulting_follows_its_msr() {
        let mut state = MsrState::RESET;
        assert!(!state.cpuid_faulting());
        let written = full().write(&mut state, number::MSR_MISC_FEATURES_ENABLES, 1);
        assert_eq!(written, Ok(Write::Done));
        assert!(state.cpuid_faulting());
        assert_eq!(
            full().write(&mut state, number::MSR_MISC_FEATURES_ENABLES, 2),
            WRITE_GP
        );
    }

    #[test]
    fn efer_rules() {
        let policy = full();
        let long = efer::LME | efer::LMA | efer::NXE;
        assert_eq!(
            policy.efer(efer::LME | efer::NXE, 0, false),
            Ok(efer::LME | efer::NXE)
        );
        assert_eq!(policy.efer(efer::SCE | efer::LME, long, true), Ok(0x501));
        assert_eq!(
            policy.efer(long, efer::LME, false),
            Ok(efer::LME | efer::NXE)
        );
        assert_eq!(policy.efer(0, long, true), Err(GuestFault::GP0));
        assert_eq!(policy.efer(1 << 12, 0, false), Err(GuestFault::GP0));
    }

    #[test]
    fn nothing_switched_is_left_to_exits() {
        let policy = full();
        for msr in policy.switched() {
            assert!(
                policy
                    .passed_through()
                    .any(|row| row == (msr, Direction::Both))
            );
        }
    }

    proptest! {
        /// What a write accepts can be read back or is handed on; nothing panics.
        #[test]
        fn any_access(msr in any::<u32>(), small in 0_u32..0x1000, value: u64) {
            let policy = full();
            let mut state = MsrState::RESET;
            for msr in [msr, small, small | 0x4000_0000, small | 0xc000_0000] {
                let before = state;
                let written = policy.write(&mut state, msr, value);
                if written.is_err() {
                    assert_eq!(state, before);
                }
                if state != before {
                    assert_eq!(policy.read(&state, msr), Ok(Read::Value(value)));
                }
            }
        }
    }
}
