//! What a VM exit means: pure, from [`RawExit`]'s integers to [`Exit`].

use abi::{Gpa, Gva};

use super::kind::Exit;
use super::layout::{ApicQual, CrQual, DrQual, EptQual, IoQual, OperandInfo, TaskQual};
use super::qual::{
    AddressSize, ApicAccess, ApicAccessKind, CrAccess, DrAccess, EptViolation, ExceptionInfo,
    FailedEntry, GuestStateFault, Invalidate, IoAccess, LinearInfo, MemoryOperand, Operand,
    RegisterOperand, SegmentReg, StringIo, TableAccess, TableRegister, TaskSource, TaskSwitch,
};
use super::raw::RawExit;
use super::reason;
use crate::event::{self, Event, EventKind};

/// A decoded VM exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Why the guest stopped.
    pub exit: Exit,
    /// The basic exit reason, for statistics.
    pub reason: u16,
    /// The event whose delivery the exit cut short. Unless the exit's handling makes it moot it
    /// must be injected again, or it is lost.
    pub redeliver: Option<Event>,
    /// The exit hit an IRET that had already ended NMI blocking. When the IRET is to run again
    /// (the fault is resolved, not injected), set blocking by NMI in the guest's interruptibility
    /// state first: SDM 3C, "Resuming Guest Software After Handling an Exception".
    pub nmi_unblocking_due_to_iret: bool,
}

/// The frequent exits that the reason alone tells everything of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// VMCALL.
    Vmcall,
    /// CPUID.
    Cpuid,
    /// HLT.
    Hlt,
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// The VMX-preemption timer reached zero.
    PreemptionTimer,
}

/// The exit reason, flags included: all that is known of an exit at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReason(pub(crate) u32);

impl ExitReason {
    /// The field as the CPU filled it.
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The exit, if it is one of the frequent ones; else see [`crate::CurrentVmcs::details`].
    #[inline(always)]
    #[must_use]
    pub const fn plain(self) -> Option<Plain> {
        // A failed VM entry has bit 31 set and is none of these.
        Some(if self.0 == reason::VMCALL as u32 {
            Plain::Vmcall
        } else if self.0 == reason::CPUID as u32 {
            Plain::Cpuid
        } else if self.0 == reason::PREEMPTION_TIMER as u32 {
            Plain::PreemptionTimer
        } else if self.0 == reason::HLT as u32 {
            Plain::Hlt
        } else if self.0 == reason::RDMSR as u32 {
            Plain::Rdmsr
        } else if self.0 == reason::WRMSR as u32 {
            Plain::Wrmsr
        } else if self.0 == reason::INTERRUPT_WINDOW as u32 {
            Plain::InterruptWindow
        } else {
            return None;
        })
    }
}

impl Plain {
    /// The basic exit reason.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> u16 {
        match self {
            Self::Vmcall => reason::VMCALL,
            Self::Cpuid => reason::CPUID,
            Self::Hlt => reason::HLT,
            Self::Rdmsr => reason::RDMSR,
            Self::Wrmsr => reason::WRMSR,
            Self::InterruptWindow => reason::INTERRUPT_WINDOW,
            Self::PreemptionTimer => reason::PREEMPTION_TIMER,
        }
    }
}

/// Decodes a VM exit.
///
/// An NMI in `redeliver` needs the guest's blocking by NMI cleared before it is injected again:
/// the interrupted delivery had set it.
#[must_use]
pub fn decode(raw: &RawExit) -> Decoded {
    let redeliver = Event::from_info(raw.idt_info, raw.idt_error, raw.instruction_length);
    let nmi_unblocking_due_to_iret = nmi_unblocked(raw);
    Decoded {
        exit: exit(raw),
        reason: raw.basic_reason(),
        redeliver,
        nmi_unblocking_due_to_iret,
    }
}

/// SDM 3C, "Information About NMI Unblocking Due to IRET".
fn nmi_unblocked(raw: &RawExit) -> bool {
    if raw.idt_info & event::VALID != 0 {
        return false;
    }
    match raw.basic_reason() {
        reason::EXCEPTION_OR_NMI => {
            let [vector, ..] = raw.intr_info.to_le_bytes();
            raw.intr_info & event::VALID != 0
                && raw.intr_info & event::NMI_UNBLOCKED_BY_IRET != 0
                && vector != event::VECTOR_DF
        }
        reason::EPT_VIOLATION | reason::PML_FULL | reason::SPP | reason::NOTIFY => {
            EptQual(raw.qualification).nmi_unblocked()
        }
        _ => false,
    }
}

