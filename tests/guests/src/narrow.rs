//! Hypercalls from 32-bit code: the runtime's 64-bit code goes through a far call to a 32-bit code
//! segment, where the VMCALL is. All memory of the runtime lies below 4 GiB, so 32-bit addresses
//! reach it.
#![expect(unsafe_code, reason = "hypercalls with any argument")]

use core::arch::global_asm;

use abi::Errno;

use crate::entry::NARROW_CODE;

/// What the upper halves of the registers hold in the call: they must not count. A CPU is free to
/// change them on its way into 32-bit code.
const JUNK: u64 = 0xdead_beef << 32;

global_asm!(
    r#"
    # The number and the five arguments stand where RDI points; the result comes in EAX. A switch
    # to 32-bit code may cost the upper halves of all registers, and R8 to R15.
guest_narrow_call:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov (%rdi), %rax
    mov 8(%rdi), %rbx
    mov 16(%rdi), %rcx
    mov 24(%rdi), %rdx
    mov 32(%rdi), %rsi
    mov 40(%rdi), %rdi
    lcalll *narrow_pointer(%rip)
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .code32
narrow_code:
    vmcall
    lret
    .code64

    .section .rodata.narrow_pointer, "a", @progbits
    .balign 8
narrow_pointer:
    .long narrow_code
    .word {code}
    .text
    "#,
    code = const NARROW_CODE,
    options(att_syntax),
);

unsafe extern "C" {
    fn guest_narrow_call(words: *const [u64; 6]) -> u32;
}

/// What a call gave back: the negative result of one that was refused is an error.
pub type Reply = Result<u32, i32>;

/// Makes any hypercall with any words.
///
/// # Errors
/// The negative result of a refused call.
pub fn call(nr: u64, args: [u32; 5]) -> Reply {
    let [a, b, c, d, e] = args.map(u64::from);
    let words = [nr, a, b, c, d, e].map(|word| word | JUNK);
    // SAFETY: see the head of `crate::cpu`; the code keeps what a called function keeps.
    let result = unsafe { guest_narrow_call(&raw const words) };
    if result.cast_signed() < 0 {
        Err(result.cast_signed())
    } else {
        Ok(result)
    }
}

/// Makes a hypercall with a command and its argument.
///
/// # Errors
/// The negative result of a refused call.
pub fn command<T: ?Sized>(nr: u64, cmd: u64, argument: &mut T) -> Reply {
    call(nr, [word(cmd), at(argument), 0, 0, 0])
}

/// The address of a value of the runtime's.
pub fn at<T: ?Sized>(value: &mut T) -> u32 {
    word((&raw mut *value).cast::<u8>() as u64)
}

/// A number that fits into 32 bits.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn word(value: u64) -> u32 {
    let Ok(word) = u32::try_from(value) else {
        panic!("{value:#x} is no 32-bit value")
    };
    word
}

/// The reply of a call that is refused with `errno`.
pub const fn refused(errno: Errno) -> Reply {
    Err(-(errno as i32))
}
