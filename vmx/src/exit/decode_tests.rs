//! Table tests of the decoder.

use abi::{Gpa, Gva};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{Decoded, Exit, ExitReason, decode};
use crate::event::{Event, EventKind};
use crate::exit::{
    AddressSize, ApicAccessKind, CrAccess, DrAccess, ExceptionInfo, FailedEntry, GuestStateFault,
    IoAccess, Operand, RawExit, RegisterOperand, SegmentReg, StringIo, TableRegister, TaskSource,
    TaskSwitch, reason,
};

fn raw(reason: u16) -> RawExit {
    RawExit {
        reason: u32::from(reason),
        ..RawExit::default()
    }
}

fn qualified(reason: u16, qualification: u64) -> RawExit {
    RawExit {
        qualification,
        ..raw(reason)
    }
}

fn exit_of(raw: RawExit) -> Exit {
    decode(&raw).exit
}

#[test]
fn plain_reasons() {
    let table = [
        (2, Exit::TripleFault),
        (3, Exit::InitSignal),
        (5, Exit::Smi),
        (7, Exit::InterruptWindow),
        (8, Exit::NmiWindow),
        (10, Exit::Cpuid),
        (11, Exit::Getsec),
        (12, Exit::Hlt),
        (13, Exit::Invd),
        (15, Exit::Rdpmc),
        (16, Exit::Rdtsc),
        (17, Exit::Rsm),
        (18, Exit::Vmcall),
        (19, Exit::VmxInstruction(19)),
        (27, Exit::VmxInstruction(27)),
        (31, Exit::Rdmsr),
        (32, Exit::Wrmsr),
        (37, Exit::Mtf),
        (39, Exit::Monitor),
        (40, Exit::Pause),
        (43, Exit::TprBelowThreshold),
        (50, Exit::Invept),
        (51, Exit::Rdtscp),
        (52, Exit::PreemptionTimer),
        (53, Exit::Invvpid),
        (54, Exit::Wbinvd),
        (55, Exit::Xsetbv),
        (59, Exit::Vmfunc),
        (60, Exit::Encls),
        (62, Exit::PmlFull),
        (63, Exit::Xsaves),
        (64, Exit::Xrstors),
        (65, Exit::Pconfig),
        (69, Exit::Loadiwkey),
        (70, Exit::Enclv),
        (72, Exit::EnqcmdPasid),
        (73, Exit::EnqcmdPasid),
        (74, Exit::BusLock),
        (76, Exit::Seamcall),
        (77, Exit::Tdcall),
        (78, Exit::Rdmsrlist),
        (79, Exit::Wrmsrlist),
        (80, Exit::Urdmsr),
        (81, Exit::Uwrmsr),
        (35, Exit::Unknown(35)),
        (38, Exit::Unknown(38)),
        (42, Exit::Unknown(42)),
        (71, Exit::Unknown(71)),
        (86, Exit::Unknown(86)),
        (0xffff, Exit::Unknown(0xffff)),
    ];
    for (number, expected) in table {
        let decoded = decode(&raw(number));
        let plain = Decoded {
            exit: expected,
            reason: number,
            redeliver: None,
            nmi_unblocking_due_to_iret: false,
        };
        assert_eq!(decoded, plain);
    }
}

#[test]
fn plain_reasons_have_no_details() {
    let mut plain_reasons = 0;
    for number in 0..=200 {
        let Some(plain) = ExitReason(u32::from(number)).plain() else {
            continue;
        };
        assert_eq!(plain.reason(), number);
        assert!(
            reason::Needs::of(number).is_empty(),
            "{}",
            reason::name(number)
        );
        let decoded = decode(&RawExit {
            reason: u32::from(number),
            ..RawExit::default()
        });
        assert_eq!((decoded.reason, decoded.redeliver), (number, None));
        plain_reasons += 1;
    }
    assert_eq!(plain_reasons, 7);
    let failed = 1 << 31 | u32::from(reason::CPUID);
    assert_eq!(
        ExitReason(failed).plain(),
        None,
        "a failed entry is no exit"
    );
}

#[test]
fn flag_bits_of_the_reason_do_not_change_it() {
    let flags = reason::ENTRY_FAILURE | reason::BUS_LOCK | 1 << 27;
    assert_eq!(
        exit_of(RawExit {
            reason: flags | 18,
            ..RawExit::default()
        }),
        Exit::Vmcall
    );
}

