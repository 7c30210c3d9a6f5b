//! Where a function's registers are.

use super::{Address, Command, Config, Function};

const FIRST: u8 = 0x10;
/// Base address registers of an ordinary function.
const COUNT: u8 = 6;
const IO: u32 = 1;
const WIDE: u32 = 0b100;

/// A range that a function answers in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    /// I/O ports.
    Ports {
        /// The first.
        first: u16,
        /// How many.
        count: u16,
    },
    /// Physical memory.
    Memory {
        /// The first byte.
        start: u64,
        /// How many.
        size: u64,
    },
}

/// What a base address register says, by its number; `None` when it says nothing, or the second
/// half of what the one before it says. The function answers nowhere for a moment.
#[must_use]
pub fn bar(config: &impl Config, function: &Function, number: u8) -> Option<Bar> {
    if number >= COUNT || function.layout != 0 {
        return None;
    }
    let at = register(number)?;
    let before = function.command(config);
    let answers = Command::IO.and(Command::MEMORY);
    function.set_command(config, Command(0), answers);
    let found = read(config, function.address, number, at);
    function.set_command(config, Command(before.0 & answers.0), Command(0));
    found
}

const fn register(number: u8) -> Option<u8> {
    let Some(offset) = number.checked_mul(4) else {
        return None;
    };
    FIRST.checked_add(offset)
}

fn read(config: &impl Config, function: Address, number: u8, at: u8) -> Option<Bar> {
    let (low, low_mask) = probe(config, function, at);
    if low & IO != 0 {
        let mask = u16::try_from(low_mask & 0xfffc).ok()?;
        let count = (!mask).checked_add(1)?;
        let first = u16::try_from(low & 0xfffc).ok()?;
        return (first != 0 && first.checked_add(count.checked_sub(1)?).is_some())
            .then_some(Bar::Ports { first, count });
    }
    let (mut start, mut mask) = (u64::from(low & !0xf), u64::from(low_mask & !0xf));
    if low & 0b110 == WIDE {
        let next = number.checked_add(1).filter(|next| *next < COUNT)?;
        let (high, high_mask) = probe(config, function, register(next)?);
        start |= u64::from(high) << 32;
        mask |= u64::from(high_mask) << 32;
    } else if mask != 0 {
        mask |= !0 << 32;
    }
    if start == 0 || mask == 0 {
        return None;
    }
    let size = (!mask).checked_add(1)?;
    start.checked_add(size)?;
    (size.is_power_of_two()).then_some(Bar::Memory { start, size })
}

/// A register's value, and the bits of it that can be set.
fn probe(config: &impl Config, function: Address, at: u8) -> (u32, u32) {
    let value = config.read32(function, at);
    config.write32(function, at, !0);
    let mask = config.read32(function, at);
    config.write32(function, at, value);
    (value, mask)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::super::{Address, Command, Config as _, Function};
    use super::{Bar, bar};

    const AT: Address = Address {
        segment: 0,
        bus: 0,
        device: 3,
        function: 0,
    };

    #[test]
    fn ranges_have_the_size_of_their_mask() {
        let model = Model::new();
        model.add(AT, 0x100e_8086, 0x0200_0003);
        let function = Function::read(&model, AT).unwrap();
        model.bar(AT, 0, 0xfebc_0000, !0x1_ffff);
        model.bar(AT, 1, 0xc001, 0xffff_ffc1);
        model.bar(AT, 2, 0x0000_000c, 0xffff_c00c);
        model.bar(AT, 3, 0x0000_0080, !0);
        // A processor that hard-wires the upper half of a port register.
        model.bar(AT, 4, 0xc0a1, 0xfff1);
        model.write32(AT, 4, 7);
        let bars: std::vec::Vec<_> = (0..7).map(|at| bar(&model, &function, at)).collect();
        let memory = |start, size| Some(Bar::Memory { start, size });
        let ports = |first, count| Some(Bar::Ports { first, count });
        assert_eq!(bars[0], memory(0xfebc_0000, 0x2_0000));
        assert_eq!(bars[1], ports(0xc000, 64));
        assert_eq!(bars[2], memory(0x80_0000_0000, 0x4000));
        assert_eq!(bars[4], ports(0xc0a0, 16));
        assert_eq!((bars[5], bars[6]), (None, None));
        // All is as it was.
        assert_eq!(function.command(&model), Command(7));
        assert_eq!(model.read32(AT, 0x10), 0xfebc_0000);
    }

    #[test]
    fn nonsense_is_nothing() {
        let model = Model::new();
        model.add(AT, 0x100e_8086, 0x0200_0003);
        let function = Function::read(&model, AT).unwrap();
        // Not assigned; no bit can be set; holes in the mask; the second half is missing.
        model.bar(AT, 0, 0, !0xfff);
        model.bar(AT, 1, 0x1000, 0);
        model.bar(AT, 2, 0xfeb0_0000, 0xf0f0_0000);
        model.bar(AT, 5, 0xfeb0_0004, !0xfff | 4);
        for number in 0..6 {
            assert_eq!(bar(&model, &function, number), None, "{number}");
        }
    }
}
