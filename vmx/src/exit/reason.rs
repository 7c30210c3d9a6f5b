//! Basic exit reasons and which VMCS fields each of them fills.
//!
//! SDM 3D, "VMX Basic Exit Reasons"; what is saved: SDM 3C, "Recording VM-Exit Information and
//! Updating VM-entry Control Fields".

use bitflags::bitflags;

/// Bit 31 of the exit reason: the VM entry failed after loading guest state began.
pub const ENTRY_FAILURE: u32 = 1 << 31;
/// Bit 26 of the exit reason: a bus lock was asserted just before this exit.
pub const BUS_LOCK: u32 = 1 << 26;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub const $name: u16 = $number;)*

        /// The name of a basic exit reason, for logs and statistics.
        #[must_use]
        pub const fn name(reason: u16) -> &'static str {
            match reason {
                $($name => stringify!($name),)*
                _ => "UNKNOWN",
            }
        }
    };
}

reasons! {
    /// Exception or NMI.
    EXCEPTION_OR_NMI = 0;
    /// External interrupt.
    EXTERNAL_INTERRUPT = 1;
    /// Triple fault.
    TRIPLE_FAULT = 2;
    /// INIT signal.
    INIT_SIGNAL = 3;
    /// Start-up IPI.
    STARTUP_IPI = 4;
    /// I/O system-management interrupt.
    IO_SMI = 5;
    /// Other SMI.
    OTHER_SMI = 6;
    /// Interrupt window.
    INTERRUPT_WINDOW = 7;
    /// NMI window.
    NMI_WINDOW = 8;
    /// Task switch.
    TASK_SWITCH = 9;
    /// CPUID.
    CPUID = 10;
    /// GETSEC.
    GETSEC = 11;
    /// HLT.
    HLT = 12;
    /// INVD.
    INVD = 13;
    /// INVLPG.
    INVLPG = 14;
    /// RDPMC.
    RDPMC = 15;
    /// RDTSC.
    RDTSC = 16;
    /// RSM.
    RSM = 17;
    /// VMCALL.
    VMCALL = 18;
    /// VMCLEAR.
    VMCLEAR = 19;
    /// VMLAUNCH.
    VMLAUNCH = 20;
    /// VMPTRLD.
    VMPTRLD = 21;
    /// VMPTRST.
    VMPTRST = 22;
    /// VMREAD.
    VMREAD = 23;
    /// VMRESUME.
    VMRESUME = 24;
    /// VMWRITE.
    VMWRITE = 25;
    /// VMXOFF.
    VMXOFF = 26;
    /// VMXON.
    VMXON = 27;
    /// Control-register access.
    CR_ACCESS = 28;
    /// MOV DR.
    MOV_DR = 29;
    /// I/O instruction.
    IO_INSTRUCTION = 30;
    /// RDMSR.
    RDMSR = 31;
    /// WRMSR.
    WRMSR = 32;
    /// VM-entry failure: invalid guest state.
    ENTRY_FAILURE_GUEST_STATE = 33;
    /// VM-entry failure: MSR loading.
    ENTRY_FAILURE_MSR_LOADING = 34;
    /// MWAIT.
    MWAIT = 36;
    /// Monitor trap flag.
    MONITOR_TRAP_FLAG = 37;
    /// MONITOR.
    MONITOR = 39;
    /// PAUSE, or a PAUSE loop.
    PAUSE = 40;
    /// VM-entry failure: machine-check event.
    ENTRY_FAILURE_MACHINE_CHECK = 41;
    /// TPR below threshold.
    TPR_BELOW_THRESHOLD = 43;
    /// APIC access.
    APIC_ACCESS = 44;
    /// Virtualized EOI.
    VIRTUALIZED_EOI = 45;
    /// Access to GDTR or IDTR.
    GDTR_IDTR = 46;
    /// Access to LDTR or TR.
    LDTR_TR = 47;
    /// EPT violation.
    EPT_VIOLATION = 48;
    /// EPT misconfiguration.
    EPT_MISCONFIGURATION = 49;
    /// INVEPT.
    INVEPT = 50;
    /// RDTSCP.
    RDTSCP = 51;
    /// VMX-preemption timer expired.
    PREEMPTION_TIMER = 52;
    /// INVVPID.
    INVVPID = 53;
    /// WBINVD or WBNOINVD.
    WBINVD = 54;
    /// XSETBV.
    XSETBV = 55;
    /// APIC write.
    APIC_WRITE = 56;
    /// RDRAND.
    RDRAND = 57;
    /// INVPCID.
    INVPCID = 58;
    /// VMFUNC.
    VMFUNC = 59;
    /// ENCLS.
    ENCLS = 60;
    /// RDSEED.
    RDSEED = 61;
    /// Page-modification log full.
    PML_FULL = 62;
    /// XSAVES.
    XSAVES = 63;
    /// XRSTORS.
    XRSTORS = 64;
    /// PCONFIG.
    PCONFIG = 65;
    /// Sub-page permission miss or misconfiguration.
    SPP = 66;
    /// UMWAIT.
    UMWAIT = 67;
    /// TPAUSE.
    TPAUSE = 68;
    /// LOADIWKEY.
    LOADIWKEY = 69;
    /// ENCLV.
    ENCLV = 70;
    /// ENQCMD PASID translation failure.
    ENQCMD_PASID_FAILURE = 72;
    /// ENQCMDS PASID translation failure.
    ENQCMDS_PASID_FAILURE = 73;
    /// Bus lock.
    BUS_LOCK_DETECTED = 74;
    /// The notification window passed without an instruction boundary.
    NOTIFY = 75;
    /// SEAMCALL.
    SEAMCALL = 76;
    /// TDCALL.
    TDCALL = 77;
    /// RDMSRLIST.
    RDMSRLIST = 78;
    /// WRMSRLIST.
    WRMSRLIST = 79;
    /// URDMSR.
    URDMSR = 80;
    /// UWRMSR.
    UWRMSR = 81;
    /// RDMSR with an immediate.
    RDMSR_IMMEDIATE = 84;
    /// WRMSRNS with an immediate.
    WRMSRNS_IMMEDIATE = 85;
}