#[test]
fn exceptions_and_nmi() {
    let nmi = RawExit {
        intr_info: 0x8000_0202,
        ..raw(0)
    };
    assert_eq!(exit_of(nmi), Exit::Nmi);
    let fault = RawExit {
        intr_info: 0x8000_0b0e,
        intr_error: 6,
        qualification: 0xdead_b000,
        instruction_length: 3,
        ..raw(0)
    };
    let expected = ExceptionInfo {
        vector: 14,
        error: Some(6),
        kind: EventKind::HardException,
        qualification: 0xdead_b000,
        length: 0,
    };
    assert_eq!(exit_of(fault), Exit::Exception(expected));
    let int3 = RawExit {
        intr_info: 0x8000_0603,
        instruction_length: 1,
        ..raw(0)
    };
    let Exit::Exception(info) = exit_of(int3) else {
        panic!("an exception")
    };
    assert_eq!((info.kind, info.length), (EventKind::SoftException, 1));
    assert_eq!(exit_of(raw(0)), Exit::Unknown(0));
}

#[test]
fn external_interrupts_with_and_without_acknowledge() {
    let acknowledged = RawExit {
        intr_info: 0x8000_00f0,
        ..raw(1)
    };
    assert_eq!(
        exit_of(acknowledged),
        Exit::ExternalInterrupt { vector: Some(0xf0) }
    );
    assert_eq!(exit_of(raw(1)), Exit::ExternalInterrupt { vector: None });
}

#[test]
fn control_register_accesses() {
    let table = [
        (0x0000_0000, CrAccess::Write { cr: 0, gpr: 0 }),
        (0x0000_0f04, CrAccess::Write { cr: 4, gpr: 15 }),
        (0x0000_0408, CrAccess::Write { cr: 8, gpr: 4 }),
        (0x0000_0313, CrAccess::Read { cr: 3, gpr: 3 }),
        (0x0000_0020, CrAccess::Clts),
        (
            0x000b_0030,
            CrAccess::Lmsw {
                source: 0xb,
                memory: None,
            },
        ),
        (
            0x0001_0070,
            CrAccess::Lmsw {
                source: 1,
                memory: Some(Gva::new(0x1234)),
            },
        ),
    ];
    for (qualification, expected) in table {
        let exit = RawExit {
            guest_linear: 0x1234,
            ..qualified(28, qualification)
        };
        assert_eq!(exit_of(exit), Exit::CrAccess(expected));
    }
}

#[test]
fn debug_register_accesses() {
    let write = Exit::DrAccess(DrAccess {
        dr: 7,
        gpr: 0,
        write: true,
    });
    assert_eq!(exit_of(qualified(29, 0x007)), write);
    let read = Exit::DrAccess(DrAccess {
        dr: 6,
        gpr: 10,
        write: false,
    });
    assert_eq!(exit_of(qualified(29, 0xa16)), read);
}

#[test]
fn port_accesses() {
    let plain = IoAccess {
        port: 0x3f8,
        size: 1,
        input: false,
        string: None,
        rep: false,
        immediate: false,
    };
    assert_eq!(exit_of(qualified(30, 0x03f8_0000)), Exit::Io(plain));
    let inl = IoAccess {
        port: 0xcf8,
        size: 4,
        input: true,
        ..plain
    };
    assert_eq!(exit_of(qualified(30, 0x0cf8_000b)), Exit::Io(inl));
    let immediate = IoAccess {
        port: 0x80,
        immediate: true,
        ..plain
    };
    assert_eq!(exit_of(qualified(30, 0x0080_0040)), Exit::Io(immediate));
    let outs = RawExit {
        guest_linear: 0x7000,
        instruction_info: 4 << 15 | 1 << 7,
        ..qualified(30, 0x01f0_0031)
    };
    let memory = StringIo {
        linear: Gva::new(0x7000),
        address_size: AddressSize::Bits32,
        segment: SegmentReg::Fs,
    };
    let expected = IoAccess {
        port: 0x1f0,
        size: 2,
        rep: true,
        string: Some(memory),
        ..plain
    };
    assert_eq!(exit_of(outs), Exit::Io(expected));
    let ins = RawExit {
        qualification: outs.qualification | 1 << 3,
        ..outs
    };
    let Exit::Io(IoAccess {
        string: Some(memory),
        ..
    }) = exit_of(ins)
    else {
        panic!("INS")
    };
    assert_eq!(memory.segment, SegmentReg::Es);
}