/// Decodes the exit itself.
///
/// Here and below, what is kept out of line writes its result where the caller wants it; all in
/// one function, the compiler would put every result together from scattered bytes at the end.
#[inline(never)]
fn exit(raw: &RawExit) -> Exit {
    let basic = raw.basic_reason();
    match basic {
        reason::EXCEPTION_OR_NMI => exception_or_nmi(raw),
        reason::EXTERNAL_INTERRUPT => external_interrupt(raw),
        reason::TRIPLE_FAULT => Exit::TripleFault,
        reason::INIT_SIGNAL => Exit::InitSignal,
        reason::STARTUP_IPI => Exit::StartupIpi {
            vector: low_byte(raw.qualification),
        },
        reason::IO_SMI | reason::OTHER_SMI => Exit::Smi,
        reason::INTERRUPT_WINDOW => Exit::InterruptWindow,
        reason::NMI_WINDOW => Exit::NmiWindow,
        reason::TASK_SWITCH => Exit::TaskSwitch(task_switch(raw.qualification)),
        reason::TPR_BELOW_THRESHOLD => Exit::TprBelowThreshold,
        reason::APIC_ACCESS => Exit::ApicAccess(apic_access(raw.qualification)),
        reason::VIRTUALIZED_EOI => Exit::VirtualizedEoi(low_byte(raw.qualification)),
        reason::APIC_WRITE => Exit::ApicWrite(ApicQual(raw.qualification).offset()),
        reason::EPT_VIOLATION => ept_violation(raw),
        reason::EPT_MISCONFIGURATION => Exit::EptMisconfiguration {
            gpa: Gpa::new(raw.guest_physical),
        },
        reason::SPP => Exit::Spp {
            gpa: Gpa::new(raw.guest_physical),
            miss: raw.qualification & 1 << 11 != 0,
        },
        reason::PML_FULL => Exit::PmlFull,
        reason::PREEMPTION_TIMER => Exit::PreemptionTimer,
        reason::MONITOR_TRAP_FLAG => Exit::Mtf,
        reason::BUS_LOCK_DETECTED => Exit::BusLock,
        reason::NOTIFY => Exit::Notify {
            context_invalid: raw.qualification & 1 != 0,
        },
        reason::ENTRY_FAILURE_GUEST_STATE
        | reason::ENTRY_FAILURE_MSR_LOADING
        | reason::ENTRY_FAILURE_MACHINE_CHECK => {
            Exit::EntryFailure(failed_entry(basic, raw.qualification))
        }
        _ => instruction(basic, raw),
    }
}

/// The exits that an instruction of the guest causes.
#[inline(never)]
fn instruction(basic: u16, raw: &RawExit) -> Exit {
    match basic {
        reason::CPUID => Exit::Cpuid,
        reason::GETSEC => Exit::Getsec,
        reason::HLT => Exit::Hlt,
        reason::INVD => Exit::Invd,
        reason::INVLPG => Exit::Invlpg(Gva::new(raw.qualification)),
        reason::RDPMC => Exit::Rdpmc,
        reason::RDTSC => Exit::Rdtsc,
        reason::RSM => Exit::Rsm,
        reason::VMCALL => Exit::Vmcall,
        reason::VMCLEAR..=reason::VMXON => Exit::VmxInstruction(basic),
        reason::CR_ACCESS => cr_access(raw),
        reason::MOV_DR => Exit::DrAccess(dr_access(raw.qualification)),
        reason::IO_INSTRUCTION => io_access(raw),
        reason::RDMSR => Exit::Rdmsr,
        reason::WRMSR => Exit::Wrmsr,
        reason::MWAIT => Exit::Mwait(raw.qualification & 1 != 0),
        reason::MONITOR => Exit::Monitor,
        reason::PAUSE => Exit::Pause,
        reason::GDTR_IDTR => Exit::GdtrIdtr(table_access(raw, true)),
        reason::LDTR_TR => Exit::LdtrTr(table_access(raw, false)),
        reason::INVEPT => Exit::Invept,
        reason::RDTSCP => Exit::Rdtscp,
        reason::INVVPID => Exit::Invvpid,
        reason::WBINVD => Exit::Wbinvd,
        reason::XSETBV => Exit::Xsetbv,
        reason::RDRAND => Exit::Rdrand(register_operand(raw.instruction_info)),
        reason::INVPCID => Exit::Invpcid(invalidate(raw)),
        reason::VMFUNC => Exit::Vmfunc,
        reason::ENCLS => Exit::Encls,
        reason::RDSEED => Exit::Rdseed(register_operand(raw.instruction_info)),
        reason::XSAVES => Exit::Xsaves,
        reason::XRSTORS => Exit::Xrstors,
        reason::PCONFIG => Exit::Pconfig,
        reason::UMWAIT => Exit::Umwait(register_operand(raw.instruction_info)),
        reason::TPAUSE => Exit::Tpause(register_operand(raw.instruction_info)),
        reason::LOADIWKEY => Exit::Loadiwkey,
        reason::ENCLV => Exit::Enclv,
        reason::ENQCMD_PASID_FAILURE | reason::ENQCMDS_PASID_FAILURE => Exit::EnqcmdPasid,
        reason::SEAMCALL => Exit::Seamcall,
        reason::TDCALL => Exit::Tdcall,
        reason::RDMSRLIST => Exit::Rdmsrlist,
        reason::WRMSRLIST => Exit::Wrmsrlist,
        reason::URDMSR => Exit::Urdmsr,
        reason::UWRMSR => Exit::Uwrmsr,
        reason::RDMSR_IMMEDIATE => Exit::RdmsrImmediate {
            msr: low_u32(raw.qualification),
            gpr: gpr1(raw),
        },
        reason::WRMSRNS_IMMEDIATE => Exit::WrmsrnsImmediate {
            msr: low_u32(raw.qualification),
            gpr: gpr1(raw),
        },
        unknown => Exit::Unknown(unknown),
    }
}

