//! What exit qualifications and instruction information decode to; their layouts are in `layout`.

use crate::event::EventKind;
use abi::{Gpa, Gva};

/// An exception that hit the exception bitmap (or a page fault that hit its filter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionInfo {
    /// The vector.
    pub vector: u8,
    /// The error code, for the vectors that have one.
    pub error: Option<u32>,
    /// Hardware exception, INT3/INTO or INT1.
    pub kind: EventKind,
    /// `#PF`: the faulting linear address (CR2 is not written). `#DB`: the bits for DR6. Else 0.
    pub qualification: u64,
    /// Length of the instruction, for the software kinds; else 0.
    pub length: u8,
}

/// What a control-register access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrAccess {
    /// `MOV CRn, r64`.
    Write {
        /// 0, 3, 4 or 8.
        cr: u8,
        /// Encoding number of the source (4 is RSP).
        gpr: u8,
    },
    /// `MOV r64, CRn`.
    Read {
        /// 3 or 8.
        cr: u8,
        /// Encoding number of the destination (4 is RSP).
        gpr: u8,
    },
    /// `CLTS`.
    Clts,
    /// `LMSW`.
    Lmsw {
        /// The 16-bit source, whether it came from a register or from memory.
        source: u16,
        /// The linear address of a memory operand.
        memory: Option<Gva>,
    },
}

/// A MOV to or from a debug register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrAccess {
    /// Number of the debug register.
    pub dr: u8,
    /// Encoding number of the general-purpose register (4 is RSP).
    pub gpr: u8,
    /// True for a MOV to the debug register.
    pub write: bool,
}

/// The memory side of INS and OUTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringIo {
    /// Linear address of the first element, segment base included.
    pub linear: Gva,
    /// Size of RCX, RSI and RDI as the instruction uses them.
    pub address_size: AddressSize,
    /// Segment of the source of OUTS; INS always uses ES.
    pub segment: SegmentReg,
}

/// An I/O instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The port.
    pub port: u16,
    /// Bytes per access: 1, 2 or 4.
    pub size: u8,
    /// True for IN and INS.
    pub input: bool,
    /// INS or OUTS, with its memory operand.
    pub string: Option<StringIo>,
    /// A REP prefix; RCX counts.
    pub rep: bool,
    /// The port is an immediate of the instruction.
    pub immediate: bool,
}

/// Address size of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSize {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl AddressSize {
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Bits16,
            1 => Self::Bits32,
            _ => Self::Bits64,
        }
    }

    /// The bits of a register that take part in an address of this size.
    #[must_use]
    pub const fn mask(self) -> u64 {
        match self {
            Self::Bits16 => 0xffff,
            Self::Bits32 => 0xffff_ffff,
            Self::Bits64 => u64::MAX,
        }
    }
}

/// A segment register by its number in instruction information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentReg {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

impl SegmentReg {
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Es,
            1 => Self::Cs,
            2 => Self::Ss,
            4 => Self::Fs,
            5 => Self::Gs,
            // 6 and 7 are not used.
            _ => Self::Ds,
        }
    }
}

/// An EPT violation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one per bit of the qualification"
)]
pub struct EptViolation {
    /// The guest-physical address.
    pub gpa: Gpa,
    /// The linear address, when the access had one.
    pub gla: Option<Gva>,
    /// The access was to the translation of `gla`; else to a paging structure or an A/D update.
    pub gla_is_final: bool,
    /// The access read.
    pub read: bool,
    /// The access wrote.
    pub write: bool,
    /// The access fetched an instruction.
    pub exec: bool,
    /// The mapping allowed reads (all three false: nothing is mapped).
    pub readable: bool,
    /// The mapping allowed writes.
    pub writable: bool,
    /// The mapping allowed instruction fetches (from supervisor-mode addresses, under mode-based
    /// execute control).
    pub executable: bool,
    /// The mapping allowed fetches from user-mode addresses; only under mode-based execute control.
    pub user_executable: bool,
    /// What the guest's page tables said of `gla`; only when
    /// [`crate::caps::Features::EPT_ADVANCED_EXIT_INFO`] and `gla_is_final`.
    pub linear: LinearInfo,
    /// A shadow-stack access.
    pub shadow_stack: bool,
    /// The guest-paging verification bit of the mapping caused it.
    pub guest_paging_verification: bool,
    /// Caused by an access that no instruction made (trace output, for one).
    pub asynchronous: bool,
}

