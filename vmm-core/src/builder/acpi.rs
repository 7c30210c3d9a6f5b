//! The ACPI tables of a domain: enough for a PVH kernel to find its CPUs, and nothing more.
//!
//! ACPI 6.5, chapter 5. The choices follow what Xen gives a PVH domain, which Linux is known to
//! boot with: a FADT of revision 5 that is not hardware-reduced and whose PM1 block lies at ports
//! nobody answers at (they read all ones, so ACPI mode counts as enabled); no VGA, no CMOS clock,
//! no 8042; a MADT with a local APIC for each vCPU and no IOAPIC; a DSDT without a single object.
//! Without `_S5` a power-off ends in every vCPU halting for good.
//!
//! All tables lie in one page, the RSDP first.

use alloc::vec::Vec;

const OEM_ID: [u8; 6] = *b"TESSRA";
const OEM_TABLE_ID: [u8; 8] = *b"TESSERA ";
const OEM_REVISION: u32 = 1;
const CREATOR: [u8; 4] = *b"TSRA";

const XSDT: usize = 0x40;
const FACS: usize = 0x80;
const FADT: usize = 0xc0;
const DSDT: usize = 0x1e0;
const MADT: usize = 0x210;

const SCI: u16 = 9;
const PM1A_EVENT: u32 = 0xb000;
const PM1A_CONTROL: u32 = 0xb004;
const RESET_PORT: u64 = 0xcf9;
const RESET_VALUE: u8 = 6;
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;
/// FADT flags: WBINVD works, C1 works, no fixed power or sleep button, no wake-up by the clock,
/// and there is a reset register.
const FADT_FLAGS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10;
const LOCAL_APIC: u32 = 0xfee0_0000;
/// MADT flag: there are two 8259s, so do not look for them.
const PCAT_COMPAT: u32 = 1;

/// The tables for a domain with this many vCPUs, to be placed at `base`; the RSDP comes first.
#[must_use]
pub fn tables(vcpus: u32, base: u64) -> Vec<u8> {
    let at = |offset: usize| base + offset as u64;
    let mut page = rsdp(at(XSDT));
    place(&mut page, XSDT, &xsdt(&[at(FADT), at(MADT)]));
    place(&mut page, FACS, &facs());
    place(&mut page, FADT, &fadt(at(FACS), at(DSDT)));
    place(&mut page, DSDT, &table(*b"DSDT", 2, &[]));
    place(&mut page, MADT, &madt(vcpus));
    page
}

/// Appends a table at its offset.
fn place(page: &mut Vec<u8>, offset: usize, table: &[u8]) {
    debug_assert!(page.len() <= offset);
    page.resize(offset, 0);
    page.extend_from_slice(table);
}

/// The value that makes all bytes add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte))
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

/// A table with the common header: signature, length, revision, checksum, origin.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    const HEADER: usize = 36;
    const CHECKSUM: usize = 9;
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(&signature);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[revision, 0]);
    out.extend_from_slice(&OEM_ID);
    out.extend_from_slice(&OEM_TABLE_ID);
    out.extend_from_slice(&OEM_REVISION.to_le_bytes());
    out.extend_from_slice(&CREATOR);
    out.extend_from_slice(&OEM_REVISION.to_le_bytes());
    out.extend_from_slice(body);
    let sum = checksum(&out);
    set(&mut out, CHECKSUM, sum);
    out
}

/// Revision 2, with the XSDT only.
fn rsdp(xsdt: u64) -> Vec<u8> {
    const FIRST_PART: usize = 20;
    const CHECKSUM: usize = 8;
    const EXTENDED_CHECKSUM: usize = 32;
    let mut out = Vec::with_capacity(36);
    out.extend_from_slice(b"RSD PTR ");
    out.push(0);
    out.extend_from_slice(&OEM_ID);
    out.push(2);
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&36u32.to_le_bytes());
    out.extend_from_slice(&xsdt.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let sum = checksum(out.get(..FIRST_PART).unwrap_or_default());
    set(&mut out, CHECKSUM, sum);
    let sum = checksum(&out);
    set(&mut out, EXTENDED_CHECKSUM, sum);
    out
}

fn xsdt(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables.iter().flat_map(|gpa| gpa.to_le_bytes()).collect();
    table(*b"XSDT", 1, &body)
}

/// The FACS has a header of its own and no checksum.
fn facs() -> [u8; 64] {
    let mut out = [0; 64];
    let fields = b"FACS".iter().copied().chain(64u32.to_le_bytes());
    for (byte, value) in out.iter_mut().zip(fields) {
        *byte = value;
    }
    // Version 2; hardware signature, waking vectors, lock and flags are zero.
    set(&mut out, 32, 2);
    out
}

fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    let low = |gpa: u64| u32::try_from(gpa).unwrap_or(0).to_le_bytes();
    let mut body = [0; 268 - 36];
    // Offsets as the specification gives them, from the start of the table.
    let mut put = |offset: usize, bytes: &[u8]| {
        let field = body.get_mut(offset - 36..).unwrap_or_default();
        for (byte, value) in field.iter_mut().zip(bytes) {
            *byte = *value;
        }
    };
    put(36, &low(facs));
    put(40, &low(dsdt));
    put(46, &SCI.to_le_bytes());
    put(56, &PM1A_EVENT.to_le_bytes());
    put(64, &PM1A_CONTROL.to_le_bytes());
    // Lengths of the PM1 event and control blocks.
    put(88, &[4, 2]);
    // Latencies that say "no C2, no C3".
    put(96, &101u16.to_le_bytes());
    put(98, &1001u16.to_le_bytes());
    put(109, &(NO_VGA | NO_CMOS_RTC).to_le_bytes());
    put(112, &FADT_FLAGS.to_le_bytes());
    put(116, &io_port(RESET_PORT, 8));
    put(128, &[RESET_VALUE]);
    put(132, &facs.to_le_bytes());
    put(140, &dsdt.to_le_bytes());
    put(148, &io_port(PM1A_EVENT.into(), 32));
    put(172, &io_port(PM1A_CONTROL.into(), 16));
    table(*b"FACP", 5, &body)
}

/// A generic address structure for an I/O port.
fn io_port(port: u64, bits: u8) -> [u8; 12] {
    const SYSTEM_IO: u8 = 1;
    let mut out = [0; 12];
    let access_size = match bits {
        8 => 1,
        16 => 2,
        _ => 3,
    };
    let fields = [SYSTEM_IO, bits, 0, access_size]
        .into_iter()
        .chain(port.to_le_bytes());
    for (byte, value) in out.iter_mut().zip(fields) {
        *byte = value;
    }
    out
}

/// One enabled local APIC per vCPU; guests take the processor id for the vCPU's number.
fn madt(vcpus: u32) -> Vec<u8> {
    const ENABLED: u32 = 1;
    let mut body = Vec::new();
    body.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    for vcpu in 0..vcpus {
        // More vCPUs than xAPIC identifiers are refused by the configuration's own check.
        let (Ok(processor), Ok(apic)) = (u8::try_from(vcpu), u8::try_from(vcpu * 2)) else {
            break;
        };
        body.extend_from_slice(&[0, 8, processor, apic]);
        body.extend_from_slice(&ENABLED.to_le_bytes());
    }
    table(*b"APIC", 2, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xfc00_0000;

    fn sum(bytes: &[u8]) -> u8 {
        bytes
            .iter()
            .fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The table at a guest-physical address, with its checksum checked.
    fn at<'a>(page: &'a [u8], gpa: u64, signature: &[u8; 4]) -> &'a [u8] {
        let tail = &page[usize::try_from(gpa - BASE).unwrap()..];
        assert_eq!(&tail[..4], signature);
        let table = &tail[..u32_at(tail, 4) as usize];
        assert_eq!(sum(table), 0, "checksum of {signature:?}");
        table
    }

    #[test]
    fn the_chain_from_the_rsdp_is_sound() {
        let page = tables(3, BASE);
        assert_eq!(&page[..8], b"RSD PTR ");
        assert_eq!(sum(&page[..20]), 0);
        assert_eq!(sum(&page[..36]), 0);
        assert_eq!((page[15], u32_at(&page, 20)), (2, 36));

        let xsdt = at(&page, u64_at(&page, 24), b"XSDT");
        assert_eq!(xsdt.len(), 36 + 16);
        let fadt = at(&page, u64_at(xsdt, 36), b"FACP");
        let madt = at(&page, u64_at(xsdt, 44), b"APIC");

        assert_eq!((fadt.len(), fadt[8]), (268, 5));
        let dsdt = at(&page, u64_at(fadt, 140), b"DSDT");
        assert_eq!(dsdt.len(), 36);
        assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140));
        let facs = u64_at(fadt, 132);
        assert_eq!(facs % 64, 0);
        assert_eq!(u64::from(u32_at(fadt, 36)), facs);
        let facs = &page[usize::try_from(facs - BASE).unwrap()..];
        assert_eq!((&facs[..4], u32_at(facs, 4)), (b"FACS".as_slice(), 64));

        let boot_flags = u16::from_le_bytes([fadt[109], fadt[110]]);
        assert_eq!(
            boot_flags, 0b10_0100,
            "no VGA, no CMOS clock, and no 8042 bit"
        );
        assert_eq!(u32_at(fadt, 112) & 1 << 20, 0, "not hardware-reduced");
        assert_eq!((u32_at(fadt, 56), u32_at(fadt, 64)), (0xb000, 0xb004));
        assert_eq!(fadt[148..152], [1, 32, 0, 3]);
        assert_eq!(u64_at(fadt, 152), 0xb000);
        assert_eq!(u64_at(fadt, 176), 0xb004);

        assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 1));
        let entries: Vec<_> = madt[44..].chunks(8).collect();
        let expected = [[0, 8, 0, 0], [0, 8, 1, 2], [0, 8, 2, 4]];
        assert_eq!(entries.len(), 3);
        for (entry, expected) in entries.iter().zip(expected) {
            assert_eq!(entry[..4], expected);
            assert_eq!(u32_at(entry, 4), 1);
        }
    }

    #[test]
    fn the_largest_domain_fits_into_the_page() {
        let page = tables(system::config::MAX_VCPUS, BASE);
        assert!(page.len() <= abi::PAGE_SIZE, "{} bytes", page.len());
        let madt = at(&page, BASE + MADT as u64, b"APIC");
        assert_eq!(madt.len(), 44 + 128 * 8);
        assert_eq!(madt[44 + 127 * 8..][..4], [0, 8, 127, 254]);
    }
}
