//! The emulator against the processor the tests run on, instruction by instruction.
#![expect(unsafe_code, reason = "runs the tested instructions natively")]
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]
#![cfg(target_arch = "x86_64")]

use core::arch::asm;

use super::alu::{AF, CF, OF, PF, SF, STATUS, ZF};
use super::tests::TestMachine;
use super::{CodeWidth, Outcome, emulate_bytes};
use proptest::prelude::{any, proptest};

const BUFFER: usize = 128;
/// Where RSI and RDI point in the buffer.
const SOURCE: usize = 48;
const DESTINATION: usize = 88;
const DF: u64 = 1 << 10;

/// What an instruction can see and change.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    rax: u64,
    rcx: u64,
    /// Offsets into the buffer.
    rsi: u64,
    rdi: u64,
    rflags: u64,
    buffer: [u8; BUFFER],
}

/// One encoding, and the same bytes in a function.
struct Case {
    bytes: &'static [u8],
    native: fn(&mut State),
    /// The flags it defines.
    defined: u64,
}

macro_rules! case {
    ($defined:expr, $($byte:literal)+) => {
        Case {
            bytes: &[$($byte),+],
            defined: $defined,
            native: |state| {
                let base = state.buffer.as_mut_ptr() as u64;
                let (mut rsi, mut rdi) = (base + state.rsi, base + state.rdi);
                // SAFETY: the instructions below are the fixed ones of `CASES`. They touch RAX,
                // RCX, RSI, RDI, the status flags, and memory near RSI and RDI: at most 16 bytes
                // on either side, inside the buffer. The direction flag is cleared again.
                unsafe {
                    asm!(
                        "push {flags}",
                        "popfq",
                        concat!($(".byte ", stringify!($byte), "\n"),+),
                        "pushfq",
                        "pop {flags}",
                        "cld",
                        flags = inout(reg) state.rflags,
                        inout("rax") state.rax,
                        inout("rcx") state.rcx,
                        inout("rsi") rsi,
                        inout("rdi") rdi,
                    );
                }
                state.rsi = rsi - base;
                state.rdi = rdi - base;
            },
        }
    };
}

const ARITHMETIC: u64 = STATUS;
const LOGIC: u64 = CF | PF | ZF | SF | OF;
const BIT: u64 = CF | ZF;
const ALL: u64 = STATUS | AF;

