//! Tests of the emulator on a machine of plain memory with holes.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

use super::plain::PlainMove;
use super::{Access, CodeWidth, Machine, Outcome, Segment, decode, emulate_bytes};
use crate::fault::{GuestFault, InsnBytes};
use abi::{Gpa, Gva, PAGE_SIZE};
use proptest::prelude::{any, prop, proptest};
use std::vec::Vec;

const MEMORY: usize = 4 * PAGE_SIZE;
/// The page of the address space that no translation covers.
const ABSENT: u64 = 0x2000;
/// The page that may not be written.
const READ_ONLY: u64 = 0x3000;
const RIP: u64 = 0x10_0000;

/// Four pages of memory at address 0; reads elsewhere give ones, writes are lost.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct TestMachine {
    pub(super) gpr: [u64; 16],
    pub(super) rflags: u64,
    pub(super) bases: [u64; 6],
    pub(super) memory: Vec<u8>,
    pub(super) walks: usize,
    /// A repeated instruction is to stop.
    wanted: bool,
}

impl TestMachine {
    pub(super) fn new() -> Self {
        Self {
            gpr: [0; 16],
            rflags: 2,
            bases: [0; 6],
            memory: std::vec![0; MEMORY],
            walks: 0,
            wanted: false,
        }
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.memory[at..at + 8].try_into().unwrap())
    }
}

impl Machine for TestMachine {
    fn gpr(&mut self, number: u8) -> u64 {
        self.gpr[usize::from(number)]
    }

    fn set_gpr(&mut self, number: u8, value: u64) {
        self.gpr[usize::from(number)] = value;
    }

    fn rflags(&mut self) -> u64 {
        self.rflags
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.rflags = rflags;
    }

    fn segment_base(&mut self, segment: Segment) -> u64 {
        self.bases[segment as usize]
    }

    fn translate(&mut self, address: Gva, access: Access) -> Result<Gpa, GuestFault> {
        self.walks += 1;
        let page = address.raw() & !0xfff;
        let code = if access == Access::Write { 2 } else { 0 };
        match page {
            ABSENT => Err(GuestFault::Pf { address, code }),
            READ_ONLY if access == Access::Write => Err(GuestFault::Pf {
                address,
                code: code | 1,
            }),
            _ => Ok(Gpa::new(address.raw())),
        }
    }

    fn read(&mut self, gpa: Gpa, bytes: &mut [u8]) {
        assert!(
            gpa.page_offset() + bytes.len() <= PAGE_SIZE,
            "{gpa} crosses a page"
        );
        for (n, byte) in (0..).zip(bytes) {
            let at = usize::try_from(gpa.raw().wrapping_add(n)).unwrap();
            *byte = self.memory.get(at).copied().unwrap_or(0xff);
        }
    }

    fn is_wanted_elsewhere(&mut self) -> bool {
        self.wanted
    }

    fn write(&mut self, gpa: Gpa, bytes: &[u8]) {
        assert!(
            gpa.page_offset() + bytes.len() <= PAGE_SIZE,
            "{gpa} crosses a page"
        );
        for (n, byte) in (0..).zip(bytes) {
            let at = usize::try_from(gpa.raw().wrapping_add(n)).unwrap();
            if let Some(slot) = self.memory.get_mut(at) {
                *slot = *byte;
            }
        }
    }
}

fn run(machine: &mut TestMachine, bytes: &[u8]) -> Outcome {
    emulate_bytes(machine, bytes, RIP, CodeWidth::Bits64)
}

/// Compares the short way of a plain move with the general one; false when it takes none.
fn is_the_same_either_way(machine: &TestMachine, bytes: &[u8]) -> bool {
    let plain = PlainMove::of(&decode(bytes, RIP, CodeWidth::Bits64), CodeWidth::Bits64);
    let mut short = machine.clone();
    let outcome = plain.and_then(|plain| plain.emulate(&mut short, RIP));
    let mut long = machine.clone();
    if let Some(outcome) = outcome {
        assert_eq!(outcome, run(&mut long, bytes), "{bytes:x?}");
    }
    assert_eq!(short, long, "{bytes:x?}");
    outcome.is_some()
}