#[test]
fn ept_violations() {
    // A guest write through a final translation to an address nothing is mapped at, as the
    // emulator with advanced exit information reports it.
    let exit = RawExit {
        guest_physical: 0xfee0_0300,
        guest_linear: 0xffff_8000_fee0_0300,
        ..qualified(48, 0x0782)
    };
    let Exit::EptViolation(violation) = exit_of(exit) else {
        panic!("an EPT violation")
    };
    assert_eq!(violation.gpa, Gpa::new(0xfee0_0300));
    assert_eq!(violation.gla, Some(Gva::new(0xffff_8000_fee0_0300)));
    assert!(violation.gla_is_final && violation.write && !violation.read && !violation.exec);
    assert!(!violation.readable && !violation.writable && !violation.executable);
    assert!(violation.linear.user && violation.linear.writable);
    assert!(!violation.linear.execute_disable);

    let Exit::EptViolation(walk) = exit_of(qualified(48, 0x0181 & !0x100)) else {
        panic!("walk")
    };
    assert!(walk.read && walk.gla.is_some() && !walk.gla_is_final);
    let Exit::EptViolation(bare) = exit_of(qualified(48, 0x0104)) else {
        panic!("no address")
    };
    assert!(bare.exec && bare.gla.is_none() && !bare.gla_is_final);
    let Exit::EptViolation(rights) = exit_of(qualified(48, 0x002a)) else {
        panic!("rights")
    };
    assert!(rights.write && rights.readable && rights.executable && !rights.writable);
}

#[test]
fn misconfiguration_and_subpage() {
    let exit = RawExit {
        guest_physical: 0x1000,
        ..raw(49)
    };
    assert_eq!(
        exit_of(exit),
        Exit::EptMisconfiguration {
            gpa: Gpa::new(0x1000)
        }
    );
    let exit = RawExit {
        guest_physical: 0x2000,
        ..qualified(66, 1 << 11)
    };
    assert_eq!(
        exit_of(exit),
        Exit::Spp {
            gpa: Gpa::new(0x2000),
            miss: true
        }
    );
}

#[test]
fn failed_entries() {
    let table = [
        (33, 0, FailedEntry::GuestState(GuestStateFault::Unspecified)),
        (33, 2, FailedEntry::GuestState(GuestStateFault::Pdptes)),
        (
            33,
            3,
            FailedEntry::GuestState(GuestStateFault::NmiInjection),
        ),
        (33, 4, FailedEntry::GuestState(GuestStateFault::LinkPointer)),
        (33, 9, FailedEntry::GuestState(GuestStateFault::Other(9))),
        (34, 5, FailedEntry::MsrLoading(5)),
        (41, 0, FailedEntry::MachineCheck),
    ];
    for (number, qualification, expected) in table {
        let mut exit = qualified(number, qualification);
        exit.reason |= reason::ENTRY_FAILURE;
        assert_eq!(exit_of(exit), Exit::EntryFailure(expected));
    }
}

#[test]
fn task_switches_and_apic_accesses() {
    let switch = TaskSwitch {
        selector: 0x38,
        source: TaskSource::Gate,
    };
    assert_eq!(exit_of(qualified(9, 0xc000_0038)), Exit::TaskSwitch(switch));
    let switch = TaskSwitch {
        selector: 0x40,
        source: TaskSource::Iret,
    };
    assert_eq!(exit_of(qualified(9, 0x4000_0040)), Exit::TaskSwitch(switch));
    let Exit::ApicAccess(access) = exit_of(qualified(44, 0x1300)) else {
        panic!("APIC")
    };
    assert_eq!(
        (access.offset, access.kind),
        (0x300, ApicAccessKind::LinearWrite)
    );
    let Exit::ApicAccess(access) = exit_of(qualified(44, 0xf300)) else {
        panic!("APIC")
    };
    assert_eq!(
        (access.offset, access.kind),
        (0, ApicAccessKind::PhysicalInstruction)
    );
    assert_eq!(exit_of(qualified(45, 0x31)), Exit::VirtualizedEoi(0x31));
    assert_eq!(exit_of(qualified(56, 0x0b0)), Exit::ApicWrite(0xb0));
    assert_eq!(
        exit_of(qualified(4, 0x9a)),
        Exit::StartupIpi { vector: 0x9a }
    );
}

