//! The GUID partition table. UEFI Specification, "GPT Disk Layout".
//!
//! Anybody may have written the disk. So nothing of it is believed that its checksums, its copy at
//! the end of the disk, and the other numbers do not bear out; a table with a mistake has no
//! partitions at all, rather than some that reach into others.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc};
use pv_drivers::blk::IoError;
use system::disk::Uuid;

const SECTOR: usize = 512;
/// Bytes of a header that have a meaning.
const HEADER: usize = 92;
/// The most entries that are looked at.
const MAX_ENTRIES: u32 = 1024;
/// The most bytes of all entries together.
const MAX_TABLE: usize = 256 << 10;
/// Bytes of an entry that have a meaning.
const ENTRY: usize = 128;

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Partition {
    /// Its own number.
    pub(super) uuid: Uuid,
    /// Its name.
    pub(super) name: String,
    /// The first sector.
    pub(super) first: u64,
    /// How many.
    pub(super) sectors: u64,
}

/// What is wrong with a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GptError {
    /// The disk could not be read.
    Read,
    /// There is none.
    Missing,
    /// A header is damaged: a checksum, or a number that cannot be.
    Header(Copy),
    /// The entries' checksum is wrong.
    Entries(Copy),
    /// The two copies do not say the same.
    Differ,
    /// A partition reaches out of the room for partitions, or into another.
    Partition,
    /// There is no memory to read it.
    Memory,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copy {
    /// At the beginning of the disk.
    Primary,
    /// At its end.
    Backup,
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        })
    }
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("its partition table cannot be read"),
            Self::Missing => f.write_str("it has no GUID partition table"),
            Self::Header(copy) => write!(f, "the {copy} header of its partition table is damaged"),
            Self::Entries(copy) => write!(f, "the {copy} partition table is damaged"),
            Self::Differ => f.write_str("its two partition tables are not the same"),
            Self::Partition => f.write_str("its partitions overlap or reach too far"),
            Self::Memory => f.write_str("there is no memory for its partition table"),
        }
    }
}

/// Reads whole sectors from one on.
pub(super) type Read<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<(), IoError>;

/// What a header says, checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    first_usable: u64,
    last_usable: u64,
    disk: [u8; 16],
    table: u64,
    count: u32,
    size: u32,
    checksum: u32,
}

/// The partitions of a disk with so many sectors.
///
/// # Errors
/// [`GptError`].
pub(super) fn read(sectors: u64, read: Read<'_>) -> Result<Vec<Partition>, GptError> {
    // Protective MBR, two headers, and a sector of entries for each.
    if sectors < 6 {
        return Err(GptError::Missing);
    }
    let last = sectors.saturating_sub(1);
    let primary = header(Copy::Primary, 1, last, read)?;
    let backup = header(Copy::Backup, last, 1, read)?;
    let same = Header {
        table: primary.table,
        ..backup
    };
    if same != primary {
        return Err(GptError::Differ);
    }
    let table = entries(Copy::Primary, &primary, read)?;
    if entries(Copy::Backup, &backup, read)? != table {
        return Err(GptError::Differ);
    }
    partitions(&primary, &table)
}

fn header(copy: Copy, at: u64, other: u64, read: Read<'_>) -> Result<Header, GptError> {
    let mut sector = [0; SECTOR];
    read(at, &mut sector).map_err(|IoError| GptError::Read)?;
    if !sector.starts_with(b"EFI PART") {
        return Err(match copy {
            Copy::Primary => GptError::Missing,
            Copy::Backup => GptError::Header(copy),
        });
    }
    parse(&sector, at, other).ok_or(GptError::Header(copy))
}

fn parse(sector: &[u8; SECTOR], at: u64, other: u64) -> Option<Header> {
    let word = |at| u32_at(sector, at);
    let long = |at| u64_at(sector, at);
    let length = usize::try_from(word(12)?).ok()?;
    let mut blank = *sector;
    blank.get_mut(16..20)?.fill(0);
    let sound = word(8)? == 0x1_0000
        && (HEADER..=SECTOR).contains(&length)
        && CRC.checksum(blank.get(..length)?) == word(16)?
        && long(24)? == at
        && long(32)? == other;
    let header = Header {
        first_usable: long(40)?,
        last_usable: long(48)?,
        disk: *sector.get(56..)?.first_chunk()?,
        table: long(72)?,
        count: word(80)?,
        size: word(84)?,
        checksum: word(88)?,
    };
    let end = header.table.checked_add(header.table_sectors()?)?;
    let last = at.max(other);
    // Each table lies between its header and the room for partitions.
    let placed = if at < other {
        header.table >= 2 && end <= header.first_usable
    } else {
        header.table > header.last_usable && end <= last
    };
    let ordered = header.first_usable <= header.last_usable && header.last_usable < last;
    (sound && placed && ordered).then_some(header)
}

