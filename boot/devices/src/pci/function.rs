//! What a function says of itself.

use super::{Address, Config};

const ID: u8 = 0;
const COMMAND: u8 = 4;
const CLASS: u8 = 8;
const HEADER: u8 = 12;
const SECONDARY_BUS: u8 = 0x19;
const INTERRUPT: u8 = 0x3c;

/// Bits of the command register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command(pub u16);

impl Command {
    /// Answers on its I/O ports.
    pub const IO: Self = Self(1 << 0);
    /// Answers in memory.
    pub const MEMORY: Self = Self(1 << 1);
    /// Reads and writes memory by itself.
    pub const BUS_MASTER: Self = Self(1 << 2);
    /// Leaves its interrupt line alone.
    pub const NO_LINE: Self = Self(1 << 10);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A function that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Where.
    pub address: Address,
    /// Its maker.
    pub vendor: u16,
    /// The maker's number for it.
    pub device: u16,
    /// What it is.
    pub class: u8,
    /// Of which kind.
    pub subclass: u8,
    /// Its register interface.
    pub interface: u8,
    /// The layout of its header: 0, or 1 for a bridge to another bus.
    pub layout: u8,
    /// Others are at the same device.
    pub(super) many: bool,
}

impl Function {
    /// Looks what is there.
    #[must_use]
    pub fn read(config: &impl Config, address: Address) -> Option<Self> {
        let vendor = config.read16(address, ID);
        if vendor == 0xffff || vendor == 0 {
            return None;
        }
        let [_, interface, subclass, class] = config.read32(address, CLASS).to_le_bytes();
        let [_, _, header, _] = config.read32(address, HEADER).to_le_bytes();
        Some(Self {
            address,
            vendor,
            device: config.read16(address, ID | 2),
            class,
            subclass,
            interface,
            layout: header & 0x7f,
            many: header & 0x80 != 0,
        })
    }

    /// True for what stands between the processor and devices, or buses: it forwards others'
    /// accesses.
    #[must_use]
    pub const fn is_bridge(&self) -> bool {
        self.class == 6
    }

    /// The bus behind a bridge.
    #[must_use]
    pub fn bus_behind(&self, config: &impl Config) -> Option<u8> {
        let behind = config.read8(self.address, SECONDARY_BUS);
        (self.layout == 1 && behind != 0).then_some(behind)
    }

    /// The command register.
    #[must_use]
    pub fn command(&self, config: &impl Config) -> Command {
        Command(config.read16(self.address, COMMAND))
    }

    /// Sets the command register to what it is without `off` and with `on`.
    pub fn set_command(&self, config: &impl Config, on: Command, off: Command) {
        let command = self.command(config).0 & !off.0 | on.0;
        // The upper half is the status, whose bits stay as they are when zeros are written.
        config.write32(self.address, COMMAND, command.into());
    }

    /// The interrupt line that firmware noted: the input of the old interrupt controllers that its
    /// pin leads to. `None` when it has no pin or the line is not known.
    #[must_use]
    pub fn interrupt_line(&self, config: &impl Config) -> Option<u8> {
        let [line, pin, ..] = config.read32(self.address, INTERRUPT).to_le_bytes();
        ((1..=4).contains(&pin) && line < 16).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::super::{Address, Config as _};
    use super::{Command, Function};

    const AT: Address = Address {
        segment: 0,
        bus: 0,
        device: 3,
        function: 0,
    };

    #[test]
    fn a_function_tells_what_it_is() {
        let model = Model::new();
        assert_eq!(Function::read(&model, AT), None);
        model.add(AT, 0x100e_8086, 0x0200_0003);
        let found = Function::read(&model, AT).unwrap();
        assert_eq!((found.vendor, found.device), (0x8086, 0x100e));
        assert_eq!((found.class, found.subclass), (2, 0));
        assert!(!found.is_bridge() && found.bus_behind(&model).is_none());
        assert_eq!(found.interrupt_line(&model), None);
        model.write32(AT, 0x3c, 0x010b);
        assert_eq!(found.interrupt_line(&model), Some(11));
        model.write32(AT, 0x3c, 0x01ff);
        assert_eq!(found.interrupt_line(&model), None);
    }

    #[test]
    fn the_command_register_keeps_what_is_not_named() {
        let model = Model::new();
        model.add(AT, 0x100e_8086, 0x0200_0003);
        let function = Function::read(&model, AT).unwrap();
        model.write32(AT, 4, 0xffff_0105);
        function.set_command(&model, Command::MEMORY, Command::BUS_MASTER);
        assert_eq!(function.command(&model), Command(0x103));
        function.set_command(&model, Command::NO_LINE.and(Command::IO), Command(0));
        assert_eq!(function.command(&model), Command(0x503));
    }
}
