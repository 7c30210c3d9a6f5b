//! Copies of memory that may change under our hands: a peer's page, a guest's RAM.
//!
//! They are done in assembly, so the compiler takes nothing for granted about what is read. Each
//! byte that arrives was there at some time during the copy; none is looked at again.
#![expect(unsafe_code, reason = "copies and zeroes memory that others write")]

use core::arch::asm;

/// Up to so many bytes go word by word, which a CPU does at once; it takes a while to begin a
/// string instruction.
const MOST_WORDS: usize = 64;

/// Copies `len` bytes.
///
/// # Safety
/// 1. `source` is valid for reads and `target` for writes of `len` bytes.
/// 2. If the ranges overlap, neither is Rust memory; the bytes there are then some of both.
#[inline(always)]
pub unsafe fn copy(target: *mut u8, source: *const u8, len: usize) {
    match len {
        // What many arguments have.
        // SAFETY: exactly the bytes of the caller's promise.
        4 => unsafe { copy_4(target, source) },
        // SAFETY: as before.
        8 => unsafe { copy_8(target, source) },
        // SAFETY: the caller's promise, for more than eight bytes.
        9..=MOST_WORDS => unsafe { copy_words(target, source, len) },
        // SAFETY: the caller's promise.
        _ => unsafe { copy_run(target, source, len) },
    }
}

/// # Safety
/// As for [`copy`], of four bytes.
#[inline(always)]
unsafe fn copy_4(target: *mut u8, source: *const u8) {
    // SAFETY: reads and writes four bytes by the caller's promise.
    unsafe {
        asm!(
            "mov {word:e}, [{source}]",
            "mov [{target}], {word:e}",
            word = out(reg) _,
            source = in(reg) source,
            target = in(reg) target,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As for [`copy`], of eight bytes.
#[inline(always)]
unsafe fn copy_8(target: *mut u8, source: *const u8) {
    // SAFETY: reads and writes eight bytes by the caller's promise.
    unsafe {
        asm!(
            "mov {word}, [{source}]",
            "mov [{target}], {word}",
            word = out(reg) _,
            source = in(reg) source,
            target = in(reg) target,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As for [`copy`], of more than eight bytes.
#[inline(always)]
unsafe fn copy_words(target: *mut u8, source: *const u8, len: usize) {
    // SAFETY: the words begin at offsets below `len - 8`, and the last one there; so they are the
    // bytes of the caller's promise, some of them twice.
    unsafe {
        asm!(
            "2:",
            "mov {word}, [{source} + {at}]",
            "mov [{target} + {at}], {word}",
            "add {at}, 8",
            "cmp {at}, {last}",
            "jb 2b",
            "mov {word}, [{source} + {last}]",
            "mov [{target} + {last}], {word}",
            word = out(reg) _,
            source = in(reg) source,
            target = in(reg) target,
            at = inout(reg) 0_usize => _,
            last = in(reg) len - 8,
            options(nostack),
        );
    }
}

/// # Safety
/// As for [`copy`].
#[inline(always)]
unsafe fn copy_run(target: *mut u8, source: *const u8, len: usize) {
    // SAFETY: words and rest together are the bytes of the caller's promise; the direction flag
    // is clear on entry to an asm block.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) len & 7,
            inout("rcx") len >> 3 => _,
            inout("rdi") target => _,
            inout("rsi") source => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Zeroes `len` bytes.
///
/// # Safety
/// `target` is valid for writes of `len` bytes that are no Rust memory.
#[inline]
pub unsafe fn zero(target: *mut u8, len: usize) {
    // SAFETY: as in `copy_run`.
    unsafe {
        asm!(
            "rep stosq",
            "mov ecx, {rest:e}",
            "rep stosb",
            rest = in(reg) len & 7,
            in("rax") 0,
            inout("rcx") len >> 3 => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags),
        );
    }
}