#[test]
fn plain_moves_are_known() {
    let mut machine = TestMachine::new();
    machine.gpr[0] = 0x1000;
    machine.gpr[9] = 8;
    // mov %edi, 0x20(%rax); mov (%rax), %eax; mov 0x10(%rax,%r9,4), %r8; mov 0x20(%rip), %ecx
    let plain: [&[u8]; 4] = [
        &[0x89, 0x78, 0x20],
        &[0x8b, 0],
        &[0x4e, 0x8b, 0x44, 0x88, 0x10],
        &[0x8b, 0x0d, 0x20, 0, 0, 0],
    ];
    for bytes in plain {
        assert!(is_the_same_either_way(&machine, bytes), "{bytes:x?}");
    }
    // The same by GS, by a 32-bit address, of a word, of a byte, at no register, with an immediate.
    let other: [&[u8]; 6] = [
        &[0x65, 0x8b, 0],
        &[0x67, 0x8b, 0],
        &[0x66, 0x8b, 0],
        &[0x8a, 0],
        &[0x8b, 0x04, 0x25, 0, 0x10, 0, 0],
        &[0xc7, 0, 1, 0, 0, 0],
    ];
    for bytes in other {
        assert!(!is_the_same_either_way(&machine, bytes), "{bytes:x?}");
    }
}

fn done(bytes: &[u8]) -> Outcome {
    Outcome::Done {
        next_rip: RIP + bytes.len() as u64,
    }
}

#[test]
fn linux_local_apic_accesses() {
    let mut machine = TestMachine::new();
    // mov %edi, 0xffffffffff5fc000(%rax); mov 0xffffffffff5fc000(%rax), %eax
    machine.gpr[7] = 0xffff_ffff_0000_00b0;
    machine.gpr[0] = 0x5f_c100;
    let store = [0x89, 0xb8, 0x00, 0x40, 0xa0, 0xff];
    assert_eq!(run(&mut machine, &store), done(&store));
    assert_eq!(machine.memory[0x100..0x108], [0xb0, 0, 0, 0, 0, 0, 0, 0]);
    machine.memory[0x104] = 0xaa;
    let load = [0x8b, 0x80, 0x00, 0x40, 0xa0, 0xff];
    assert_eq!(run(&mut machine, &load), done(&load));
    assert_eq!(machine.gpr[0], 0xb0, "the upper half is cleared");
}

#[test]
fn holes_read_ones() {
    let mut machine = TestMachine::new();
    machine.gpr[3] = 0xdead_0000;
    machine.gpr[0] = 0x1111_2222_3333_4444;
    let byte = [0x8a, 0x23]; // mov ah, [rbx]
    assert_eq!(run(&mut machine, &byte), done(&byte));
    assert_eq!(machine.gpr[0], 0x1111_2222_3333_ff44);
    let word = [0x66, 0x8b, 0x03]; // mov ax, [rbx]
    run(&mut machine, &word);
    assert_eq!(machine.gpr[0], 0x1111_2222_3333_ffff);
    let signed = [0x48, 0x0f, 0xbe, 0x0b]; // movsx rcx, byte [rbx]
    run(&mut machine, &signed);
    assert_eq!(machine.gpr[1], u64::MAX);
    let unsigned = [0x0f, 0xb7, 0x0b]; // movzx ecx, word [rbx]
    run(&mut machine, &unsigned);
    assert_eq!(machine.gpr[1], 0xffff);
    let bit = [0x0f, 0xba, 0x23, 0x05]; // bt dword [rbx], 5
    assert_eq!(run(&mut machine, &bit), done(&bit));
    assert_eq!(machine.rflags & 1, 1);
    let write = [0xc7, 0x03, 1, 2, 3, 4]; // mov dword [rbx], imm32
    assert_eq!(run(&mut machine, &write), done(&write));
}

#[test]
fn addresses() {
    let mut machine = TestMachine::new();
    machine.gpr[1] = 0x77;
    // mov [rip + 0x10], cl, with RIP-relative addressing into memory
    let relative = [0x88, 0x0d, 0xfa, 0xff, 0xff, 0xff];
    assert_eq!(
        emulate_bytes(&mut machine, &relative, 0x500, CodeWidth::Bits64),
        Outcome::Done { next_rip: 0x506 }
    );
    assert_eq!(machine.memory[0x500], 0x77);
    // mov gs:[rsp + r12*4 + 8], cl
    machine.bases = [0x9999, 0x9999, 0x9999, 0x9999, 0x9999, 0x100];
    machine.gpr[4] = 0x200;
    machine.gpr[12] = 4;
    let indexed = [0x65, 0x42, 0x88, 0x4c, 0xa4, 0x08];
    assert_eq!(run(&mut machine, &indexed), done(&indexed));
    assert_eq!(machine.memory[0x318], 0x77);
    // mov [bx + si + 2], cl in 16-bit code: the offset wraps, the base is added
    machine.bases[Segment::Ds as usize] = 0x800;
    machine.gpr[3] = 0xffff;
    machine.gpr[6] = 0xf;
    let short = [0x88, 0x48, 0x02];
    assert_eq!(
        emulate_bytes(&mut machine, &short, 0x7c00, CodeWidth::Bits16),
        Outcome::Done { next_rip: 0x7c03 }
    );
    assert_eq!(machine.memory[0x810], 0x77);
    // mov al, [moffs32] in 32-bit code: addresses wrap at 4 GiB
    let absolute = [0xa0, 0x00, 0xfd, 0xff, 0xff];
    assert_eq!(
        emulate_bytes(&mut machine, &absolute, RIP, CodeWidth::Bits32),
        done(&absolute)
    );
    assert_eq!(machine.gpr[0], 0x77);
}

