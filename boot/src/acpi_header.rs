//! Which ACPI tables are handed to the parser: it believes the length in a table's header.
//!
//! ACPI specification, "System Description Table Header".

use core::fmt;

/// Bytes of the header that all tables begin with.
pub const HEADER: usize = 36;
/// No table of real firmware comes near this.
const LONGEST: u32 = 16 << 20;

/// A table whose length cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLength {
    signature: [u8; 4],
    length: u32,
}

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.signature.escape_ascii();
        write!(f, "table {name} says it has {} bytes", self.length)
    }
}

/// Checks the length in a table's header.
///
/// # Errors
/// When no table with this signature can have it.
pub fn check(header: &[u8; HEADER]) -> Result<(), BadLength> {
    let [a, b, c, d, w, x, y, z, ..] = *header;
    let (signature, length) = ([a, b, c, d], u32::from_le_bytes([w, x, y, z]));
    let shortest: u32 = match &signature {
        // The Fixed ACPI Description Table of ACPI 1.0.
        b"FACP" => 116,
        // The Multiple APIC Description Table without entries.
        b"APIC" => 44,
        // The header alone: as many as [`HEADER`].
        _ => 36,
    };
    if (shortest..=LONGEST).contains(&length) {
        Ok(())
    } else {
        Err(BadLength { signature, length })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{HEADER, check};
    use std::string::ToString;

    fn header(signature: &[u8; 4], length: u32) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(signature);
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header
    }

    #[test]
    fn real_lengths_pass() {
        for (signature, length) in [
            (b"RSDT", 36),
            (b"XSDT", 124),
            (b"FACP", 116),
            (b"FACP", 276),
            (b"APIC", 44),
            (b"DSDT", 1 << 20),
        ] {
            assert_eq!(check(&header(signature, length)), Ok(()));
        }
    }

    #[test]
    fn others_are_named() {
        for (signature, length) in [
            (b"RSDT", 35),
            (b"RSDT", 0),
            (b"FACP", 115),
            (b"APIC", 43),
            (b"DSDT", u32::MAX),
        ] {
            assert!(check(&header(signature, length)).is_err());
        }
        let text = check(&header(b"RS\0T", 20)).unwrap_err().to_string();
        assert_eq!(text, "table RS\\x00T says it has 20 bytes");
    }
}
