//! The ACPI table that says where configuration space lies in memory.
//!
//! Layout by the PCI Firmware Specification, "MCFG Table Description". The bytes come from
//! firmware and are believed only as far as they are inside the table.

use heapless::Vec;

/// The most ranges taken from the table.
pub const MAX_RANGES: usize = 16;

/// Bytes before the first entry: the common table header and eight reserved ones.
const ENTRIES: usize = 44;
const ENTRY: usize = 16;

/// The configuration space of some buses, 1 MiB for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The physical address that bus 0 of the segment has, or would have.
    pub base: u64,
    /// The segment.
    pub segment: u16,
    /// The first bus.
    pub first_bus: u8,
    /// The last bus.
    pub last_bus: u8,
}

/// Reads a whole table, header included; ranges that cannot be are left out.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<Range, MAX_RANGES> {
    let mut ranges = Vec::new();
    let entries = table.get(ENTRIES..).unwrap_or_default();
    for entry in entries.chunks_exact(ENTRY) {
        let Some(range) = range(entry) else {
            continue;
        };
        // More than fit are reached by nothing.
        if ranges.push(range).is_err() {
            break;
        }
    }
    ranges
}

fn range(entry: &[u8]) -> Option<Range> {
    let range = Range {
        base: u64::from_le_bytes(*entry.first_chunk()?),
        segment: u16::from_le_bytes(*entry.get(8..)?.first_chunk()?),
        first_bus: *entry.get(10)?,
        last_bus: *entry.get(11)?,
    };
    let sound = range.base != 0
        && range.base.is_multiple_of(1 << 20)
        && range.base.checked_add(256 << 20).is_some()
        && range.first_bus <= range.last_bus;
    sound.then_some(range)
}

#[cfg(test)]
mod tests {
    use super::{Range, parse};
    use proptest::prelude::{any, proptest};
    use std::vec::Vec;

    fn table(entries: &[(u64, u16, u8, u8)]) -> Vec<u8> {
        let mut table = std::vec![0; 44];
        for (base, segment, first, last) in entries {
            table.extend_from_slice(&base.to_le_bytes());
            table.extend_from_slice(&segment.to_le_bytes());
            table.extend_from_slice(&[*first, *last, 0, 0, 0, 0]);
        }
        table
    }

    #[test]
    fn ranges_are_read_and_nonsense_left_out() {
        let good = (0xb000_0000, 0, 0, 255);
        let found = parse(&table(&[
            good,
            (0, 1, 0, 1),
            (5, 1, 0, 1),
            (1 << 20, 1, 2, 1),
        ]));
        let range = Range {
            base: 0xb000_0000,
            segment: 0,
            first_bus: 0,
            last_bus: 255,
        };
        assert_eq!(found[..], [range]);
        assert!(parse(&table(&[good])[..50]).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = parse(&bytes);
        }
    }
}
