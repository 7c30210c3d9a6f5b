//! VM entry and exit as an ordinary call.
//!
//! ```text
//!  resume() ──call──► vm_resume: RSP saved in regs, GPRs loaded, VMRESUME
//!                                   │ refused                    │ guest runs, then VM exit
//!                                   ▼                            ▼ HOST_RIP, HOST_RSP
//!                     ret with CF or ZF           vm_exit: GPRs pushed into regs, RSP restored,
//!                                                 ret with neither
//! ```
//!
//! `HOST_RSP` points just past the register block: the exit pushes the guest's registers right
//! where they belong, without a scratch register, and the real stack pointer lies below them. So
//! `HOST_RSP` depends on the block's address only, not on the depth of the caller's stack. NMI,
//! double fault and machine check use their own stacks, so nothing else is pushed meanwhile.
//!
//! Callee-saved registers are clobbers of the call, not saved by it: the compiler keeps only
//! those alive that the run loop really needs.
#![expect(unsafe_code, reason = "VM entry and exit")]

use core::arch::{asm, naked_asm};

use crate::regs::GuestRegs;

/// The value of `HOST_RSP` that belongs to `regs`.
#[inline]
pub(crate) fn host_rsp(regs: &mut GuestRegs) -> u64 {
    (&raw mut *regs).wrapping_add(1).addr() as u64
}

/// The value of `HOST_RIP`.
pub(crate) fn exit_address() -> u64 {
    vm_exit as *const () as u64
}

/// Calls one of the entries below; true when it was refused.
macro_rules! enter {
    ($regs:expr, $entry:ident) => {{
        // Everything the guest or the code below changes is named as clobbered; RBX and RBP, which
        // cannot be, are saved around the call. The host state brings back RSP, segments and
        // control registers. A VM exit clears the flags, and what follows it leaves them alone
        // (SDM 3C, "Loading Host RIP, RSP, and RFLAGS"); a refused entry sets CF or ZF.
        asm!(
            "push rbp",
            "push rbx",
            "call {enter}",
            "pop rbx",
            "pop rbp",
            "jbe {refused}",
            enter = sym $entry,
            refused = label { return true },
            in("rdi") &raw mut *$regs,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            clobber_abi("sysv64"),
        );
        false
    }};
}

/// Enters the guest with VMRESUME; returns false after a VM exit, true when it was refused.
///
/// # Safety
/// 1. A VMCS is current whose host state is this CPU's, with `HOST_RIP` = [`exit_address`] and
///    `HOST_RSP` = [`host_rsp`] of these `regs`.
/// 2. It has been launched.
#[inline(always)]
pub(crate) unsafe fn resume(regs: &mut GuestRegs) -> bool {
    // SAFETY: the caller's promise.
    unsafe { enter!(regs, vm_resume) }
}

/// Enters the guest with VMLAUNCH; otherwise like [`resume`].
///
/// # Safety
/// As for [`resume`], but the VMCS is clear.
pub(crate) unsafe fn launch(regs: &mut GuestRegs) -> bool {
    // SAFETY: the caller's promise.
    unsafe { enter!(regs, vm_launch) }
}

/// Defines an entry: RDI = the register block. Offsets are those of [`GuestRegs`].
macro_rules! entry {
    ($name:ident, $instruction:literal) => {
        /// # Safety
        /// Only for the calls above: clobbers every register but RSP.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name() {
            naked_asm!(
                "mov [rdi], rsp",
                "mov rax, [rdi + 0x08]",
                "mov rcx, [rdi + 0x10]",
                "mov rdx, [rdi + 0x18]",
                "mov rbx, [rdi + 0x20]",
                "mov rbp, [rdi + 0x28]",
                "mov rsi, [rdi + 0x30]",
                "mov r8, [rdi + 0x40]",
                "mov r9, [rdi + 0x48]",
                "mov r10, [rdi + 0x50]",
                "mov r11, [rdi + 0x58]",
                "mov r12, [rdi + 0x60]",
                "mov r13, [rdi + 0x68]",
                "mov r14, [rdi + 0x70]",
                "mov r15, [rdi + 0x78]",
                "mov rdi, [rdi + 0x38]",
                $instruction,
                // Only a refused entry comes here, with CF for VMfailInvalid, ZF for VMfailValid.
                "ret",
            )
        }
    };
}

entry!(vm_resume, "vmresume");
entry!(vm_launch, "vmlaunch");

/// Where VM exits land: RSP is `HOST_RSP`, all other registers are the guest's.
///
/// # Safety
/// Not to be called: the CPU comes here.
#[unsafe(naked)]
unsafe extern "sysv64" fn vm_exit() {
    naked_asm!(
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "push rdi",
        "push rsi",
        "push rbp",
        "push rbx",
        "push rdx",
        "push rcx",
        "push rax",
        "mov rsp, [rsp - 8]",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use super::{exit_address, host_rsp};
    use crate::regs::GuestRegs;

    #[test]
    fn the_exit_stack_ends_at_the_last_register() {
        let mut regs = GuestRegs::new();
        let last = (&raw const regs.r15).addr() as u64;
        assert_eq!(host_rsp(&mut regs), last + 8);
        assert_ne!(exit_address(), 0);
    }
}
