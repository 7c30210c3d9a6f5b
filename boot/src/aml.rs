//! Finds the sleep type for soft-off in the DSDT without interpreting it.
//!
//! Firmware names it as `Name (_S5, Package () { a, b, .. })`. ACPI specification, "ACPI Machine
//! Language (AML) Specification": NameOp 0x08, PackageOp 0x12, PkgLength (top two bits of its
//! first byte: how many bytes follow), element count, then the elements: ZeroOp 0x00, OneOp
//! 0x01, or BytePrefix 0x0a and a byte.

/// The values for SLP_TYP in the two PM1 control registers.
#[must_use]
pub fn soft_off_types(aml: &[u8]) -> Option<(u8, u8)> {
    let mut rest = aml;
    while let Some(at) = rest.windows(4).position(|window| window == b"_S5_") {
        let named = at.checked_sub(1).and_then(|i| rest.get(i)) == Some(&0x08)
            || (at >= 2 && rest.get(at - 2..at) == Some(b"\x08\\"));
        let after = rest.get(at + 4..)?;
        if named && let Some(types) = package(after) {
            return Some(types);
        }
        rest = after;
    }
    None
}

/// The first two small integers of the package at the start of `aml`.
fn package(aml: &[u8]) -> Option<(u8, u8)> {
    let body = aml.strip_prefix(&[0x12])?;
    let length_bytes = usize::from(body.first()? >> 6) + 1;
    let elements = body.get(length_bytes + 1..)?;
    let (first, rest) = integer(elements)?;
    // A package of one element means the same type for both registers.
    let second = integer(rest).map_or(first, |(second, _)| second);
    (first < 8 && second < 8).then_some((first, second))
}

fn integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    match aml {
        [value @ (0 | 1), rest @ ..] | [0x0a, value, rest @ ..] => Some((*value, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_forms_are_understood() {
        let bytes = b"junk\x08_S5_\x12\x07\x04\x0a\x05\x0a\x06\x00\x00";
        assert_eq!(soft_off_types(bytes), Some((5, 6)));
        assert_eq!(
            soft_off_types(b"\x08\\_S5_\x12\x06\x04\x00\x00\x00\x00"),
            Some((0, 0))
        );
        assert_eq!(
            soft_off_types(b"\x08_S5_\x12\x40\x01\x04\x01\x0a\x07"),
            Some((1, 7))
        );
    }

    #[test]
    fn other_uses_of_the_name_are_passed_over() {
        let bytes = b"_S5_\x12\x06\x04\x08_S5_\x12\x06\x04\x0a\x03\x0a\x03";
        assert_eq!(soft_off_types(bytes), Some((3, 3)));
        assert_eq!(soft_off_types(b"\x08_S5_\x12\x06\x04\x0a\x09\x00"), None);
        assert_eq!(soft_off_types(b"\x08_S5_"), None);
        assert_eq!(soft_off_types(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end(mut bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..300) {
            if at + 5 < bytes.len() {
                bytes[at..at + 5].copy_from_slice(b"\x08_S5_");
            }
            let _ = soft_off_types(&bytes);
        }
    }
}
