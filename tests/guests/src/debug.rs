//! Debug exceptions: breakpoints, single steps, and the corners where they meet MOV SS.
#![expect(unsafe_code, reason = "debug registers, and instructions that trap")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::{self, Fault};
use crate::interrupts::{self, Frame};

/// #DB.
pub const VECTOR: u8 = 1;
/// DR6.BD: a debug register was touched while DR7.GD was set.
pub const BD: u64 = 1 << 13;
/// DR6.BS: a single step.
pub const BS: u64 = 1 << 14;
/// DR6 with no condition met.
pub const DR6_CLEAR: u64 = 0xffff_0ff0;
/// DR7.GD.
pub const DR7_GD: u64 = 1 << 13;
const DR7_FIXED: u64 = 1 << 10;
const TRAP_FLAG: u64 = 1 << 8;
const IA32_DEBUGCTL: u32 = 0x1d9;
const DEBUGCTL_BTF: u64 = 1 << 1;

static COUNT: AtomicU64 = AtomicU64::new(0);
static RIP: AtomicU64 = AtomicU64::new(0);
static DR6: AtomicU64 = AtomicU64::new(0);

/// What the debug exceptions since the last [`take`] were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// How many.
    pub count: u64,
    /// Where the first one came.
    pub rip: u64,
    /// DR6 at the first one.
    pub dr6: u64,
}

fn note(frame: &mut Frame) {
    if COUNT.fetch_add(1, Ordering::AcqRel) == 0 {
        RIP.store(frame.rip, Ordering::Release);
        DR6.store(dr6(), Ordering::Release);
    }
    frame.rflags &= !TRAP_FLAG;
    set_dr7(0);
}

/// Notes debug exceptions from now on; each ends single stepping and all breakpoints.
pub fn watch() {
    interrupts::on(VECTOR, note);
}

/// Tells what debug exceptions came, and forgets them.
pub fn take() -> Seen {
    set_dr6(DR6_CLEAR);
    Seen {
        count: COUNT.swap(0, Ordering::AcqRel),
        rip: RIP.swap(0, Ordering::AcqRel),
        dr6: DR6.swap(0, Ordering::AcqRel),
    }
}

macro_rules! register {
    ($get:ident, $set:ident, $name:literal) => {
        #[doc = concat!("Reads ", $name, ".")]
        #[must_use]
        pub fn $get() -> u64 {
            let value;
            // SAFETY: reading a debug register changes nothing; a #DB it may raise is noted.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nostack)) };
            value
        }

        #[doc = concat!("Writes ", $name, ".")]
        pub fn $set(value: u64) {
            // SAFETY: breakpoints raise #DB, which is noted.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) };
        }
    };
}

register!(dr0, set_dr0, "dr0");
register!(dr1, set_dr1, "dr1");
register!(dr2, set_dr2, "dr2");
register!(dr3, set_dr3, "dr3");
register!(dr6, set_dr6, "dr6");
register!(dr7, set_dr7, "dr7");

/// DR7 that makes DR0 watch writes to eight bytes.
#[must_use]
pub const fn watches_writes() -> u64 {
    DR7_FIXED | 1 | 0b1001 << 16
}

/// Single-steps over CPUID, which exits. Returns the address after it.
#[must_use]
pub fn step_over_cpuid() -> u64 {
    let after;
    // SAFETY: the step is noted and ended by `note`; all registers CPUID writes are named.
    unsafe {
        asm!(
            "push rbx",
            "lea r8, [rip + 2f]",
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "cpuid",
            "2: nop",
            "pop rbx",
            out("r8") after,
            inout("eax") 0 => _,
            inout("ecx") 0 => _,
            out("edx") _,
        );
    }
    after
}

/// Has single steps trap on branches only, until the next debug exception.
///
/// # Errors
/// The fault, where IA32_DEBUGCTL cannot be written.
pub fn step_branches_only() -> Result<(), Fault> {
    cpu::wrmsr(IA32_DEBUGCTL, DEBUGCTL_BTF)
}

/// Executes INT1 behind a MOV to SS while single stepping. Returns the address after it.
#[must_use]
pub fn int1_in_shadow() -> u64 {
    let after;
    // SAFETY: SS gets the selector it has; the exceptions are noted.
    unsafe {
        asm!(
            "lea r8, [rip + 2f]",
            "mov r9d, ss",
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "mov ss, r9d",
            ".byte 0xf1",
            "2: nop",
            out("r8") after,
            out("r9") _,
        );
    }
    after
}

/// Executes CPUID behind a MOV to SS whose operand has a breakpoint. Returns the address after
/// CPUID.
#[must_use]
pub fn cpuid_behind_watched_stack() -> u64 {
    let selector: u16;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0:x}, ss", out(reg) selector, options(nostack)) };
    set_dr0(&raw const selector as u64);
    // Reads and writes of two bytes.
    set_dr7(DR7_FIXED | 1 | 0b0111 << 16);
    let after;
    // SAFETY: SS gets the selector it has; the exception is noted and ends the breakpoint.
    unsafe {
        asm!(
            "push rbx",
            "lea r8, [rip + 2f]",
            "mov ss, word ptr [r9]",
            "cpuid",
            "2: nop",
            "pop rbx",
            out("r8") after,
            in("r9") &raw const selector,
            inout("eax") 0 => _,
            inout("ecx") 0 => _,
            out("edx") _,
        );
    }
    after
}

/// Reads DR6 while DR7.GD guards it. Returns the address of that read.
#[must_use]
pub fn guarded_read() -> u64 {
    set_dr7(DR7_FIXED | DR7_GD);
    let at;
    // SAFETY: the read raises #DB, which is noted and has cleared DR7.GD.
    unsafe {
        asm!(
            "lea {0}, [rip + 2f]",
            "2: mov {1}, dr6",
            out(reg) at,
            out(reg) _,
        );
    }
    at
}

/// Raises a #DB whose delivery raises the next one, and so on: its stack is watched. Does not
/// come back on a processor.
pub fn storm(stack_top: u64) {
    interrupts::use_stack(VECTOR, stack_top);
    set_dr0(stack_top - 8);
    set_dr7(watches_writes());
    // SAFETY: INT1 raises #DB on the stack given.
    unsafe { asm!(".byte 0xf1") };
}
