//! The time-stamp counter.
#![expect(unsafe_code, reason = "RDTSC")]

use core::arch::asm;

/// Reads the time-stamp counter. Not ordered against other instructions.
#[inline]
#[must_use]
pub fn rdtsc() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a counter.
    unsafe {
        asm!(
            "rdtsc",
            out("rax") low,
            out("rdx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    high << 32 | low
}

/// A TSC value to be woken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TscDeadline(pub u64);