/// Rights of a linear address as the guest's own page tables give them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinearInfo {
    /// A user-mode address.
    pub user: bool,
    /// Writable.
    pub writable: bool,
    /// Execute-disabled.
    pub execute_disable: bool,
}

/// What started a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSource {
    /// CALL.
    Call,
    /// IRET.
    Iret,
    /// JMP.
    Jmp,
    /// A task gate in the IDT.
    Gate,
}

/// A task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// Selector of the TSS to switch to.
    pub selector: u16,
    /// What started it.
    pub source: TaskSource,
}

/// An access to the APIC-access page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicAccess {
    /// Offset in the page; 0 for the kinds that have none.
    pub offset: u16,
    /// How it was accessed.
    pub kind: ApicAccessKind,
    /// Caused by an access that no instruction made.
    pub asynchronous: bool,
}

/// How the APIC-access page was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicAccessKind {
    /// A read through a linear address.
    LinearRead,
    /// A write through a linear address.
    LinearWrite,
    /// An instruction fetch.
    LinearFetch,
    /// Any linear access during event delivery.
    LinearDelivery,
    /// A monitor access.
    LinearMonitor,
    /// A guest-physical access during event delivery.
    PhysicalDelivery,
    /// A guest-physical access by an instruction.
    PhysicalInstruction,
    /// A value no manual names.
    Other(u8),
}

/// An instruction's memory operand: the effective address is
/// `segment base + displacement + base + index << scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOperand {
    /// Displacement of the instruction, sign-extended.
    pub displacement: u64,
    /// Encoding number of the base register.
    pub base: Option<u8>,
    /// Encoding number of the index register.
    pub index: Option<u8>,
    /// log2 of the index's factor.
    pub scale: u8,
    /// Segment.
    pub segment: SegmentReg,
    /// Address size.
    pub address_size: AddressSize,
}

/// Which descriptor-table register an instruction uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableRegister {
    /// GDTR.
    Gdtr,
    /// IDTR.
    Idtr,
    /// LDTR.
    Ldtr,
    /// TR.
    Tr,
}

/// An instruction that loads or stores a descriptor-table register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableAccess {
    /// The table register.
    pub register: TableRegister,
    /// True for LGDT, LIDT, LLDT and LTR.
    pub load: bool,
    /// The operand.
    pub operand: Operand,
}

/// A register or memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Encoding number of a general-purpose register.
    Register(u8),
    /// Memory.
    Memory(MemoryOperand),
}

/// INVEPT, INVVPID or INVPCID: a type in a register, a descriptor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidate {
    /// Encoding number of the register that holds the type.
    pub kind_gpr: u8,
    /// The descriptor.
    pub descriptor: MemoryOperand,
}

/// What was left undone when a VM entry failed after it began to load guest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedEntry {
    /// Invalid guest state.
    GuestState(GuestStateFault),
    /// An entry of the VM-entry MSR-load list (first is 1).
    MsrLoading(u64),
    /// A machine check.
    MachineCheck,
}

/// SDM 3C, "VM-Entry Failures During or After Loading Guest State": the qualification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestStateFault {
    /// Not told.
    Unspecified,
    /// Loading the PDPTEs.
    Pdptes,
    /// An NMI was to be injected while blocking by STI was on.
    NmiInjection,
    /// The VMCS link pointer.
    LinkPointer,
    /// A value no manual names.
    Other(u64),
}

/// What UMWAIT and TPAUSE name in their instruction information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterOperand {
    /// Encoding number of the operand register.
    pub gpr: u8,
    /// Operand size in bytes: 2, 4 or 8.
    pub size: u8,
}
