//! An excursion to ring 3, to find out what a hypercall from there gives.
#![expect(unsafe_code, reason = "goes to ring 3 and comes back by an interrupt")]

use core::arch::global_asm;

use crate::cpu::{self, Fault};
use crate::interrupts::{self, FROM_RING_3, Frame, RECOVERED};
use crate::memory::Page;

static ENTRY_STACK: Page = Page::new();
static USER_STACK: Page = Page::new();

global_asm!(
    r#"
    .bss
    .balign 8
guest_ring_0_stack:
    .quad 0

    .text
    # extern "C" fn(nr, argument, user_stack, fault: *mut u64) -> u64
guest_ring_3_vmcall:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rcx
    mov %rsp, guest_ring_0_stack
    mov %rdi, %rax
    mov %rsi, %rdi
    push ${user_data}
    push %rdx
    push $2
    push ${user_code}
    lea 1f(%rip), %rcx
    push %rcx
    xor %r11d, %r11d
    iretq
1:  vmcall
2:  int ${back}
    ud2
    .pushsection .recovery, "a", @progbits
    .quad 1b, 2b
    .popsection

    # The way back, in ring 0 on the stack left above.
guest_ring_3_left:
    mov guest_ring_0_stack, %rsp
    pop %rcx
    mov %r11, (%rcx)
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    "#,
    user_data = const crate::entry::USER_DATA,
    user_code = const crate::entry::USER_CODE,
    back = const FROM_RING_3,
    options(att_syntax),
);

unsafe extern "C" {
    fn guest_ring_3_vmcall(nr: u64, argument: u64, user_stack: u64, fault: *mut u64) -> u64;
    fn guest_ring_3_left();
}

fn back_to_ring_0(frame: &mut Frame) {
    frame.rip = guest_ring_3_left as *const () as u64;
    frame.cs = u64::from(crate::entry::KERNEL_CODE);
    frame.ss = 0x10;
    frame.rflags = 2;
}

/// Executes VMCALL in ring 3 with number `nr` and first word `argument`; returns RAX.
///
/// # Errors
/// The fault VMCALL raised.
#[expect(clippy::cast_possible_truncation, reason = "fields of a packed word")]
pub fn vmcall(nr: u64, argument: u64) -> Result<u64, Fault> {
    let top = abi::PAGE_SIZE as u64;
    interrupts::set_ring_0_stack(cpu::index(), ENTRY_STACK.address() + top);
    interrupts::on(FROM_RING_3, back_to_ring_0);
    let mut fault = 0;
    // SAFETY: the code above goes to ring 3 on a stack of its own, comes back by the gate for
    // FROM_RING_3 and restores every register a C function must; interrupts stay off.
    let rax =
        unsafe { guest_ring_3_vmcall(nr, argument, USER_STACK.address() + top, &raw mut fault) };
    if fault & RECOVERED != 0 {
        return Err(Fault {
            vector: (fault >> 32) as u8,
            error: fault as u32,
        });
    }
    Ok(rax)
}