#[rustfmt::skip]
const CASES: &[Case] = &[
    // op [rsi], cl / cx / ecx / rcx
    case!(ARITHMETIC, 0x00 0x0e), case!(ARITHMETIC, 0x66 0x01 0x0e),
    case!(ARITHMETIC, 0x01 0x0e), case!(ARITHMETIC, 0x48 0x01 0x0e),
    case!(LOGIC, 0x08 0x0e), case!(LOGIC, 0x66 0x09 0x0e),
    case!(LOGIC, 0x09 0x0e), case!(LOGIC, 0x48 0x09 0x0e),
    case!(ARITHMETIC, 0x10 0x0e), case!(ARITHMETIC, 0x66 0x11 0x0e),
    case!(ARITHMETIC, 0x11 0x0e), case!(ARITHMETIC, 0x48 0x11 0x0e),
    case!(ARITHMETIC, 0x18 0x0e), case!(ARITHMETIC, 0x66 0x19 0x0e),
    case!(ARITHMETIC, 0x19 0x0e), case!(ARITHMETIC, 0x48 0x19 0x0e),
    case!(LOGIC, 0x20 0x0e), case!(LOGIC, 0x66 0x21 0x0e),
    case!(LOGIC, 0x21 0x0e), case!(LOGIC, 0x48 0x21 0x0e),
    case!(ARITHMETIC, 0x28 0x0e), case!(ARITHMETIC, 0x66 0x29 0x0e),
    case!(ARITHMETIC, 0x29 0x0e), case!(ARITHMETIC, 0x48 0x29 0x0e),
    case!(LOGIC, 0x30 0x0e), case!(LOGIC, 0x66 0x31 0x0e),
    case!(LOGIC, 0x31 0x0e), case!(LOGIC, 0x48 0x31 0x0e),
    case!(ARITHMETIC, 0x38 0x0e), case!(ARITHMETIC, 0x66 0x39 0x0e),
    case!(ARITHMETIC, 0x39 0x0e), case!(ARITHMETIC, 0x48 0x39 0x0e),
    case!(LOGIC, 0x84 0x0e), case!(LOGIC, 0x66 0x85 0x0e),
    case!(LOGIC, 0x85 0x0e), case!(LOGIC, 0x48 0x85 0x0e),
    // op cl / cx / ecx / rcx, [rsi]
    case!(ARITHMETIC, 0x02 0x0e), case!(ARITHMETIC, 0x66 0x13 0x0e),
    case!(ARITHMETIC, 0x1b 0x0e), case!(ARITHMETIC, 0x48 0x2b 0x0e),
    case!(LOGIC, 0x0b 0x0e), case!(LOGIC, 0x48 0x23 0x0e), case!(ARITHMETIC, 0x3b 0x0e),
    // op [rsi], immediate
    case!(ARITHMETIC, 0x80 0x06 0x91), case!(ARITHMETIC, 0x48 0x83 0x2e 0xf0),
    case!(LOGIC, 0x66 0x83 0x26 0x81), case!(ARITHMETIC, 0x81 0x3e 0x78 0x56 0x34 0x12),
    case!(LOGIC, 0x48 0xf7 0x06 0x10 0x32 0x54 0xf6),
    // inc, dec, not, neg
    case!(ALL, 0xfe 0x06), case!(ALL, 0x66 0xff 0x06), case!(ALL, 0xff 0x06), case!(ALL, 0x48 0xff 0x06),
    case!(ALL, 0xfe 0x0e), case!(ALL, 0x66 0xff 0x0e), case!(ALL, 0xff 0x0e), case!(ALL, 0x48 0xff 0x0e),
    case!(ALL, 0xf6 0x16), case!(ALL, 0x66 0xf7 0x16), case!(ALL, 0xf7 0x16), case!(ALL, 0x48 0xf7 0x16),
    case!(ALL, 0xf6 0x1e), case!(ALL, 0x66 0xf7 0x1e), case!(ALL, 0xf7 0x1e), case!(ALL, 0x48 0xf7 0x1e),
    // bt, bts, btr, btc with a register and with an immediate
    case!(BIT, 0x66 0x0f 0xa3 0x0e), case!(BIT, 0x0f 0xa3 0x0e), case!(BIT, 0x48 0x0f 0xa3 0x0e),
    case!(BIT, 0x66 0x0f 0xab 0x0e), case!(BIT, 0x0f 0xb3 0x0e), case!(BIT, 0x48 0x0f 0xbb 0x0e),
    case!(BIT, 0x66 0x0f 0xba 0x26 0x1d), case!(BIT, 0x0f 0xba 0x2e 0x3d),
    case!(BIT, 0x48 0x0f 0xba 0x36 0x3d), case!(BIT, 0x48 0x0f 0xba 0x3e 0x05),
    // xchg, xadd, cmpxchg
    case!(ALL, 0x86 0x0e), case!(ALL, 0x66 0x87 0x0e), case!(ALL, 0x87 0x0e), case!(ALL, 0x48 0x87 0x0e),
    case!(ALL, 0x0f 0xc0 0x0e), case!(ALL, 0xf0 0x0f 0xc1 0x0e), case!(ALL, 0x48 0x0f 0xc1 0x0e),
    case!(ALL, 0x0f 0xb0 0x0e), case!(ALL, 0x66 0x0f 0xb1 0x0e),
    case!(ALL, 0xf0 0x0f 0xb1 0x0e), case!(ALL, 0x48 0x0f 0xb1 0x0e),
    // moves
    case!(ALL, 0x88 0x26), case!(ALL, 0x8a 0x26), case!(ALL, 0x66 0x8b 0x0e), case!(ALL, 0x8b 0x0e),
    case!(ALL, 0x48 0x89 0x0e), case!(ALL, 0x0f 0xc3 0x0e), case!(ALL, 0x48 0xc7 0x06 0x01 0x00 0x00 0x80),
    case!(ALL, 0x0f 0xb6 0x0e), case!(ALL, 0x66 0x0f 0xbe 0x0e), case!(ALL, 0x48 0x0f 0xbf 0x0e),
    case!(ALL, 0x0f 0xb7 0x0e), case!(ALL, 0x48 0x63 0x0e), case!(ALL, 0x0f 0xbe 0x0e),
    // strings
    case!(ALL, 0xaa), case!(ALL, 0x66 0xab), case!(ALL, 0xab), case!(ALL, 0x48 0xab),
    case!(ALL, 0xac), case!(ALL, 0x66 0xad), case!(ALL, 0xad), case!(ALL, 0x48 0xad),
    case!(ALL, 0xa4), case!(ALL, 0x66 0xa5), case!(ALL, 0xa5), case!(ALL, 0x48 0xa5),
    case!(ALL, 0xf3 0xaa), case!(ALL, 0xf3 0xa4), case!(ALL, 0xf3 0xac), case!(ALL, 0xf3 0x66 0xa5),
];

