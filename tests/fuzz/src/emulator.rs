//! The instruction emulator on a machine of four pages: whatever the instruction, a fault leaves
//! the machine as it was, and nothing is touched that was not translated for it.

use abi::{Gpa, Gva, PAGE_SIZE};
use calls::Choice;
use iced_x86::Mnemonic;
use vmm_core::emulate::{self, Access, CodeWidth, Machine, Outcome, Segment};
use vmm_core::fault::GuestFault;

use crate::Input;

const RIP: u64 = 0x1000;
/// The page that no translation covers.
const ABSENT: u64 = 0x2000;
/// The page that may not be written.
const READ_ONLY: u64 = 0x3000;
/// String instructions: their finished iterations stay finished.
const STRING: [Mnemonic; 12] = [
    Mnemonic::Movsb,
    Mnemonic::Movsw,
    Mnemonic::Movsd,
    Mnemonic::Movsq,
    Mnemonic::Stosb,
    Mnemonic::Stosw,
    Mnemonic::Stosd,
    Mnemonic::Stosq,
    Mnemonic::Lodsb,
    Mnemonic::Lodsw,
    Mnemonic::Lodsd,
    Mnemonic::Lodsq,
];
const MEMORY: usize = 4 * PAGE_SIZE;

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    gpr: [u64; 16],
    rflags: u64,
    memory: Vec<u8>,
}

struct Plain {
    state: State,
    bases: [u64; 6],
    /// Somebody else wants the pCPU.
    wanted: bool,
    /// Pages that were translated, and for what.
    translated: Vec<(u64, Access)>,
}

impl Machine for Plain {
    fn gpr(&mut self, number: u8) -> u64 {
        self.state.gpr[usize::from(number)]
    }

    fn set_gpr(&mut self, number: u8, value: u64) {
        self.state.gpr[usize::from(number)] = value;
    }

    fn rflags(&mut self) -> u64 {
        self.state.rflags
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.state.rflags = rflags;
    }

    fn segment_base(&mut self, segment: Segment) -> u64 {
        self.bases[segment as usize]
    }

    fn translate(&mut self, address: Gva, access: Access) -> Result<Gpa, GuestFault> {
        let page = address.raw() & !0xfff;
        let write = access == Access::Write;
        if page == ABSENT || (page == READ_ONLY && write) {
            return Err(GuestFault::Pf { address, code: 0 });
        }
        self.translated.push((page, access));
        Ok(Gpa::new(address.raw()))
    }

    fn is_wanted_elsewhere(&mut self) -> bool {
        self.wanted
    }

    fn read(&mut self, gpa: Gpa, bytes: &mut [u8]) {
        self.check(gpa, bytes.len(), false);
        for (byte, place) in bytes.iter_mut().zip(0..) {
            let at = at(gpa, place);
            *byte = self.state.memory.get(at).copied().unwrap_or(0xff);
        }
    }

    fn write(&mut self, gpa: Gpa, bytes: &[u8]) {
        self.check(gpa, bytes.len(), true);
        for (byte, place) in bytes.iter().zip(0..) {
            let at = at(gpa, place);
            if let Some(slot) = self.state.memory.get_mut(at) {
                *slot = *byte;
            }
        }
    }
}

impl Plain {
    fn check(&self, gpa: Gpa, length: usize, write: bool) {
        assert!((1..=8).contains(&length), "{length} bytes");
        assert!(gpa.page_offset() + length <= PAGE_SIZE, "{gpa} crosses");
        let page = gpa.raw() & !0xfff;
        let allowed = |(translated, access): &(u64, Access)| {
            *translated == page && (!write || *access == Access::Write)
        };
        assert!(self.translated.iter().any(allowed), "{gpa} untranslated");
    }
}

fn at(gpa: Gpa, place: u64) -> usize {
    usize::try_from(gpa.raw().wrapping_add(place)).expect("64 bits")
}

pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    let mut done = 0;
    let mut machine = Plain {
        state: State {
            gpr: [0; 16],
            rflags: 2,
            memory: vec![0; MEMORY],
        },
        bases: [0; 6],
        wanted: false,
        translated: Vec::new(),
    };
    while !input.is_empty() {
        choose(input, &mut machine);
        one(input, &mut machine);
        done += 1;
    }
    done
}

fn choose(input: &mut Input<'_>, machine: &mut Plain) {
    machine.translated.clear();
    machine.wanted = input.flip();
    machine.state.rflags = input.any() & 0xcd5 | 2;
    for base in &mut machine.bases {
        *base = if input.below(4) == 0 { 0x800 } else { 0 };
    }
    for register in &mut machine.state.gpr {
        match input.below(8) {
            0 => *register = input.any(),
            1 => *register = u64::from(input.below(64)),
            2..=5 => *register = u64::from(input.below(20)) << 10,
            _ => {}
        }
    }
}

/// Bytes that decode to something with an operand in memory more often than chance has it.
fn instruction(input: &mut Input<'_>) -> [u8; 15] {
    let mut bytes = input.bytes::<15>();
    if input.flip() {
        const OPCODES: [u8; 24] = [
            0x00, 0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39, 0x80, 0x81, 0x83, 0x84, 0x86,
            0x87, 0x88, 0x89, 0x8b, 0xa4, 0xa5, 0xaa, 0xab, 0xc7, 0xf7,
        ];
        let at = input.index(4);
        for prefix in bytes.iter_mut().take(at) {
            const PREFIXES: [u8; 8] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x48, 0x2e];
            *prefix = PREFIXES[usize::from(*prefix % 8)];
        }
        bytes[at] = OPCODES[input.index(OPCODES.len())];
    } else if input.flip() {
        bytes[0] = 0x0f;
    }
    bytes
}

fn one(input: &mut Input<'_>, machine: &mut Plain) {
    let width = match input.below(4) {
        0 => CodeWidth::Bits16,
        1 => CodeWidth::Bits32,
        _ => CodeWidth::Bits64,
    };
    let all = instruction(input);
    let bytes = &all[..15 - input.index(15)];
    let before = machine.state.clone();
    let insn = emulate::decode(bytes, RIP, width);
    let outcome = emulate::emulate(machine, &insn, bytes, RIP, width);
    let changed = machine.state != before;
    match outcome {
        Outcome::Done { next_rip } => {
            let length = next_rip.wrapping_sub(RIP);
            assert!((1..=bytes.len() as u64).contains(&length), "{bytes:02x?}");
        }
        // Iterations that are done stay done.
        Outcome::Repeat => {}
        Outcome::Fault(_) if STRING.contains(&insn.mnemonic()) => {}
        Outcome::Fault(_) | Outcome::Unsupported(_) => {
            assert!(!changed, "{bytes:02x?} {width:?} {outcome:?}");
        }
    }
}
