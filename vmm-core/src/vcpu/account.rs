//! The full account of a vCPU whose domain came to a bad end, for the log.

use core::fmt::Arguments;

use abi::Gva;
use vmx::exit::{basic, reason};
use vmx::vmcs::{SegmentName, field};

use super::Running;
use crate::fault::InsnBytes;
use crate::mm::guest_mem::Access;

/// Segment registers by their names.
const SEGMENTS: [(&str, SegmentName); 8] = [
    ("cs", SegmentName::Cs),
    ("ss", SegmentName::Ss),
    ("ds", SegmentName::Ds),
    ("es", SegmentName::Es),
    ("fs", SegmentName::Fs),
    ("gs", SegmentName::Gs),
    ("ldtr", SegmentName::Ldtr),
    ("tr", SegmentName::Tr),
];

impl Running<'_> {
    /// Writes the last exit and all registers to the log.
    #[cold]
    pub fn log_account(&self) {
        self.log_exit();
        self.log_registers();
        self.log_system_registers();
    }

    fn line(&self, text: Arguments<'_>) {
        log::error!("{}: vcpu{}: {text}", self.domain.name, self.vcpu.id);
    }

    fn log_exit(&self) {
        let read = |f| self.vmcs.read(f);
        let word = |f| self.vmcs.read(f);
        let number = word(field::EXIT_REASON);
        let basic = basic(number);
        self.line(format_args!(
            "exit {} ({number:#x}) qualification {:#x} instruction length {} information {:#x}",
            reason::name(basic),
            read(field::EXIT_QUALIFICATION),
            word(field::VM_EXIT_INSTRUCTION_LENGTH),
            word(field::VM_EXIT_INSTRUCTION_INFORMATION),
        ));
        self.line(format_args!(
            "guest-linear {:#x} guest-physical {:#x} interruption {:#x}/{:#x} vectoring {:#x}/{:#x}",
            read(field::GUEST_LINEAR_ADDRESS),
            self.vmcs.read(field::GUEST_PHYSICAL_ADDRESS),
            word(field::VM_EXIT_INTERRUPTION_INFORMATION),
            word(field::VM_EXIT_INTERRUPTION_ERROR_CODE),
            word(field::IDT_VECTORING_INFORMATION),
            word(field::IDT_VECTORING_ERROR_CODE),
        ));
        self.line(format_args!(
            "interruptibility {:#x} activity {} pending debug {:#x} entry interruption {:#x}",
            self.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE),
            self.vmcs.read(field::GUEST_ACTIVITY_STATE),
            self.vmcs.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS),
            self.vmcs.read(field::VM_ENTRY_INTERRUPTION_INFORMATION),
        ));
    }

    fn log_registers(&self) {
        let read = |f| self.vmcs.read(f);
        let regs = &self.cpu.regs;
        self.line(format_args!(
            "rip {:016x} rsp {:016x} rflags {:08x}",
            read(field::GUEST_RIP),
            read(field::GUEST_RSP),
            read(field::GUEST_RFLAGS),
        ));
        for [a, b, c, d] in [
            [
                ("rax", regs.rax),
                ("rbx", regs.rbx),
                ("rcx", regs.rcx),
                ("rdx", regs.rdx),
            ],
            [
                ("rsi", regs.rsi),
                ("rdi", regs.rdi),
                ("rbp", regs.rbp),
                ("r8 ", regs.r8),
            ],
            [
                ("r9 ", regs.r9),
                ("r10", regs.r10),
                ("r11", regs.r11),
                ("r12", regs.r12),
            ],
        ] {
            self.line(format_args!(
                "{} {:016x} {} {:016x} {} {:016x} {} {:016x}",
                a.0, a.1, b.0, b.1, c.0, c.1, d.0, d.1
            ));
        }
        self.line(format_args!(
            "r13 {:016x} r14 {:016x} r15 {:016x} code {}",
            regs.r13,
            regs.r14,
            regs.r15,
            self.code_bytes()
        ));
    }

    fn log_system_registers(&self) {
        let read = |f| self.vmcs.read(f);
        self.line(format_args!(
            "cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x} efer {:04x} cr8 {:x}",
            self.cr0(),
            self.cpu.ext.cr2(),
            read(field::GUEST_CR3),
            self.cr4(),
            self.efer(),
            self.cr8(),
        ));
        for (name, register) in SEGMENTS {
            let segment = self.vmcs.segment(register);
            self.line(format_args!(
                "{name:4} {:04x} base {:016x} limit {:08x} rights {:05x}",
                segment.selector, segment.base, segment.limit, segment.access_rights
            ));
        }
        self.line(format_args!(
            "gdtr base {:016x} limit {:04x} idtr base {:016x} limit {:04x}",
            read(field::GUEST_GDTR_BASE),
            self.vmcs.read(field::GUEST_GDTR_LIMIT),
            read(field::GUEST_IDTR_BASE),
            self.vmcs.read(field::GUEST_IDTR_LIMIT),
        ));
        self.line(format_args!(
            "dr6 {:08x} dr7 {:08x} debugctl {:x}",
            self.cpu.ext.dr6(),
            read(field::GUEST_DR7),
            self.vmcs.read(field::GUEST_IA32_DEBUGCTL),
        ));
    }

    /// What the instruction pointer points at, as far as it can be read.
    fn code_bytes(&self) -> InsnBytes {
        let base = if self.is_64bit_code() {
            0
        } else {
            self.vmcs.read(field::GUEST_CS_BASE)
        };
        let at = self.vmcs.read(field::GUEST_RIP).wrapping_add(base);
        let mut bytes = [0; InsnBytes::MAX];
        let room = abi::PAGE_SIZE.saturating_sub(Gva::new(at).page_offset());
        let here = bytes
            .get_mut(..room.min(InsnBytes::MAX))
            .unwrap_or_default();
        match self.read_linear(Gva::new(at), here, Access::READ) {
            Ok(()) => InsnBytes::new(here),
            Err(_) => InsnBytes::default(),
        }
    }
}