#[test]
fn faults_change_nothing() {
    let mut machine = TestMachine::new();
    machine.gpr[3] = READ_ONLY;
    let add = [0x48, 0x83, 0x03, 0x01]; // add qword [rbx], 1
    let address = Gva::new(READ_ONLY);
    let fault = GuestFault::Pf { address, code: 3 };
    assert_eq!(run(&mut machine, &add), Outcome::Fault(fault));
    assert_eq!((machine.rflags, machine.word(0x3000)), (2, 0));
    // A store across the end of a page, whose second page is absent.
    machine.gpr[3] = ABSENT - 4;
    let store = [0x48, 0x89, 0x1b];
    let fault = GuestFault::Pf {
        address: Gva::new(ABSENT),
        code: 2,
    };
    assert_eq!(run(&mut machine, &store), Outcome::Fault(fault));
    assert_eq!(machine.word(0x1ff8), 0);
}

#[test]
fn operands_cross_pages() {
    let mut machine = TestMachine::new();
    machine.gpr[3] = 0xffd;
    machine.gpr[0] = 0x1122_3344_5566_7788;
    let store = [0x48, 0x89, 0x03];
    assert_eq!(run(&mut machine, &store), done(&store));
    assert_eq!(machine.word(0xffd), 0x1122_3344_5566_7788);
    let load = [0x48, 0x8b, 0x0b];
    assert_eq!(run(&mut machine, &load), done(&load));
    assert_eq!(machine.gpr[1], machine.gpr[0]);
}

#[test]
fn repeated_stores() {
    let mut machine = TestMachine::new();
    machine.gpr[1] = 1000;
    machine.gpr[0] = 0x41;
    let stos = [0xf3, 0xaa];
    assert_eq!(run(&mut machine, &stos), Outcome::Repeat);
    assert_eq!((machine.gpr[1], machine.gpr[7]), (488, 512));
    assert_eq!(machine.walks, 1, "one translation for each page");
    assert_eq!(run(&mut machine, &stos), done(&stos));
    assert_eq!((machine.gpr[1], machine.gpr[7]), (0, 1000));
    assert!(machine.memory[..1000].iter().all(|&byte| byte == 0x41));
    assert_eq!(machine.memory[1000], 0);
    assert_eq!(run(&mut machine, &stos), done(&stos), "no iteration left");
}

#[test]
fn repeated_stores_stop_when_the_vcpu_is_wanted() {
    let mut machine = TestMachine::new();
    machine.gpr[1] = 20;
    machine.wanted = true;
    let stos = [0xf3, 0xaa];
    assert_eq!(run(&mut machine, &stos), Outcome::Repeat);
    assert_eq!((machine.gpr[1], machine.gpr[7]), (12, 8));
    assert_eq!(run(&mut machine, &stos), Outcome::Repeat);
    assert_eq!(run(&mut machine, &stos), done(&stos));
    assert_eq!((machine.gpr[1], machine.gpr[7]), (0, 20));
}

#[test]
fn a_fault_keeps_the_iterations_before_it() {
    let mut machine = TestMachine::new();
    machine.memory[..16].copy_from_slice(b"0123456789abcdef");
    machine.gpr[1] = 16;
    machine.gpr[7] = ABSENT - 4;
    let movs = [0xf3, 0xa4];
    let fault = GuestFault::Pf {
        address: Gva::new(ABSENT),
        code: 2,
    };
    assert_eq!(run(&mut machine, &movs), Outcome::Fault(fault));
    assert_eq!(
        (machine.gpr[1], machine.gpr[6], machine.gpr[7]),
        (12, 4, ABSENT)
    );
    assert_eq!(&machine.memory[0x1ffc..0x2000], b"0123");
}