impl Header {
    /// Bytes of all entries together.
    fn table_bytes(&self) -> Option<usize> {
        let size = usize::try_from(self.size).ok()?;
        let sound = (1..=MAX_ENTRIES).contains(&self.count)
            && size >= ENTRY
            && (size / ENTRY).is_power_of_two()
            && size.is_multiple_of(ENTRY);
        let bytes = usize::try_from(self.count).ok()?.checked_mul(size)?;
        (sound && bytes <= MAX_TABLE).then_some(bytes)
    }

    fn table_sectors(&self) -> Option<u64> {
        u64::try_from(self.table_bytes()?.div_ceil(SECTOR)).ok()
    }
}

fn entries(copy: Copy, header: &Header, read: Read<'_>) -> Result<Vec<u8>, GptError> {
    let bytes = header.table_bytes().ok_or(GptError::Header(copy))?;
    let whole = bytes.next_multiple_of(SECTOR);
    let mut table = Vec::new();
    table
        .try_reserve_exact(whole)
        .map_err(|_| GptError::Memory)?;
    table.resize(whole, 0);
    read(header.table, &mut table).map_err(|IoError| GptError::Read)?;
    table.truncate(bytes);
    if CRC.checksum(&table) == header.checksum {
        Ok(table)
    } else {
        Err(GptError::Entries(copy))
    }
}

fn partitions(header: &Header, table: &[u8]) -> Result<Vec<Partition>, GptError> {
    let size = usize::try_from(header.size).unwrap_or(ENTRY).max(ENTRY);
    let mut found: Vec<Partition> = Vec::new();
    for entry in table.chunks_exact(size) {
        // An unused entry has no type.
        if entry.iter().take(16).all(|byte| *byte == 0) {
            continue;
        }
        let partition = partition(header, entry).ok_or(GptError::Partition)?;
        found.try_reserve(1).map_err(|_| GptError::Memory)?;
        found.push(partition);
    }
    let mut order: Vec<(u64, u64)> = Vec::new();
    order
        .try_reserve_exact(found.len())
        .map_err(|_| GptError::Memory)?;
    order.extend(found.iter().map(|one| (one.first, one.sectors)));
    order.sort_unstable();
    let apart = order.windows(2).all(|pair| match pair {
        [(first, sectors), (next, _)] => first.saturating_add(*sectors) <= *next,
        _ => true,
    });
    if apart {
        Ok(found)
    } else {
        Err(GptError::Partition)
    }
}

