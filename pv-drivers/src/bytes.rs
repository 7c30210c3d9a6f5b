//! Copies of memory that may change under our hands: a peer's page, a guest's RAM.
//!
//! They are done in assembly, so the compiler takes nothing for granted about what is read. Each
//! byte that arrives was there at some time during the copy; none is looked at again.
#![expect(unsafe_code, reason = "copies and zeroes memory that others write")]

use core::arch::asm;

/// Copies `len` bytes.
///
/// # Safety
/// 1. `source` is valid for reads and `target` for writes of `len` bytes.
/// 2. If the ranges overlap, neither is Rust memory; the bytes there are then some of both.
#[inline(always)]
pub unsafe fn copy(target: *mut u8, source: *const u8, len: usize) {
    // Some words from the beginning and as many up to the end, which may be the same ones: it takes a
    // CPU a while to begin a string instruction.
    match len {
        // What many arguments have.
        // SAFETY: exactly the bytes of the caller's promise.
        4 => unsafe { copy_4(target, source) },
        // SAFETY: as before.
        8 => unsafe { copy_8(target, source) },
        // SAFETY: the caller's promise, with the last eight bytes from there on.
        9..=16 => unsafe { copy_2_words(target, source, len - 8) },
        // SAFETY: the same of 16.
        17..=32 => unsafe { copy_4_words(target, source, len - 16) },
        // SAFETY: the same of 32.
        33..=64 => unsafe { copy_8_words(target, source, len - 32) },
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

/// Copies 8 bytes, and as many from `last` on.
///
/// # Safety
/// As for [`copy`], of the bytes up to the end of the last ones.
#[inline(always)]
unsafe fn copy_2_words(target: *mut u8, source: *const u8, last: usize) {
    // SAFETY: reads and writes the bytes of the caller's promise, some of them twice.
    unsafe {
        asm!(
            "mov {a}, [{source}]",
            "mov {b}, [{source} + {last}]",
            "mov [{target}], {a}",
            "mov [{target} + {last}], {b}",
            a = out(reg) _,
            b = out(reg) _,
            source = in(reg) source,
            target = in(reg) target,
            last = in(reg) last,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies 16 bytes, and as many from `last` on.
///
/// # Safety
/// As for [`copy`], of the bytes up to the end of the last ones.
#[inline(always)]
unsafe fn copy_4_words(target: *mut u8, source: *const u8, last: usize) {
    // SAFETY: reads and writes the bytes of the caller's promise, some of them twice.
    unsafe {
        asm!(
            "mov {a}, [{source}]",
            "mov {b}, [{source} + 8]",
            "mov [{target}], {a}",
            "mov [{target} + 8], {b}",
            "mov {a}, [{source} + {last}]",
            "mov {b}, [{source} + {last} + 8]",
            "mov [{target} + {last}], {a}",
            "mov [{target} + {last} + 8], {b}",
            a = out(reg) _,
            b = out(reg) _,
            source = in(reg) source,
            target = in(reg) target,
            last = in(reg) last,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies 32 bytes, and as many from `last` on.
///
/// # Safety
/// As for [`copy`], of the bytes up to the end of the last ones.
#[inline(always)]
unsafe fn copy_8_words(target: *mut u8, source: *const u8, last: usize) {
    // SAFETY: reads and writes the bytes of the caller's promise, some of them twice.
    unsafe {
        asm!(
            "mov {a}, [{source}]",
            "mov {b}, [{source} + 8]",
            "mov [{target}], {a}",
            "mov [{target} + 8], {b}",
            "mov {a}, [{source} + 16]",
            "mov {b}, [{source} + 24]",
            "mov [{target} + 16], {a}",
            "mov [{target} + 24], {b}",
            "mov {a}, [{source} + {last}]",
            "mov {b}, [{source} + {last} + 8]",
            "mov [{target} + {last}], {a}",
            "mov [{target} + {last} + 8], {b}",
            "mov {a}, [{source} + {last} + 16]",
            "mov {b}, [{source} + {last} + 24]",
            "mov [{target} + {last} + 16], {a}",
            "mov [{target} + {last} + 24], {b}",
            a = out(reg) _,
            b = out(reg) _,
            source = in(reg) source,
            target = in(reg) target,
            last = in(reg) last,
            options(nostack, preserves_flags),
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