#[test]
fn strings_in_narrow_modes() {
    let mut machine = TestMachine::new();
    machine.bases[Segment::Es as usize] = 0x100;
    machine.gpr[7] = 0xaaaa_0000_0010;
    machine.gpr[1] = 0xbbbb_0002;
    machine.gpr[0] = 0x5a;
    let stos = [0xf3, 0xaa];
    let outcome = emulate_bytes(&mut machine, &stos, 0x10, CodeWidth::Bits16);
    assert_eq!(outcome, Outcome::Done { next_rip: 0x12 });
    assert_eq!(
        (machine.gpr[7], machine.gpr[1]),
        (0xaaaa_0000_0012, 0xbbbb_0000)
    );
    assert_eq!(machine.memory[0x110..0x113], [0x5a, 0x5a, 0]);
    // std; rep movsl backwards
    machine.rflags |= 1 << 10;
    machine.gpr[1] = 2;
    machine.gpr[6] = 0x110;
    machine.gpr[7] = 0x204;
    let movs = [0xf3, 0xa5];
    assert_eq!(
        emulate_bytes(&mut machine, &movs, RIP, CodeWidth::Bits32),
        done(&movs)
    );
    assert_eq!(
        (machine.gpr[6], machine.gpr[7], machine.gpr[1]),
        (0x108, 0x1fc, 0)
    );
    assert_eq!(machine.memory[0x304..0x307], [0x5a, 0x5a, 0]);
}

#[test]
fn what_is_not_emulated_is_named() {
    let mut machine = TestMachine::new();
    let fxsave = [0x0f, 0xae, 0x03, 0x90, 0x90];
    assert_eq!(
        run(&mut machine, &fxsave),
        Outcome::Unsupported(InsnBytes::new(&fxsave[..3]))
    );
    let unsupported: [&[u8]; 10] = [
        &[0xff, 0x33],             // push [rbx]
        &[0xff, 0x23],             // jmp [rbx]
        &[0x8e, 0x1b],             // mov ds, [rbx]
        &[0xf2, 0x0f, 0x10, 0x03], // movsd xmm0, [rbx]
        &[0x48, 0x89, 0xc3],       // mov rbx, rax
        &[0x48, 0x01, 0xc3],       // add rbx, rax
        &[0x0f, 0xb1, 0xc3],       // cmpxchg ebx, eax
        &[0x87, 0xc3],             // xchg ebx, eax
        &[0xf7, 0x33],             // div dword [rbx]
        &[0xa6],                   // cmpsb
    ];
    for bytes in unsupported {
        assert_eq!(
            run(&mut machine, bytes),
            Outcome::Unsupported(InsnBytes::new(bytes))
        );
    }
    assert_eq!(
        run(&mut machine, &[0x48]),
        Outcome::Unsupported(InsnBytes::new(&[0x48]))
    );
    assert_eq!(
        run(&mut machine, &[]),
        Outcome::Unsupported(InsnBytes::new(&[]))
    );
}

proptest! {
    /// Any bytes on any state: nothing panics, and the work for one exit is bounded.
    #[test]
    fn survives_any_instruction(
        bytes in prop::collection::vec(any::<u8>(), 0..16),
        prefix in prop::sample::select(std::vec![0_u8, 0x66, 0x67, 0xf3, 0xf0, 0x48, 0x0f]),
        gpr: [u64; 16],
        rflags: u64,
        rip: u64,
        mode in 0..3,
    ) {
        let mut machine = TestMachine::new();
        machine.gpr = gpr.map(|value| if value & 1 == 0 { value } else { value & 0x3fff });
        machine.rflags = rflags;
        let mut code = bytes;
        if prefix != 0 {
            code.insert(0, prefix);
        }
        let width = match mode {
            0 => CodeWidth::Bits16,
            1 => CodeWidth::Bits32,
            _ => CodeWidth::Bits64,
        };
        let before = machine.gpr;
        match emulate_bytes(&mut machine, &code, rip, width) {
            Outcome::Unsupported(_) => assert_eq!(machine.gpr, before),
            Outcome::Done { .. } | Outcome::Repeat | Outcome::Fault(_) => {}
        }
        assert!(machine.walks <= 4 * 512);
    }
}

proptest! {
    #[test]
    fn plain_moves_are_the_same_either_way(
        prefix in prop::sample::select(&[0x40, 0x64, 0x65, 0x66, 0x67, 0x2e][..]),
        rex in 0x40_u8..0x50,
        opcode in 0x88_u8..0x8f,
        tail in any::<[u8; 8]>(),
        gpr in prop::array::uniform16(0_u64..0x4010),
        filled in any::<u8>(),
    ) {
        let mut machine = TestMachine::new();
        machine.gpr = gpr;
        machine.memory.fill(filled);
        let mut bytes = std::vec![prefix, rex, opcode];
        bytes.extend(tail);
        for bytes in [&bytes[..], &bytes[1..]] {
            is_the_same_either_way(&machine, bytes);
            // Near registers the displacement matters less.
            let mut near = bytes.to_vec();
            let displacement = near.len() - 6;
            near[displacement..].fill(0);
            is_the_same_either_way(&machine, &near);
        }
    }
}
