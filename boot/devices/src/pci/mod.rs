//! PCI: functions, their registers and their interrupts. PCI Local Bus Specification 3.0.
//!
//! [`scan()`] walks the buses, [`Function`] is what it finds. [`Bar`] says where a function's registers
//! are, [`msi`] how it interrupts without a line.

mod bar;
mod function;
pub mod msi;
mod scan;
#[cfg(test)]
pub(crate) mod testing;

use core::fmt;

pub use bar::{Bar, bar};
pub use function::{Command, Function};
pub use scan::scan;

/// Where a function is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// The segment; 0 on a machine with one.
    pub segment: u16,
    /// The bus.
    pub bus: u8,
    /// The device on it, below 32.
    pub device: u8,
    /// The function of the device, below 8.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            bus,
            device,
            function,
        } = self;
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// Access to configuration space. Reads where nothing is give all ones.
pub trait Config {
    /// Reads 32 bits; `at` is a multiple of 4.
    fn read32(&self, function: Address, at: u8) -> u32;
    /// Writes 32 bits; `at` is a multiple of 4.
    fn write32(&self, function: Address, at: u8, value: u32);

    /// Reads 16 bits; `at` is even.
    fn read16(&self, function: Address, at: u8) -> u16 {
        let word = self.read32(function, at & !3);
        let [a, b, c, d] = word.to_le_bytes();
        u16::from_le_bytes(if at & 2 == 0 { [a, b] } else { [c, d] })
    }

    /// Reads a byte.
    fn read8(&self, function: Address, at: u8) -> u8 {
        let bytes = self.read32(function, at & !3).to_le_bytes();
        bytes.get(usize::from(at & 3)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Model;
    use super::{Address, Config as _};

    const AT: Address = Address {
        segment: 0,
        bus: 0,
        device: 1,
        function: 1,
    };

    #[test]
    fn parts_of_a_word_are_where_they_belong() {
        let model = Model::new();
        model.add(AT, 0x7010_8086, 0x0101_8000);
        assert_eq!(model.read16(AT, 0), 0x8086);
        assert_eq!(model.read16(AT, 2), 0x7010);
        assert_eq!(model.read8(AT, 11), 1);
        assert_eq!(std::format!("{AT}"), "0000:00:01.1");
    }
}
