//! The machine below the core: what boot gives to it, and what it gives to boot.
//!
//! Two sets of function pointers, each registered once, keep the imports downward: [`Platform`]
//! comes from boot before the core starts (console, the end of the run, device interrupts), and
//! [`Hooks`] goes from the core to boot's log, interrupt and panic paths. Before the core has
//! registered its hooks, and on the host in tests, every call has a harmless default.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use spin::Once;

/// The first vector of the sixteen ISA lines behind the IOAPIC.
pub const VECTOR_ISA: u8 = 0x20;
/// COM1, ISA line 4.
pub const VECTOR_COM1: u8 = VECTOR_ISA + 4;
/// The first vector of the devices behind no ISA line.
pub const VECTOR_DEVICES: u8 = VECTOR_ISA + 16;
/// The first vector behind those of devices.
pub const VECTOR_DEVICES_END: u8 = 0xf0;
/// The local APIC timer.
pub const VECTOR_TIMER: u8 = 0xf0;
/// A kick from another CPU: look at your queues again.
pub const VECTOR_WAKE: u8 = 0xf1;
/// The local APIC's spurious interrupt; the only one that wants no EOI.
pub const VECTOR_SPURIOUS: u8 = 0xff;

/// How a run of the hypervisor ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum End {
    /// Stop all CPUs and keep the machine on, for a look at what is left.
    Halt = 0,
    /// Start the machine again.
    Reboot = 1,
    /// Switch the machine off.
    Poweroff = 2,
}

impl End {
    /// The word for this end on the command line and in the last line of the serial log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Halt => "halt",
            Self::Reboot => "reboot",
            Self::Poweroff => "poweroff",
        }
    }

    /// The end that `name` stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Halt, Self::Reboot, Self::Poweroff]
            .into_iter()
            .find(|end| end.name() == name)
    }

    const fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Reboot,
            2 => Self::Poweroff,
            _ => Self::Halt,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What boot does for the core. All of it may be called on any CPU with interrupts off.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// Queues bytes for the serial console; waits only when its buffer is full.
    pub console_write: fn(&[u8]),
    /// Takes the next byte that came in on the serial console.
    pub console_read: fn() -> Option<u8>,
    /// Waits until everything written has left the machine.
    pub console_flush: fn(),
    /// Serves an interrupt of a device (`VECTOR_ISA..VECTOR_DEVICES_END`), without the EOI. Called
    /// where no lock is held.
    pub device_interrupt: fn(u8),
    /// Tells the local APIC that the interrupt in service is done.
    pub end_of_interrupt: fn(),
    /// Takes the host's NMI path: for a VM exit that an NMI caused. Returns with NMIs open again.
    pub nmi: fn(),
    /// Takes the host's machine check path: for a VM exit that a machine check caused.
    pub machine_check: fn(),
    /// Ends the run for the reason given: see [`end`].
    pub end: fn(End, fmt::Arguments<'_>) -> !,
}

/// What the core does for boot.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// Serves the vectors that are no device's, without the EOI.
    pub interrupt: fn(u8),
    /// Shows one line of the log (with its line end) wherever the console's focus wants it.
    pub log_line: fn(&str),
    /// Adds the core's lines to a panic epitaph: domain, vCPU, last exit of this CPU.
    /// Must not panic, lock without trying, or allocate.
    pub epitaph: fn(&mut dyn fmt::Write),
}

static PLATFORM: Once<Platform> = Once::new();
static HOOKS: Once<Hooks> = Once::new();
static PANIC_END: AtomicU8 = AtomicU8::new(End::Halt as u8);

/// Registers the machine; the first call counts.
pub fn register(platform: Platform) {
    PLATFORM.call_once(|| platform);
}

/// Registers the core's hooks; the first call counts.
pub fn set_hooks(hooks: Hooks) {
    HOOKS.call_once(|| hooks);
}

/// The core's hooks, once they are registered.
#[must_use]
pub fn hooks() -> Option<&'static Hooks> {
    HOOKS.get()
}

/// Queues bytes for the serial console.
pub fn console_write(bytes: &[u8]) {
    if let Some(platform) = PLATFORM.get() {
        (platform.console_write)(bytes);
    }
}

/// Takes the next byte that came in on the serial console.
#[must_use]
pub fn console_read() -> Option<u8> {
    PLATFORM
        .get()
        .and_then(|platform| (platform.console_read)())
}

/// Waits until everything written to the console has left the machine.
pub fn console_flush() {
    if let Some(platform) = PLATFORM.get() {
        (platform.console_flush)();
    }
}

/// Serves one host interrupt, whether it came through the IDT (in the idle loop) or was
/// acknowledged by a VM exit. Called with interrupts off.
pub fn interrupt(vector: u8) {
    let Some(platform) = PLATFORM.get() else {
        return;
    };
    match vector {
        VECTOR_SPURIOUS => return,
        VECTOR_ISA..VECTOR_DEVICES_END => (platform.device_interrupt)(vector),
        _ => {
            if let Some(hooks) = HOOKS.get() {
                (hooks.interrupt)(vector);
            }
        }
    }
    (platform.end_of_interrupt)();
}

/// Serves an NMI that came as a VM exit.
pub fn nmi() {
    if let Some(platform) = PLATFORM.get() {
        (platform.nmi)();
    }
}

/// Serves a machine check that came as a VM exit; does not return on bare metal.
pub fn machine_check() {
    if let Some(platform) = PLATFORM.get() {
        (platform.machine_check)();
    }
}

/// Ends the run: drains the console, prints `tessera: end: <end> (<reason>)` as the last line,
/// stops the other CPUs and does what `end` says, falling back to a halt.
#[expect(
    clippy::panic,
    reason = "without a machine there is nothing to end but the caller"
)]
pub fn end(end: End, reason: fmt::Arguments<'_>) -> ! {
    match PLATFORM.get() {
        Some(platform) => (platform.end)(end, reason),
        None => panic!("end: {end} ({reason})"),
    }
}

/// Sets what follows a panic's epitaph.
pub fn set_panic_end(end: End) {
    PANIC_END.store(end as u8, Ordering::Relaxed);
}

/// What follows a panic's epitaph.
#[must_use]
pub fn panic_end() -> End {
    End::from_raw(PANIC_END.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_names_both_ways() {
        for end in [End::Halt, End::Reboot, End::Poweroff] {
            assert_eq!(End::from_name(end.name()), Some(end));
            assert_eq!(End::from_raw(end as u8), end);
        }
        assert_eq!(End::from_name("explode"), None);
    }

    #[test]
    fn without_a_machine_the_console_is_silent() {
        console_write(b"lost");
        assert_eq!(console_read(), None);
        interrupt(VECTOR_TIMER);
    }
}