#[inline(never)]
fn exception_or_nmi(raw: &RawExit) -> Exit {
    let info = raw.intr_info;
    let [vector, ..] = info.to_le_bytes();
    match EventKind::from_bits(info >> 8 & 7) {
        Some(EventKind::Nmi) => Exit::Nmi,
        Some(kind) if info & event::VALID != 0 => {
            let [length, ..] = raw.instruction_length.to_le_bytes();
            Exit::Exception(ExceptionInfo {
                vector,
                error: (info & event::ERROR_CODE_VALID != 0).then_some(raw.intr_error),
                kind,
                qualification: raw.qualification,
                length: if kind.is_software() { length } else { 0 },
            })
        }
        _ => Exit::Unknown(reason::EXCEPTION_OR_NMI),
    }
}

fn external_interrupt(raw: &RawExit) -> Exit {
    let [vector, ..] = raw.intr_info.to_le_bytes();
    Exit::ExternalInterrupt {
        vector: (raw.intr_info & event::VALID != 0).then_some(vector),
    }
}

fn task_switch(qualification: u64) -> TaskSwitch {
    let qual = TaskQual(qualification);
    let source = match qual.source() {
        0 => TaskSource::Call,
        1 => TaskSource::Iret,
        2 => TaskSource::Jmp,
        _ => TaskSource::Gate,
    };
    TaskSwitch {
        selector: qual.selector(),
        source,
    }
}

#[inline(never)]
fn cr_access(raw: &RawExit) -> Exit {
    let qual = CrQual(raw.qualification);
    Exit::CrAccess(match qual.kind() {
        0 => CrAccess::Write {
            cr: qual.number(),
            gpr: qual.gpr(),
        },
        1 => CrAccess::Read {
            cr: qual.number(),
            gpr: qual.gpr(),
        },
        2 => CrAccess::Clts,
        _ => CrAccess::Lmsw {
            source: qual.lmsw_source(),
            memory: qual.lmsw_memory().then_some(Gva::new(raw.guest_linear)),
        },
    })
}

fn dr_access(qualification: u64) -> DrAccess {
    let qual = DrQual(qualification);
    DrAccess {
        dr: qual.number(),
        gpr: qual.gpr(),
        write: !qual.from_dr(),
    }
}

#[inline(never)]
fn io_access(raw: &RawExit) -> Exit {
    let qual = IoQual(raw.qualification);
    let info = OperandInfo(raw.instruction_info);
    let string = qual.string().then(|| StringIo {
        linear: Gva::new(raw.guest_linear),
        address_size: AddressSize::from_bits(info.address_size()),
        segment: if qual.input() {
            SegmentReg::Es
        } else {
            SegmentReg::from_bits(info.segment())
        },
    });
    Exit::Io(IoAccess {
        port: qual.port(),
        // Encoded as size - 1; only 0, 1 and 3 occur.
        size: match qual.size() {
            0 => 1,
            1 => 2,
            _ => 4,
        },
        input: qual.input(),
        string,
        rep: qual.rep(),
        immediate: qual.immediate(),
    })
}

