//! The end of a run: power off, reboot or halt, with one last line on the serial port.
//!
//! The line `tessera: end: poweroff|reboot|halt (reason)` is for programs that watch the port.
#![expect(unsafe_code, reason = "names ports; takes the serial port by force")]

use core::fmt::{self, Write};

use spin::Once;
use vmm_core::platform::End;

use crate::console::serial::{self, Epitaph};
use crate::cpu::control;
use crate::machine::power::Power;
use crate::panic;
use crate::port::Port;

// SAFETY: Bochs and QEMU's bochs-compatible shutdown port; nothing answers there on hardware.
const BOCHS_SHUTDOWN: Port = unsafe { Port::new(0x8900) };
// SAFETY: the reset control register of PC chipsets resets the machine or does nothing.
const RESET_CONTROL: Port = unsafe { Port::new(0xcf9) };
// SAFETY: the keyboard controller's command port; its reset pulse resets the machine.
const KEYBOARD_COMMAND: Port = unsafe { Port::new(0x64) };

/// Turns of the loop to wait after each attempt.
const PATIENCE: u32 = 1_000_000;

/// How this machine is switched off, from ACPI.
static POWER: Once<Power> = Once::new();
/// The port of QEMU's isa-debug-exit device, when the command line names one.
static EXIT_PORT: Once<Port> = Once::new();

/// Notes how the machine is switched off.
pub(crate) fn set_power(power: Power) {
    POWER.call_once(|| power);
}

/// Notes the port of an emulator's exit device. The value written there says which end it was:
/// 16 halt, 17 reboot, 18 poweroff (QEMU's exit status is twice that plus one).
pub(crate) fn set_exit_port(number: u16) {
    // SAFETY: whoever writes the command line answers for what is behind the port.
    let port = unsafe { Port::new(number) };
    EXIT_PORT.call_once(|| port);
}

/// Ends the run: stops the other CPUs, drains the console, prints the last line, and does it.
pub(crate) fn end(end: End, reason: fmt::Arguments<'_>) -> ! {
    panic::take_over();
    // SAFETY: the other CPUs are stopped, and this one does not return.
    let mut out = unsafe { serial::seize() };
    finish(&mut out, end, reason)
}

/// The last line and the end itself, once this CPU runs alone and has the port.
pub(crate) fn finish(out: &mut Epitaph, end: End, reason: fmt::Arguments<'_>) -> ! {
    // Nothing is left to do for a line that cannot be written.
    let _ = write!(out, "tessera: end: {end} ({reason})\r\n");
    out.flush();
    if let Some(port) = EXIT_PORT.get() {
        port.write8(0x10 + end as u8);
    }
    match end {
        End::Halt => {}
        End::Reboot => reboot(),
        End::Poweroff => poweroff(),
    }
    halt_forever()
}

/// Stops this CPU; only NMIs and machine checks still wake it, into the same halt.
pub(crate) fn halt_forever() -> ! {
    control::disable_interrupts();
    loop {
        // SAFETY: with interrupts off, HLT waits for ever.
        unsafe { core::arch::asm!("hlt", options(nomem, nostack)) };
    }
}

fn poweroff() {
    if let Some(power) = POWER.get() {
        power.soft_off();
        wait();
    }
    for byte in b"Shutdown" {
        BOCHS_SHUTDOWN.write8(*byte);
    }
    wait();
}

fn reboot() {
    if let Some(power) = POWER.get() {
        power.reset();
        wait();
    }
    RESET_CONTROL.write8(0x02);
    RESET_CONTROL.write8(0x06);
    wait();
    KEYBOARD_COMMAND.write8(0xfe);
    wait();
}

fn wait() {
    for _ in 0..PATIENCE {
        core::hint::spin_loop();
    }
}
