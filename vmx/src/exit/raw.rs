//! A VM exit as plain integers, and the reading of exactly those fields its reason needs.

use super::reason::{self, Needs};
use crate::event::{self, EventKind};
use crate::vmcs::CurrentVmcs;
use crate::vmcs::field;

/// The exit-information fields of one VM exit. What its reason does not need is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawExit {
    /// Exit reason, flags included.
    pub reason: u32,
    /// Exit qualification.
    pub qualification: u64,
    /// VM-exit interruption information.
    pub intr_info: u32,
    /// VM-exit interruption error code.
    pub intr_error: u32,
    /// IDT-vectoring information.
    pub idt_info: u32,
    /// IDT-vectoring error code.
    pub idt_error: u32,
    /// VM-exit instruction length; read only where decoding needs it.
    pub instruction_length: u32,
    /// VM-exit instruction information.
    pub instruction_info: u32,
    /// Guest-linear address.
    pub guest_linear: u64,
    /// Guest-physical address.
    pub guest_physical: u64,
}

impl RawExit {
    /// The basic exit reason.
    #[must_use]
    pub const fn basic_reason(&self) -> u16 {
        super::basic(self.reason)
    }

    /// Reads the exit that just happened; `reason` is its exit reason.
    pub(crate) fn read(vmcs: &CurrentVmcs<'_>, reason: u32) -> Self {
        let mut raw = Self {
            reason,
            ..Self::default()
        };
        let needs = Needs::of(raw.basic_reason());
        if !needs.is_empty() {
            raw.read_details(vmcs, needs);
        }
        raw
    }

    fn read_details(&mut self, vmcs: &CurrentVmcs<'_>, needs: Needs) {
        if needs.contains(Needs::QUALIFICATION) {
            self.qualification = vmcs.read(field::EXIT_QUALIFICATION);
        }
        if needs.contains(Needs::INTERRUPTION) {
            self.intr_info = vmcs.read(field::VM_EXIT_INTERRUPTION_INFORMATION);
            if self.intr_info & event::ERROR_CODE_VALID != 0 {
                self.intr_error = vmcs.read(field::VM_EXIT_INTERRUPTION_ERROR_CODE);
            }
        }
        if needs.contains(Needs::VECTORING) {
            self.idt_info = vmcs.read(field::IDT_VECTORING_INFORMATION);
            if self.idt_info & event::VALID != 0 && self.idt_info & event::ERROR_CODE_VALID != 0 {
                self.idt_error = vmcs.read(field::IDT_VECTORING_ERROR_CODE);
            }
        }
        if needs.contains(Needs::INSTRUCTION_INFO) {
            self.instruction_info = vmcs.read(field::VM_EXIT_INSTRUCTION_INFORMATION);
        }
        if needs.contains(Needs::GUEST_PHYSICAL) {
            self.guest_physical = vmcs.read(field::GUEST_PHYSICAL_ADDRESS);
        }
        if needs.contains(Needs::GUEST_LINEAR) {
            self.guest_linear = vmcs.read(field::GUEST_LINEAR_ADDRESS);
        }
        if needs.contains(Needs::MORE) {
            self.read_more(vmcs);
        }
        if is_software(self.idt_info) || is_software(self.intr_info) {
            self.instruction_length = vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH);
        }
    }

    /// Reads what depends on the qualification or the vector.
    fn read_more(&mut self, vmcs: &CurrentVmcs<'_>) {
        let wants = More::of(self);
        if wants.qualification {
            self.qualification = vmcs.read(field::EXIT_QUALIFICATION);
        }
        if wants.instruction_info {
            self.instruction_info = vmcs.read(field::VM_EXIT_INSTRUCTION_INFORMATION);
        }
        if wants.guest_linear {
            self.guest_linear = vmcs.read(field::GUEST_LINEAR_ADDRESS);
        }
    }
}

/// The second round of fields, for reasons with [`Needs::MORE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct More {
    qualification: bool,
    instruction_info: bool,
    guest_linear: bool,
}

impl More {
    fn of(raw: &RawExit) -> Self {
        let none = Self::default();
        match raw.basic_reason() {
            reason::EXCEPTION_OR_NMI => {
                let [vector, ..] = raw.intr_info.to_le_bytes();
                let has_qualification = EventKind::from_bits(raw.intr_info >> 8 & 7)
                    == Some(EventKind::HardException)
                    && matches!(vector, event::VECTOR_DB | event::VECTOR_PF);
                Self {
                    qualification: has_qualification,
                    ..none
                }
            }
            reason::EPT_VIOLATION => Self {
                guest_linear: raw.qualification & 1 << 7 != 0,
                ..none
            },
            reason::IO_INSTRUCTION if raw.qualification & 1 << 4 != 0 => Self {
                instruction_info: true,
                guest_linear: true,
                ..none
            },
            // LMSW with a memory operand.
            reason::CR_ACCESS if raw.qualification & 0x70 == 0x70 => Self {
                guest_linear: true,
                ..none
            },
            _ => none,
        }
    }
}

fn is_software(info: u32) -> bool {
    info & event::VALID != 0
        && EventKind::from_bits(info >> 8 & 7).is_some_and(EventKind::is_software)
}

#[cfg(test)]
mod tests {
    use super::{More, RawExit, is_software, reason};
    use crate::exit::reason::Needs;

    #[test]
    fn hot_reasons_need_the_reason_alone() {
        for hot in [
            reason::VMCALL,
            reason::CPUID,
            reason::HLT,
            reason::PREEMPTION_TIMER,
            reason::RDMSR,
            reason::WRMSR,
            reason::INTERRUPT_WINDOW,
        ] {
            assert!(Needs::of(hot).is_empty(), "{}", reason::name(hot));
        }
        assert_eq!(Needs::of(reason::EXTERNAL_INTERRUPT), Needs::INTERRUPTION);
    }

    #[test]
    fn a_second_round_only_where_the_first_asks_for_it() {
        let raw = |reason, qualification, intr_info| RawExit {
            reason: u32::from(reason),
            qualification,
            intr_info,
            ..RawExit::default()
        };
        let none = More::default();
        assert_eq!(
            More::of(&raw(reason::EXCEPTION_OR_NMI, 0, 0x8000_030d)),
            none
        );
        assert!(More::of(&raw(reason::EXCEPTION_OR_NMI, 0, 0x8000_0b0e)).qualification);
        assert!(More::of(&raw(reason::EXCEPTION_OR_NMI, 0, 0x8000_0301)).qualification);
        // INT1 is no #DB with a qualification.
        assert_eq!(
            More::of(&raw(reason::EXCEPTION_OR_NMI, 0, 0x8000_0501)),
            none
        );
        assert_eq!(More::of(&raw(reason::EPT_VIOLATION, 0x1, 0)), none);
        assert!(More::of(&raw(reason::EPT_VIOLATION, 0x181, 0)).guest_linear);
        assert_eq!(More::of(&raw(reason::IO_INSTRUCTION, 0x3f8_0000, 0)), none);
        assert!(More::of(&raw(reason::IO_INSTRUCTION, 0x3f8_0010, 0)).instruction_info);
        assert!(More::of(&raw(reason::CR_ACCESS, 0x70, 0)).guest_linear);
        assert_eq!(More::of(&raw(reason::CR_ACCESS, 0x30, 0)), none);
    }

    #[test]
    fn software_events_are_told_by_their_type() {
        assert!(is_software(0x8000_0480));
        assert!(is_software(0x8000_0603));
        assert!(!is_software(0x0000_0480));
        assert!(!is_software(0x8000_0b0e));
    }
}