#[inline(never)]
fn ept_violation(raw: &RawExit) -> Exit {
    let qual = EptQual(raw.qualification);
    Exit::EptViolation(EptViolation {
        gpa: Gpa::new(raw.guest_physical),
        gla: qual.linear_valid().then_some(Gva::new(raw.guest_linear)),
        gla_is_final: qual.linear_valid() && qual.linear_is_final(),
        read: qual.read(),
        write: qual.write(),
        exec: qual.exec(),
        readable: qual.readable(),
        writable: qual.writable(),
        executable: qual.executable(),
        user_executable: qual.user_executable(),
        linear: LinearInfo {
            user: qual.user_linear(),
            writable: qual.writable_linear(),
            execute_disable: qual.execute_disable_linear(),
        },
        shadow_stack: qual.shadow_stack(),
        guest_paging_verification: qual.guest_paging_verification(),
        asynchronous: qual.asynchronous(),
    })
}

fn apic_access(qualification: u64) -> ApicAccess {
    let qual = ApicQual(qualification);
    let kind = match qual.kind() {
        0 => ApicAccessKind::LinearRead,
        1 => ApicAccessKind::LinearWrite,
        2 => ApicAccessKind::LinearFetch,
        3 => ApicAccessKind::LinearDelivery,
        4 => ApicAccessKind::LinearMonitor,
        10 => ApicAccessKind::PhysicalDelivery,
        15 => ApicAccessKind::PhysicalInstruction,
        other => ApicAccessKind::Other(other),
    };
    let has_offset = matches!(
        kind,
        ApicAccessKind::LinearRead
            | ApicAccessKind::LinearWrite
            | ApicAccessKind::LinearFetch
            | ApicAccessKind::LinearDelivery
            | ApicAccessKind::LinearMonitor
    );
    ApicAccess {
        offset: if has_offset { qual.offset() } else { 0 },
        kind,
        asynchronous: qual.asynchronous(),
    }
}

fn failed_entry(basic: u16, qualification: u64) -> FailedEntry {
    match basic {
        reason::ENTRY_FAILURE_MSR_LOADING => FailedEntry::MsrLoading(qualification),
        reason::ENTRY_FAILURE_MACHINE_CHECK => FailedEntry::MachineCheck,
        _ => FailedEntry::GuestState(match qualification {
            0 => GuestStateFault::Unspecified,
            2 => GuestStateFault::Pdptes,
            3 => GuestStateFault::NmiInjection,
            4 => GuestStateFault::LinkPointer,
            other => GuestStateFault::Other(other),
        }),
    }
}

fn table_access(raw: &RawExit, global: bool) -> TableAccess {
    let info = OperandInfo(raw.instruction_info);
    let identity = info.identity();
    let register = match (global, identity & 1 != 0) {
        (true, false) => TableRegister::Gdtr,
        (true, true) => TableRegister::Idtr,
        (false, false) => TableRegister::Ldtr,
        (false, true) => TableRegister::Tr,
    };
    let operand = if !global && info.is_register() {
        Operand::Register(info.reg1())
    } else {
        Operand::Memory(memory_operand(raw))
    };
    TableAccess {
        register,
        load: identity & 2 != 0,
        operand,
    }
}

fn memory_operand(raw: &RawExit) -> MemoryOperand {
    let info = OperandInfo(raw.instruction_info);
    MemoryOperand {
        displacement: raw.qualification,
        base: (!info.no_base()).then_some(info.base()),
        index: (!info.no_index()).then_some(info.index()),
        scale: info.scaling(),
        segment: SegmentReg::from_bits(info.segment()),
        address_size: AddressSize::from_bits(info.address_size()),
    }
}

fn invalidate(raw: &RawExit) -> Invalidate {
    Invalidate {
        kind_gpr: OperandInfo(raw.instruction_info).reg2(),
        descriptor: memory_operand(raw),
    }
}

fn register_operand(info: u32) -> RegisterOperand {
    let info = OperandInfo(info);
    let size = match info.operand_size() {
        0 => 2,
        1 => 4,
        _ => 8,
    };
    RegisterOperand {
        gpr: info.reg1(),
        size,
    }
}

fn gpr1(raw: &RawExit) -> u8 {
    OperandInfo(raw.instruction_info).reg1()
}

const fn low_byte(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}

const fn low_u32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
