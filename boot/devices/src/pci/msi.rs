//! Interrupts that a function writes to memory. PCI Local Bus Specification 3.0, "MSI Capability
//! Structure" and "MSI-X Capability and Table Structures"; SDM 3A, "Message Signalled
//! Interrupts".

use super::{Address, Config, Function};
use crate::Registers;

const STATUS: u8 = 6;
const HAS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES: u8 = 0x34;
const MSI: u8 = 5;
const MSI_X: u8 = 0x11;
/// No list in 256 bytes is longer.
const MOST_CAPABILITIES: usize = 48;

const ENABLE: u32 = 1 << 16;
const WIDE: u32 = 1 << 23;
/// How many messages the function may use, as a power of two.
const MULTIPLE: u32 = 0b111 << 20;
const X_ENABLE: u32 = 1 << 31;
const X_MASKED: u32 = 1 << 30;
const X_ENTRY: usize = 16;

/// A message: what is written where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The address, which names a CPU.
    pub address: u32,
    /// The data, which names the vector.
    pub data: u32,
}

impl Message {
    /// A message that brings a CPU with this local APIC this vector; `None` for a CPU that takes
    /// more than eight bits to name.
    #[must_use]
    pub fn new(apic_id: u32, vector: u8) -> Option<Self> {
        let destination = u8::try_from(apic_id).ok().filter(|id| *id != 0xff)?;
        Some(Self {
            address: 0xfee0_0000 | u32::from(destination) << 12,
            data: vector.into(),
        })
    }
}

/// Where a function's messages are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Msi {
    /// In configuration space.
    Plain {
        /// The capability's place there.
        at: u8,
    },
    /// In a table in memory.
    Table {
        /// The capability's place in configuration space.
        at: u8,
        /// The base address register of the table.
        bar: u8,
        /// The table's place there.
        offset: u32,
        /// Its entries.
        entries: u16,
    },
}

/// How a function interrupts by messages: by a table if it can.
#[must_use]
pub fn find(config: &impl Config, function: &Function) -> Option<Msi> {
    let address = function.address;
    let table = capability(config, address, MSI_X).map(|at| {
        let control = config.read16(address, at.saturating_add(2));
        let place = config.read32(address, at.saturating_add(4));
        Msi::Table {
            at,
            bar: (place & 7) as u8,
            offset: place & !7,
            entries: (control & 0x7ff).saturating_add(1),
        }
    });
    table.or_else(|| capability(config, address, MSI).map(|at| Msi::Plain { at }))
}

/// Has a function send `message`, and no other, from now on, in place of its interrupt line.
/// `at` is where [`find`] found the capability.
pub fn send(config: &impl Config, function: &Function, at: u8, message: Message) {
    let address = function.address;
    let control = config.read32(address, at) & !(ENABLE | MULTIPLE);
    config.write32(address, at, control);
    config.write32(address, at.saturating_add(4), message.address);
    let data = if control & WIDE != 0 {
        config.write32(address, at.saturating_add(8), 0);
        12
    } else {
        8
    };
    config.write32(address, at.saturating_add(data), message.data);
    config.write32(address, at, control | ENABLE);
}

/// Sets an entry of the table of messages, which lies in `table` from its beginning on.
pub fn set_entry(table: &impl Registers, entry: u16, message: Message) {
    let at = usize::from(entry).saturating_mul(X_ENTRY);
    // Masked as long as it is half written.
    table.write32(at.saturating_add(12), 1);
    table.write32(at, message.address);
    table.write32(at.saturating_add(4), 0);
    table.write32(at.saturating_add(8), message.data);
    table.write32(at.saturating_add(12), 0);
}

/// Has a function send the messages of its table from now on, in place of its interrupt line.
pub fn send_table(config: &impl Config, function: &Function, at: u8) {
    let control = config.read32(function.address, at) & !X_MASKED;
    config.write32(function.address, at, control | X_ENABLE);
}

/// Ends a function's messages, as firmware may have left them on.
pub fn silence(config: &impl Config, function: &Function) {
    let address = function.address;
    for (kind, enable) in [(MSI, ENABLE), (MSI_X, X_ENABLE)] {
        if let Some(at) = capability(config, address, kind) {
            let control = config.read32(address, at);
            if control & enable != 0 {
                config.write32(address, at, control & !enable);
            }
        }
    }
}

/// The place of a function's capability of a kind.
fn capability(config: &impl Config, function: Address, kind: u8) -> Option<u8> {
    if config.read16(function, STATUS) & HAS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = config.read8(function, CAPABILITIES) & !3;
    for _ in 0..MOST_CAPABILITIES {
        if at < 0x40 {
            return None;
        }
        let [found, next, ..] = config.read32(function, at).to_le_bytes();
        if found == kind {
            // The longest of them has 24 bytes.
            return (at <= 0xe8).then_some(at);
        }
        at = next & !3;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::super::{Address, Config as _, Function};
    use super::{Message, Msi, find, send, send_table, set_entry, silence};
    use crate::testing::FakeRegisters;

    const AT: Address = Address {
        segment: 0,
        bus: 0,
        device: 4,
        function: 0,
    };

    fn function(model: &Model, list: &[(u8, u32)]) -> Function {
        model.add(AT, 0x0010_1b36, 0x0108_0200);
        model.write32(AT, 4, 0x0010_0000);
        model.write32(AT, 0x34, list.first().map_or(0, |(at, _)| (*at).into()));
        for (at, word) in list {
            model.write32(AT, *at, *word);
        }
        Function::read(model, AT).unwrap()
    }

    #[test]
    fn a_table_is_preferred() {
        let model = Model::new();
        let there = function(
            &model,
            &[(0x40, 0x0080_5005), (0x50, 0x0040_6011), (0x54, 0x2004)],
        );
        let table = Msi::Table {
            at: 0x50,
            bar: 4,
            offset: 0x2000,
            entries: 65,
        };
        assert_eq!(find(&model, &there), Some(table));
        send_table(&model, &there, 0x50);
        assert_eq!(model.read32(AT, 0x50), 0x8040_6011);
        silence(&model, &there);
        assert_eq!(model.read32(AT, 0x50), 0x0040_6011);
        let registers = FakeRegisters::new(64);
        let message = Message::new(3, 0x31).unwrap();
        set_entry(&registers, 1, message);
        let words = [16, 20, 24, 28].map(|at| registers.word(at));
        assert_eq!(words, [0xfee0_3000, 0, 0x31, 0]);
    }

    #[test]
    fn messages_are_set_in_both_layouts() {
        for (control, data_at) in [(0x0080_0005, 0x4c), (0x000a_0005, 0x48)] {
            let model = Model::new();
            let there = function(&model, &[(0x40, control)]);
            assert_eq!(find(&model, &there), Some(Msi::Plain { at: 0x40 }));
            send(&model, &there, 0x40, Message::new(1, 0x42).unwrap());
            assert_eq!(model.read32(AT, 0x44), 0xfee0_1000);
            assert_eq!(model.read32(AT, data_at), 0x42);
            assert_eq!(model.read32(AT, 0x40) & 0x71_0000, 0x01_0000);
        }
        assert_eq!(Message::new(0xff, 0x42), None);
        assert_eq!(Message::new(0x100, 0x42), None);
    }

    #[test]
    fn a_list_that_leads_in_circles_ends() {
        let model = Model::new();
        let there = function(&model, &[(0x40, 0x4409), (0x44, 0x4009)]);
        assert_eq!(find(&model, &there), None);
        model.write32(AT, 4, 0);
        assert_eq!(find(&model, &there), None);
    }
}
