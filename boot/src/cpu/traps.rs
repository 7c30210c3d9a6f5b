//! Exceptions and interrupts: 256 entry stubs, one way to save registers, one dispatcher.
//!
//! Interrupts are on in the idle loop and between steps of long work only, where no lock is held, so
//! an interrupt may do all that the core may do. An exception is a bug of the hypervisor, and ends
//! in the epitaph, unless the instruction has an entry in the exception table
//! ([`crate::layout::exception_table`]).
#![expect(unsafe_code, reason = "entry points for the processor")]

use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::control;
use crate::memory::stacks;
use crate::{layout, panic};

/// Non-maskable interrupt.
pub(crate) const NMI: u8 = 2;
/// Double fault.
pub(crate) const DOUBLE_FAULT: u8 = 8;
/// Page fault.
const PAGE_FAULT: u8 = 14;
/// Machine check.
pub(crate) const MACHINE_CHECK: u8 = 18;
/// The first vector that is an interrupt.
const FIRST_INTERRUPT: u8 = 32;

/// Bytes from one stub to the next.
const STUB_SIZE: u64 = 16;

/// NMIs that came without anybody in the hypervisor having sent them.
static STRAY_NMIS: AtomicU64 = AtomicU64::new(0);

/// What the stubs leave on the stack.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    /// Where the backtrace starts.
    pub(crate) rbp: u64,
    rbx: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    /// The interrupted instruction.
    pub(crate) rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

global_asm!(
    r#"
    .text
    .balign 16
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && (vector != 10) && (vector != 11) && (vector != 12) && (vector != 13) && (vector != 14) && (vector != 17) && (vector != 21)
    push 0
    .endif
    push vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    call {dispatch}
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    "#,
    dispatch = sym dispatch,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// The address of a vector's entry stub.
pub(crate) fn stub(vector: u8) -> u64 {
    (&raw const trap_stubs).addr() as u64 + u64::from(vector) * STUB_SIZE
}

/// Serves whatever brought the CPU here. The stack is aligned: the processor aligns it before it
/// pushes five words, and the stub adds seventeen.
extern "C" fn dispatch(frame: &mut Frame) {
    let vector = u8::try_from(frame.vector).unwrap_or(0);
    match vector {
        NMI => {
            panic::stop_if_asked();
            STRAY_NMIS.fetch_add(1, Ordering::Relaxed);
        }
        FIRST_INTERRUPT.. => vmm_core::platform::interrupt(vector),
        _ => match layout::exception_table()
            .iter()
            .find(|[at, _]| *at == frame.rip)
        {
            Some([_, fixup]) if vector != MACHINE_CHECK && vector != DOUBLE_FAULT => {
                frame.rip = *fixup;
            }
            _ => panic::exception(frame),
        },
    }
}

/// How many NMIs came that nobody in the hypervisor had sent.
pub(crate) fn stray_nmis() -> u64 {
    STRAY_NMIS.load(Ordering::Relaxed)
}

/// Takes the path of a host NMI that a VM exit brought: through the IDT, so that its IRET lets
/// the next one in.
pub(crate) fn raise_nmi() {
    // SAFETY: the gate leads to `dispatch`, which returns with all registers as they were.
    unsafe { core::arch::asm!("int 2") };
}

/// Takes the path of a machine check that a VM exit brought.
pub(crate) fn raise_machine_check() {
    // SAFETY: the gate leads to `dispatch`, which for this vector does not return.
    unsafe { core::arch::asm!("int 18") };
}

impl Frame {
    /// True for a machine check.
    pub(crate) fn is_machine_check(&self) -> bool {
        self.vector == u64::from(MACHINE_CHECK)
    }

    /// The exception's short name and the error code or address that says more.
    pub(crate) fn describe(&self) -> impl fmt::Display {
        let (vector, error) = (self.vector, self.error);
        fmt::from_fn(move |f| {
            write!(
                f,
                "{} (vector {vector}) error code {error:#x}",
                name(vector)
            )?;
            let address = control::fault_address();
            if vector == u64::from(PAGE_FAULT) || vector == u64::from(DOUBLE_FAULT) {
                write!(f, ", last page fault at address {address:#x}")?;
                if stacks::is_guard_page(address) {
                    f.write_str(", below a stack: it overflowed")?;
                }
            }
            Ok(())
        })
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            [
                ("rax", self.rax),
                ("rbx", self.rbx),
                ("rcx", self.rcx),
                ("rdx", self.rdx),
            ],
            [
                ("rsi", self.rsi),
                ("rdi", self.rdi),
                ("rbp", self.rbp),
                ("rsp", self.rsp),
            ],
            [
                (" r8", self.r8),
                (" r9", self.r9),
                ("r10", self.r10),
                ("r11", self.r11),
            ],
            [
                ("r12", self.r12),
                ("r13", self.r13),
                ("r14", self.r14),
                ("r15", self.r15),
            ],
            [
                ("rip", self.rip),
                ("rfl", self.rflags),
                (" cs", self.cs),
                (" ss", self.ss),
            ],
        ];
        for row in rows {
            for (name, value) in row {
                write!(f, "  {name} {value:016x}")?;
            }
            f.write_str("\r\n")?;
        }
        Ok(())
    }
}

/// The SDM's mnemonic of an exception.
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        4 => "#OF",
        5 => "#BR",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        18 => "#MC",
        19 => "#XM",
        20 => "#VE",
        21 => "#CP",
        _ => "exception",
    }
}
