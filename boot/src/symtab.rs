//! Reads the symbol table that the build writes into the image.
//!
//! ```text
//! u32 magic "TSYM"      u32 count        u64 address that the offsets below count from
//! count * { u32 offset of the function; u32 place of its name, from the section's start }
//! names, each one byte of length and its characters
//! ```
//! Sorted by offset. Used while the hypervisor is dying, so nothing in it is trusted.

const HEADER: usize = 16;
const ENTRY: usize = 8;

/// The function that holds `address`, and how far into it the address lies.
#[must_use]
pub fn lookup(table: &[u8], address: u64) -> Option<(&str, u64)> {
    if table.get(..4)? != b"TSYM" {
        return None;
    }
    let base = u64::from_le_bytes(*table.get(8..)?.first_chunk()?);
    let wanted = address.checked_sub(base)?;
    let (mut low, mut high) = (0, usize::try_from(u32_at(table, 4)?).ok()?);
    while low < high {
        let middle = low + (high - low) / 2;
        if u64::from(u32_at(table, HEADER + middle.checked_mul(ENTRY)?)?) <= wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let entry = HEADER + low.checked_sub(1)?.checked_mul(ENTRY)?;
    let start = u64::from(u32_at(table, entry)?);
    let name = usize::try_from(u32_at(table, entry + 4)?).ok()?;
    let (length, text) = table.get(name..)?.split_first()?;
    let text = core::str::from_utf8(text.get(..usize::from(*length))?).ok()?;
    Some((text, wanted - start))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn table() -> Vec<u8> {
        let mut table = Vec::from(*b"TSYM");
        table.extend(2_u32.to_le_bytes());
        table.extend(0x1000_u64.to_le_bytes());
        for (offset, name) in [(0_u32, 32_u32), (0x80, 37)] {
            table.extend(offset.to_le_bytes());
            table.extend(name.to_le_bytes());
        }
        table.extend(b"\x04main\x04exit");
        table
    }

    #[test]
    fn the_function_before_the_address_is_found() {
        let table = table();
        assert_eq!(lookup(&table, 0x1000), Some(("main", 0)));
        assert_eq!(lookup(&table, 0x107f), Some(("main", 0x7f)));
        assert_eq!(lookup(&table, 0x1081), Some(("exit", 1)));
        assert_eq!(lookup(&table, 0xfff), None);
        assert_eq!(lookup(&[0; 64], 0x1000), None);
    }

    proptest! {
        #[test]
        fn broken_tables_end(at in 0_usize..42, byte: u8, cut in 0_usize..43, address: u64) {
            let mut table = table();
            table[at] = byte;
            table.truncate(cut);
            let _ = lookup(&table, address);
            let _ = lookup(&table, 0x1081);
        }
    }
}