fn emulated(case: &Case, state: &mut State) {
    let mut machine = TestMachine::new();
    machine.gpr[0] = state.rax;
    machine.gpr[1] = state.rcx;
    machine.gpr[6] = state.rsi;
    machine.gpr[7] = state.rdi;
    machine.rflags = state.rflags;
    machine.memory[..BUFFER].copy_from_slice(&state.buffer);
    let outcome = emulate_bytes(&mut machine, case.bytes, 0, CodeWidth::Bits64);
    assert_eq!(
        outcome,
        Outcome::Done {
            next_rip: case.bytes.len() as u64
        }
    );
    state.rax = machine.gpr[0];
    state.rcx = machine.gpr[1];
    state.rsi = machine.gpr[6];
    state.rdi = machine.gpr[7];
    state.rflags = machine.rflags;
    state.buffer.copy_from_slice(&machine.memory[..BUFFER]);
}

/// RCX for `case`: a bit number or a count must stay near the buffer.
fn tame(case: &Case, rcx: u64) -> u64 {
    let bit = matches!(case.bytes, [.., 0x0f, 0xa3 | 0xab | 0xb3 | 0xbb, 0x0e]);
    match case.bytes {
        [0xf3, ..] => rcx & 7,
        _ if bit => (rcx & 0xff).wrapping_sub(0x80),
        _ => rcx,
    }
}

proptest! {
    #[test]
    fn agrees_with_the_processor(
        rax: u64, rcx: u64, flags: u64, fill: [u8; 32], equal: bool, corner in any::<u8>(),
    ) {
        let mut start = State {
            rax,
            rcx,
            rsi: SOURCE as u64,
            rdi: DESTINATION as u64,
            rflags: flags & (STATUS | DF) | 0x202,
            buffer: [0; BUFFER],
        };
        for (n, byte) in start.buffer.iter_mut().enumerate() {
            *byte = fill[n % 32];
        }
        if equal {
            start.buffer[SOURCE..SOURCE + 8].copy_from_slice(&rax.to_le_bytes());
        }
        if corner < 64 {
            let value = [0, u64::MAX, 1 << 63, u64::MAX >> 1][usize::from(corner % 4)];
            start.buffer[SOURCE..SOURCE + 8].copy_from_slice(&value.to_le_bytes());
        }
        for case in CASES {
            let begin = State { rcx: tame(case, start.rcx), ..start.clone() };
            let (mut ours, mut theirs) = (begin.clone(), begin);
            emulated(case, &mut ours);
            (case.native)(&mut theirs);
            for state in [&mut ours, &mut theirs] {
                state.rflags &= case.defined;
            }
            assert_eq!(ours, theirs, "{:02x?}", case.bytes);
        }
    }
}