#[test]
fn instruction_operands() {
    // SGDT [rax + rbx*4 + 0x10], 64-bit addressing, DS.
    let info = 2 | 2 << 7 | 3 << 15 | 3 << 18;
    let exit = RawExit {
        instruction_info: info,
        ..qualified(46, 0x10)
    };
    let Exit::GdtrIdtr(access) = exit_of(exit) else {
        panic!("SGDT")
    };
    assert_eq!((access.register, access.load), (TableRegister::Gdtr, false));
    let Operand::Memory(memory) = access.operand else {
        panic!("memory")
    };
    assert_eq!(
        (memory.base, memory.index, memory.scale),
        (Some(0), Some(3), 2)
    );
    assert_eq!(
        (memory.displacement, memory.segment),
        (0x10, SegmentReg::Ds)
    );
    assert_eq!(memory.address_size, AddressSize::Bits64);
    // LTR cx.
    let exit = RawExit {
        instruction_info: 1 << 3 | 1 << 10 | 3 << 28,
        ..raw(47)
    };
    let Exit::LdtrTr(access) = exit_of(exit) else {
        panic!("LTR")
    };
    assert_eq!((access.register, access.load), (TableRegister::Tr, true));
    assert_eq!(access.operand, Operand::Register(1));
    // RDRAND r9d.
    let exit = RawExit {
        instruction_info: 9 << 3 | 1 << 11,
        ..raw(57)
    };
    assert_eq!(
        exit_of(exit),
        Exit::Rdrand(RegisterOperand { gpr: 9, size: 4 })
    );
    // INVPCID rdx, [disp32] without base or index.
    let info = 2 << 28 | 1 << 22 | 1 << 27 | 3 << 15;
    let exit = RawExit {
        instruction_info: info,
        ..qualified(58, 0x8000)
    };
    let Exit::Invpcid(invalidate) = exit_of(exit) else {
        panic!("INVPCID")
    };
    assert_eq!((invalidate.kind_gpr, invalidate.descriptor.base), (2, None));
    assert_eq!(invalidate.descriptor.index, None);
    let exit = RawExit {
        instruction_info: 5 << 3,
        ..qualified(84, 0x1b)
    };
    assert_eq!(exit_of(exit), Exit::RdmsrImmediate { msr: 0x1b, gpr: 5 });
}

#[test]
fn interrupted_deliveries_are_redelivered() {
    let table = [
        (0x8000_0030, 0, Event::external(0x30)),
        (0x8000_0202, 0, Event::nmi()),
        (0x8000_0b0d, 0x18, Event::exception(13, Some(0x18))),
        (
            0x8000_0480,
            0,
            Event {
                vector: 0x80,
                kind: EventKind::SoftInt,
                error: None,
                length: 2,
            },
        ),
    ];
    for (idt_info, idt_error, expected) in table {
        let exit = RawExit {
            idt_info,
            idt_error,
            instruction_length: 2,
            ..raw(48)
        };
        assert_eq!(decode(&exit).redeliver, Some(expected));
    }
}

#[test]
fn nmi_unblocking_is_reported_where_the_manual_says_so() {
    let bit = 1 << 12;
    for number in [48, 62, 66, 75] {
        let exit = qualified(number, bit);
        assert!(decode(&exit).nmi_unblocking_due_to_iret, "{number}");
        // Not while an event was being delivered.
        let delivery = RawExit {
            idt_info: 0x8000_0030,
            ..exit
        };
        assert!(!decode(&delivery).nmi_unblocking_due_to_iret, "{number}");
    }
    assert!(!decode(&qualified(44, bit)).nmi_unblocking_due_to_iret);
    let fault = RawExit {
        intr_info: 0x8000_1b0d,
        ..raw(0)
    };
    assert!(decode(&fault).nmi_unblocking_due_to_iret);
    let double_fault = RawExit {
        intr_info: 0x8000_1b08,
        ..raw(0)
    };
    assert!(!decode(&double_fault).nmi_unblocking_due_to_iret);
}

fn any_reason() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..96, any::<u32>(), Just(u32::MAX)]
}

proptest! {
    #[test]
    fn any_integers_decode(
        reason in any_reason(),
        qualification in any::<u64>(),
        words in any::<[u32; 6]>(),
        addresses in any::<[u64; 2]>(),
    ) {
        let [intr_info, intr_error, idt_info, idt_error, instruction_length, instruction_info] = words;
        let [guest_linear, guest_physical] = addresses;
        let raw = RawExit {
            reason, qualification, intr_info, intr_error, idt_info, idt_error,
            instruction_length, instruction_info, guest_linear, guest_physical,
        };
        let decoded = decode(&raw);
        if let Exit::Unknown(number) = decoded.exit {
            assert_eq!(number, raw.basic_reason());
        }
        assert!(decoded.redeliver.is_none() || idt_info >> 31 == 1);
    }
}