bitflags! {
    /// VMCS fields to read for an exit besides the reason. A VMREAD outside the set that an outer
    /// hypervisor shadows costs an exit of its own, so nothing is read that is not needed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Needs: u8 {
        /// Exit qualification.
        const QUALIFICATION = 1;
        /// VM-exit interruption information, and its error code if it says so.
        const INTERRUPTION = 1 << 1;
        /// IDT-vectoring information, and what goes with it: the exit can happen during event
        /// delivery.
        const VECTORING = 1 << 2;
        /// VM-exit instruction information.
        const INSTRUCTION_INFO = 1 << 3;
        /// Guest-physical address.
        const GUEST_PHYSICAL = 1 << 4;
        /// Guest-linear address.
        const GUEST_LINEAR = 1 << 5;
        /// What else is needed depends on the qualification.
        const MORE = 1 << 6;
    }
}

impl Needs {
    /// The fields to read for `reason`.
    #[must_use]
    pub const fn of(reason: u16) -> Self {
        const QUALIFICATION: Needs = Needs::QUALIFICATION;
        const WITH_INFO: Needs = QUALIFICATION.union(Needs::INSTRUCTION_INFO);
        match reason {
            // The hot ones, and those where the registers tell everything.
            VMCALL | CPUID | HLT | PREEMPTION_TIMER | RDMSR | WRMSR | INTERRUPT_WINDOW => {
                Self::empty()
            }
            EXTERNAL_INTERRUPT => Self::INTERRUPTION,
            // The qualification of #PF and #DB is read when the vector asks for it.
            EXCEPTION_OR_NMI => Self::INTERRUPTION.union(Self::VECTORING).union(Self::MORE),
            // The guest-linear address is read when the qualification says it is valid.
            EPT_VIOLATION => QUALIFICATION
                .union(Self::VECTORING)
                .union(Self::GUEST_PHYSICAL)
                .union(Self::MORE),
            EPT_MISCONFIGURATION => Self::GUEST_PHYSICAL.union(Self::VECTORING),
            SPP => QUALIFICATION
                .union(Self::VECTORING)
                .union(Self::GUEST_PHYSICAL)
                .union(Self::GUEST_LINEAR),
            // The rest of a string instruction is read when the qualification shows one; the
            // source operand of LMSW likewise.
            IO_INSTRUCTION | CR_ACCESS => QUALIFICATION.union(Self::MORE),
            TASK_SWITCH | APIC_ACCESS | PML_FULL | NOTIFY => QUALIFICATION.union(Self::VECTORING),
            BUS_LOCK_DETECTED => Self::VECTORING,
            STARTUP_IPI
            | INVLPG
            | MOV_DR
            | MWAIT
            | VIRTUALIZED_EOI
            | APIC_WRITE
            | ENTRY_FAILURE_GUEST_STATE
            | ENTRY_FAILURE_MSR_LOADING => QUALIFICATION,
            GDTR_IDTR | LDTR_TR | INVPCID | RDMSR_IMMEDIATE | WRMSRNS_IMMEDIATE => WITH_INFO,
            RDRAND | RDSEED | UMWAIT | TPAUSE => Self::INSTRUCTION_INFO,
            // The VMX instructions among the rest only ever end in #UD: nothing to read.
            _ => Self::empty(),
        }
    }
}
