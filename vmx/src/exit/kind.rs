//! The VM exits by name, with what each of them tells.

use abi::{Gpa, Gva};

use super::qual::{
    ApicAccess, CrAccess, DrAccess, EptViolation, ExceptionInfo, FailedEntry, Invalidate, IoAccess,
    RegisterOperand, TableAccess, TaskSwitch,
};

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An exception of the exception bitmap.
    Exception(ExceptionInfo),
    /// An NMI for the host arrived; its handler has not run yet (NMIs stay blocked until IRET).
    Nmi,
    /// An external interrupt for the host.
    ExternalInterrupt {
        /// Its vector, when the exit acknowledged it; else it is still pending.
        vector: Option<u8>,
    },
    /// A triple fault.
    TripleFault,
    /// An INIT signal.
    InitSignal,
    /// A start-up IPI.
    StartupIpi {
        /// The vector: bits 19:12 of the start address.
        vector: u8,
    },
    /// An SMI (only with dual-monitor treatment).
    Smi,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// The guest can take an NMI now.
    NmiWindow,
    /// A task switch.
    TaskSwitch(TaskSwitch),
    /// CPUID.
    Cpuid,
    /// GETSEC.
    Getsec,
    /// HLT.
    Hlt,
    /// INVD.
    Invd,
    /// INVLPG of a linear address.
    Invlpg(Gva),
    /// RDPMC.
    Rdpmc,
    /// RDTSC.
    Rdtsc,
    /// RSM.
    Rsm,
    /// VMCALL.
    Vmcall,
    /// VMCLEAR to VMXON, by basic exit reason.
    VmxInstruction(u16),
    /// A control-register access.
    CrAccess(CrAccess),
    /// A debug-register access.
    DrAccess(DrAccess),
    /// An I/O instruction.
    Io(IoAccess),
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// The VM entry failed while it loaded guest state; the guest did not run.
    EntryFailure(FailedEntry),
    /// MWAIT; true when address-range monitoring was armed.
    Mwait(bool),
    /// MONITOR.
    Monitor,
    /// PAUSE, or a PAUSE loop.
    Pause,
    /// The monitor trap flag.
    Mtf,
    /// TPR below threshold.
    TprBelowThreshold,
    /// An access to the APIC-access page.
    ApicAccess(ApicAccess),
    /// A virtualized EOI of the given vector.
    VirtualizedEoi(u8),
    /// LGDT, LIDT, SGDT, SIDT.
    GdtrIdtr(TableAccess),
    /// LLDT, LTR, SLDT, STR.
    LdtrTr(TableAccess),
    /// An EPT violation.
    EptViolation(EptViolation),
    /// An EPT entry that is not legal: our bug.
    EptMisconfiguration {
        /// The guest-physical address it translates.
        gpa: Gpa,
    },
    /// INVEPT.
    Invept,
    /// RDTSCP.
    Rdtscp,
    /// The VMX-preemption timer reached zero.
    PreemptionTimer,
    /// INVVPID.
    Invvpid,
    /// WBINVD or WBNOINVD.
    Wbinvd,
    /// XSETBV.
    Xsetbv,
    /// A write to the virtual-APIC page at an offset.
    ApicWrite(u16),
    /// RDRAND.
    Rdrand(RegisterOperand),
    /// INVPCID.
    Invpcid(Invalidate),
    /// VMFUNC.
    Vmfunc,
    /// ENCLS.
    Encls,
    /// RDSEED.
    Rdseed(RegisterOperand),
    /// The page-modification log is full.
    PmlFull,
    /// XSAVES.
    Xsaves,
    /// XRSTORS.
    Xrstors,
    /// PCONFIG.
    Pconfig,
    /// Sub-page permissions: a miss, or a misconfiguration.
    Spp {
        /// The guest-physical address.
        gpa: Gpa,
        /// True for a miss.
        miss: bool,
    },
    /// UMWAIT.
    Umwait(RegisterOperand),
    /// TPAUSE.
    Tpause(RegisterOperand),
    /// LOADIWKEY.
    Loadiwkey,
    /// ENCLV.
    Enclv,
    /// ENQCMD or ENQCMDS whose PASID could not be translated.
    EnqcmdPasid,
    /// The guest asserted a bus lock; the instruction is complete.
    BusLock,
    /// No instruction boundary within the notification window.
    Notify {
        /// The VMCS is corrupt; the guest cannot go on.
        context_invalid: bool,
    },
    /// SEAMCALL.
    Seamcall,
    /// TDCALL.
    Tdcall,
    /// RDMSRLIST.
    Rdmsrlist,
    /// WRMSRLIST.
    Wrmsrlist,
    /// URDMSR.
    Urdmsr,
    /// UWRMSR.
    Uwrmsr,
    /// RDMSR with an immediate.
    RdmsrImmediate {
        /// The MSR.
        msr: u32,
        /// Encoding number of the destination.
        gpr: u8,
    },
    /// WRMSRNS with an immediate.
    WrmsrnsImmediate {
        /// The MSR.
        msr: u32,
        /// Encoding number of the source.
        gpr: u8,
    },
    /// A basic exit reason that no manual known here names.
    Unknown(u16),
}
