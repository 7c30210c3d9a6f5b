//! Walking the buses.

use super::{Address, Config, Function};

/// Hands every function of a segment to `found`: those of bus 0, of the buses that further host
/// bridges start, and of what is behind bridges, each bus once.
pub fn scan<C: Config>(config: &C, segment: u16, mut found: impl FnMut(&Function)) {
    let mut buses = Buses::default();
    buses.add(0);
    // The functions of a host bridge with many stand for a bus each.
    for function in functions(config, segment, 0, 0) {
        if function.is_bridge() && function.layout == 0 {
            buses.add(function.address.function);
        }
    }
    while let Some(bus) = buses.next() {
        for device in 0..32 {
            for function in functions(config, segment, bus, device) {
                found(&function);
                if let Some(behind) = function.bus_behind(config) {
                    buses.add(behind);
                }
            }
        }
    }
}

/// The functions of a device.
fn functions<C: Config>(
    config: &C,
    segment: u16,
    bus: u8,
    device: u8,
) -> impl Iterator<Item = Function> {
    let at = move |function| Address {
        segment,
        bus,
        device,
        function,
    };
    let first = Function::read(config, at(0));
    let more = first.is_some_and(|function| function.many);
    let others = (1..8).filter(move |_| more);
    first
        .into_iter()
        .chain(others.filter_map(move |function| Function::read(config, at(function))))
}

/// Buses seen, and of these the ones to walk. Whatever bridges claim, each comes once.
#[derive(Default)]
struct Buses {
    seen: [u64; 4],
    walked: [u64; 4],
}

impl Buses {
    fn add(&mut self, bus: u8) {
        let [word, bit] = place(bus);
        if let Some(seen) = self.seen.get_mut(word) {
            *seen |= 1u64.checked_shl(low32(bit)).unwrap_or(0);
        }
    }

    fn next(&mut self) -> Option<u8> {
        for (index, (seen, walked)) in self.seen.iter().zip(&mut self.walked).enumerate() {
            let left = seen & !*walked;
            if left != 0 {
                let bit = left.trailing_zeros();
                *walked |= left & left.wrapping_neg();
                let bus = index.checked_mul(64)?.checked_add(bit as usize)?;
                return u8::try_from(bus).ok();
            }
        }
        None
    }
}

fn place(bus: u8) -> [usize; 2] {
    [usize::from(bus >> 6), usize::from(bus & 63)]
}

fn low32(bit: usize) -> u32 {
    u32::try_from(bit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Model;
    use super::super::{Address, Config as _};
    use super::scan;
    use std::vec::Vec;

    const fn at(bus: u8, device: u8, function: u8) -> Address {
        Address {
            segment: 0,
            bus,
            device,
            function,
        }
    }

    #[test]
    fn every_function_is_found_once() {
        let model = Model::new();
        model.add(at(0, 0, 0), 0x1237_8086, 0x0600_0002);
        model.add(at(0, 1, 0), 0x7000_8086, 0x0601_0000);
        model.write32(at(0, 1, 0), 12, 0x0080_0000);
        model.add(at(0, 1, 1), 0x7010_8086, 0x0101_8000);
        // A function behind a hole is found, one of a device without more is not.
        model.add(at(0, 1, 3), 0x7113_8086, 0x0680_0000);
        model.add(at(0, 2, 1), 0x1111_1234, 0x0300_0000);
        // A bridge to bus 200, and there one that leads back.
        for (address, behind) in [(at(0, 3, 0), 200), (at(200, 0, 0), 0)] {
            model.add(address, 0x0001_1b36, 0x0604_0000);
            model.write32(address, 12, 0x0001_0000);
            model.write32(address, 0x18, behind << 8);
        }
        model.add(at(200, 4, 0), 0x0010_1b36, 0x0108_0200);
        let mut found = Vec::new();
        scan(&model, 0, |function| found.push(function.address));
        let all = [
            at(0, 0, 0),
            at(0, 1, 0),
            at(0, 1, 1),
            at(0, 1, 3),
            at(0, 3, 0),
            at(200, 0, 0),
            at(200, 4, 0),
        ];
        assert_eq!(found, all);
    }

    #[test]
    fn each_function_of_a_host_bridge_starts_a_bus() {
        let model = Model::new();
        model.add(at(0, 0, 0), 0x1237_8086, 0x0600_0002);
        model.write32(at(0, 0, 0), 12, 0x0080_0000);
        model.add(at(0, 0, 5), 0x1237_8086, 0x0600_0002);
        model.add(at(5, 0, 0), 0x0010_1b36, 0x0108_0200);
        let mut found = Vec::new();
        scan(&model, 0, |function| found.push(function.address.bus));
        assert_eq!(found, [0, 0, 5]);
    }
}
