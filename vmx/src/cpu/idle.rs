//! Waiting. Host code runs with interrupts off; these are the only places that open them.
#![expect(unsafe_code, reason = "STI, HLT, CLI")]

use core::arch::asm;

/// Halts until an interrupt comes, takes it, and returns with interrupts off.
///
/// STI takes effect after the next instruction, so an interrupt that is already pending ends the
/// HLT instead of arriving before it.
#[inline]
pub fn wait_for_interrupt() {
    // SAFETY: the handlers that run in between keep all registers; memory is a clobber.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// Takes the interrupts that are pending, and returns with interrupts off.
///
/// For between steps of long work, and for CPUs without "acknowledge interrupt on exit": there the
/// interrupt that caused a VM exit is still pending after it. The model of a CPU in a process takes
/// none.
#[inline]
pub fn interrupt_window() {
    #[cfg(not(any(test, feature = "model")))]
    // SAFETY: as for `wait_for_interrupt`.
    unsafe {
        asm!("sti", "nop", "cli")
    };
}

/// Halts for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: stops this CPU until an NMI, again and again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Tells the CPU that this is a spin loop.
#[inline]
pub fn relax() {
    core::hint::spin_loop();
}
