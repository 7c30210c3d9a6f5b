//! Interrupts of devices: which vector leads to which driver.
//!
//! All of them go to the boot CPU. In root mode they come only where no lock is held, so a handler
//! may do all that the core may do.

use boot::madt::Madt;
use devices::pci::Command;
use devices::pci::msi::{self, Message, Msi};
use heapless::Vec;
use spin::RwLock;
use vmm_core::platform::{VECTOR_DEVICES, VECTOR_DEVICES_END, VECTOR_ISA};

use super::Owned;
use crate::machine::ioapic;

/// Drivers behind all vectors together.
const MAX_HANDLERS: usize = 64;

/// Something that serves a device's interrupt.
pub(super) trait Handler: Sync {
    /// The device has interrupted, or another one on the same line.
    fn interrupt(&self);
}

type Entry = (u8, &'static dyn Handler);

static HANDLERS: RwLock<Vec<Entry, MAX_HANDLERS>> = RwLock::new(Vec::new());

/// Where interrupts are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines<'a> {
    madt: Option<&'a Madt>,
    /// The local APIC of the CPU that takes them.
    apic_id: u32,
}

/// Serves an interrupt: every driver behind its vector looks.
pub(crate) fn serve(vector: u8) {
    let mut at = 0;
    loop {
        // The lock is not held while a driver works.
        let next = {
            let handlers = HANDLERS.read();
            let rest = handlers.iter().enumerate().skip(at);
            rest.filter(|(_, (of, _))| *of == vector)
                .map(|(index, (_, handler))| (index, *handler))
                .next()
        };
        let Some((index, handler)) = next else {
            return;
        };
        handler.interrupt();
        at = index + 1;
    }
}

fn add(vector: u8, handler: &'static dyn Handler) -> bool {
    HANDLERS.write().push((vector, handler)).is_ok()
}

/// A vector that nobody has.
fn free_vector() -> Option<u8> {
    let handlers = HANDLERS.read();
    (VECTOR_DEVICES..VECTOR_DEVICES_END).find(|vector| handlers.iter().all(|(of, _)| of != vector))
}

impl<'a> Lines<'a> {
    pub(crate) const fn new(madt: Option<&'a Madt>, apic_id: u32) -> Self {
        Self { madt, apic_id }
    }

    /// Sends an ISA line, which an ISA device drives, to the CPU. False when that cannot be.
    pub(crate) fn isa(&self, line: u8) -> bool {
        let Some(madt) = self.madt else {
            return false;
        };
        ioapic::isa_line(madt, line)
            .is_some_and(|wiring| ioapic::route(madt, wiring, VECTOR_ISA + line, self.apic_id))
    }

    /// Has a driver serve an ISA line.
    pub(super) fn serve_isa(&self, line: u8, handler: &'static dyn Handler) -> bool {
        add(VECTOR_ISA + line, handler) && self.isa(line)
    }

    /// The same of a line that PCI functions share.
    fn serve_shared(&self, line: u8, handler: &'static dyn Handler) -> bool {
        let Some(madt) = self.madt else {
            return false;
        };
        add(VECTOR_ISA + line, handler)
            && ioapic::pci_line(madt, line)
                .is_some_and(|wiring| ioapic::route(madt, wiring, VECTOR_ISA + line, self.apic_id))
    }
}

impl Owned<'_> {
    /// Has the driver serve the function's interrupt: a message if it can send one, else its line.
    /// False when none will come, so that the driver has to look by itself.
    pub(super) fn serve_interrupt(&self, handler: &'static dyn Handler) -> bool {
        self.send_message(handler) || self.use_line(handler)
    }

    fn send_message(&self, handler: &'static dyn Handler) -> bool {
        let config = &self.machine.config;
        let Some(found) = msi::find(config, &self.function) else {
            return false;
        };
        let Some(vector) = free_vector() else {
            return false;
        };
        let Some(message) = Message::new(self.machine.lines.apic_id, vector) else {
            return false;
        };
        let set = match found {
            Msi::Plain { at } => {
                msi::send(config, &self.function, at, message);
                true
            }
            Msi::Table {
                at, bar, offset, ..
            } => {
                let table = self
                    .registers(bar)
                    .and_then(|registers| registers.part(offset as usize, 16));
                if let Some(table) = &table {
                    msi::set_entry(table, 0, message);
                    msi::send_table(config, &self.function, at);
                }
                table.is_some()
            }
        };
        set && add(vector, handler)
    }

    fn use_line(&self, handler: &'static dyn Handler) -> bool {
        let config = &self.machine.config;
        let Some(line) = self.function.interrupt_line(config) else {
            return false;
        };
        self.function
            .set_command(config, Command(0), Command::NO_LINE);
        self.machine.lines.serve_shared(line, handler)
    }
}