fn partition(header: &Header, entry: &[u8]) -> Option<Partition> {
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    if first < header.first_usable || last > header.last_usable || last < first {
        return None;
    }
    let name = entry.get(56..ENTRY)?.as_chunks::<2>().0;
    let units = name.iter().map(|unit| u16::from_le_bytes(*unit));
    let units = units.take_while(|unit| *unit != 0);
    let text = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(Partition {
        uuid: Uuid::from_bytes(*entry.get(16..)?.first_chunk()?),
        name: text.collect(),
        first,
        sectors: last.checked_sub(first)?.checked_add(1)?,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let found = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*found))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let found = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*found))
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "tests choose their own numbers"
)]
pub(super) mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::{CRC, Copy, GptError, Partition, read};
    use proptest::prelude::{any, prop_assert, proptest};
    use pv_drivers::blk::IoError;
    use system::disk::Uuid;

    /// Of every disk here.
    pub(in super::super) const SECTORS: u64 = 200;

    fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A disk with partitions, whose headers are right whatever they say.
    pub(in super::super) fn disk(partitions: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut disk = std::vec![0; SECTORS as usize * 512];
        let mut table = std::vec![0; 128 * 128];
        for (number, (name, first, last)) in partitions.iter().enumerate() {
            let at = number * 128;
            put(&mut table, at, &[0xaf; 16]);
            put(&mut table, at + 16, &[number as u8 + 1; 16]);
            put(&mut table, at + 32, &first.to_le_bytes());
            put(&mut table, at + 40, &last.to_le_bytes());
            let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            put(&mut table, at + 56, &name);
        }
        for (at, other, place) in [(1, SECTORS - 1, 2), (SECTORS - 1, 1, SECTORS - 33)] {
            put(&mut disk, place as usize * 512, &table);
            let start = at as usize * 512;
            put(&mut disk, start, b"EFI PART\0\0\x01\0\x5c\0\0\0");
            for (field, value) in [
                (24, at),
                (32, other),
                (40, 34),
                (48, SECTORS - 34),
                (72, place),
            ] {
                put(&mut disk, start + field, &value.to_le_bytes());
            }
            put(&mut disk, start + 56, &[9; 16]);
            put(&mut disk, start + 80, &[128, 0, 0, 0, 128, 0, 0, 0]);
            seal(&mut disk, at as usize);
        }
        disk
    }

    /// Sets a header's checksums anew.
    fn seal(disk: &mut [u8], at: usize) {
        let start = at * 512;
        let field = |disk: &[u8], at: usize| {
            u32::from_le_bytes(disk[start + at..][..4].try_into().unwrap())
        };
        let place = u64::from_le_bytes(disk[start + 72..][..8].try_into().unwrap()) as usize;
        let bytes = (field(disk, 80) as usize).saturating_mul(field(disk, 84) as usize);
        let range = place
            .checked_mul(512)
            .and_then(|at| disk.get(at..)?.get(..bytes));
        let sum = CRC.checksum(range.unwrap_or_default());
        put(disk, start + 88, &sum.to_le_bytes());
        put(disk, start + 16, &[0; 4]);
        let length = (field(disk, 12) as usize).min(512);
        let sum = CRC.checksum(&disk[start..start + length]);
        put(disk, start + 16, &sum.to_le_bytes());
    }

    fn table(disk: &[u8]) -> Result<Vec<Partition>, GptError> {
        read(disk.len() as u64 / 512, &mut |sector, out| {
            let at = usize::try_from(sector)
                .ok()
                .and_then(|at| at.checked_mul(512))
                .ok_or(IoError)?;
            let there = disk.get(at..).and_then(|rest| rest.get(..out.len()));
            out.copy_from_slice(there.ok_or(IoError)?);
            Ok(())
        })
    }

    #[test]
    fn partitions_have_names_numbers_and_places() {
        let found = table(&disk(&[("root", 40, 99), ("\u{e4}\u{1f600}", 100, 100)])).unwrap();
        let root = Partition {
            uuid: Uuid::from_bytes([1; 16]),
            name: "root".into(),
            first: 40,
            sectors: 60,
        };
        assert_eq!(found[0], root);
        assert_eq!(
            (found[1].name.as_str(), found[1].sectors),
            ("\u{e4}\u{1f600}", 1)
        );
        assert_eq!(table(&disk(&[])), Ok(Vec::new()));
    }

    #[test]
    fn a_mistake_in_either_copy_is_named() {
        let good = disk(&[("root", 40, 99)]);
        let last = SECTORS as usize - 1;
        let with = |at: usize, sealed: Option<usize>| {
            let mut disk = good.clone();
            disk[at] ^= 0x11;
            if let Some(header) = sealed {
                seal(&mut disk, header);
            }
            table(&disk).unwrap_err()
        };
        assert_eq!(with(512, None), GptError::Missing);
        assert_eq!(with(last * 512, None), GptError::Header(Copy::Backup));
        for field in [8, 12, 16, 24, 32, 40, 48, 56, 72, 80, 84, 88] {
            assert_eq!(
                with(512 + field, None),
                GptError::Header(Copy::Primary),
                "{field}"
            );
            let backup = with(last * 512 + field, None);
            assert_eq!(backup, GptError::Header(Copy::Backup), "{field}");
        }
        // With the right checksum there are still numbers that cannot be.
        for field in [8, 12, 24, 32, 47, 55, 79, 83, 84] {
            assert_eq!(
                with(512 + field, Some(1)),
                GptError::Header(Copy::Primary),
                "{field}"
            );
        }
        assert_eq!(with(512 + 56, Some(1)), GptError::Differ);
        assert_eq!(with(2 * 512 + 16, None), GptError::Entries(Copy::Primary));
        let backup = with((last - 32) * 512 + 16, None);
        assert_eq!(backup, GptError::Entries(Copy::Backup));
        assert_eq!(with(2 * 512 + 16, Some(1)), GptError::Differ);
    }

    #[test]
    fn partitions_that_reach_too_far_are_none() {
        for bad in [
            &[("a", 33, 50)][..],
            &[("a", 40, SECTORS - 33)],
            &[("a", 50, 40)],
            &[("a", 40, u64::MAX)],
            &[("a", 40, 60), ("b", 60, 70)],
            &[("a", 60, 70), ("b", 40, 90)],
        ] {
            assert_eq!(table(&disk(bad)), Err(GptError::Partition), "{bad:?}");
        }
    }

    #[test]
    fn a_disk_that_is_cut_off_has_no_table() {
        let good = disk(&[("root", 40, 99)]);
        for sectors in 0..SECTORS as usize {
            assert!(table(&good[..sectors * 512]).is_err(), "{sectors}");
        }
    }

    proptest! {
        /// Whatever a sealed table says, what comes out lies apart and inside.
        #[test]
        fn any_table_gives_sound_partitions(
            changes in proptest::collection::vec((0usize..34 * 512, any::<u8>()), 0..12),
            heads in proptest::collection::vec((24usize..92, any::<u8>()), 0..4),
        ) {
            let mut disk = disk(&[("a", 40, 60), ("b", 61, 70)]);
            for (at, byte) in changes {
                disk[at] = byte;
                let mirror = (SECTORS as usize - 33) * 512;
                if at >= 1024 {
                    disk[mirror + at - 1024] = byte;
                }
            }
            for (at, byte) in heads {
                disk[512 + at] = byte;
            }
            seal(&mut disk, 1);
            seal(&mut disk, SECTORS as usize - 1);
            if let Ok(mut found) = table(&disk) {
                found.sort_by_key(|one| one.first);
                let mut end = 34;
                for one in found {
                    prop_assert!(one.first >= end && one.sectors > 0);
                    end = one.first + one.sectors;
                    prop_assert!(end <= SECTORS - 33);
                }
            }
        }
    }
}
