//! A disk image with a GUID partition table, and a pattern wherever nothing else is.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use crc::{CRC_32_ISO_HDLC, Crc};

pub(super) const SECTOR: usize = 512;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
/// Sectors of a table of entries.
const TABLE: usize = ENTRIES * ENTRY / SECTOR;

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A partition: its name, and its sectors.
#[derive(Debug, Clone)]
pub(super) struct Partition {
    pub(super) name: &'static str,
    pub(super) sectors: Range<usize>,
}

impl Partition {
    /// Its bytes in the image.
    pub(super) const fn bytes(&self) -> Range<usize> {
        self.sectors.start * SECTOR..self.sectors.end * SECTOR
    }
}

/// Bytes of a disk with so many sectors and these partitions.
pub(super) fn image(sectors: usize, partitions: &[Partition]) -> Vec<u8> {
    // Nothing looks like a filesystem, and each sector is unlike the others.
    let byte = |at: usize| {
        let [low, high, ..] = (at / SECTOR).wrapping_mul(0x9e37).to_le_bytes();
        let [place, ..] = (at % 251).to_le_bytes();
        low ^ high ^ place
    };
    let mut image: Vec<u8> = (0..sectors * SECTOR).map(byte).collect();
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = image.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    let mut table = vec![0; TABLE * SECTOR];
    for ((number, partition), entry) in (1..).zip(partitions).zip(table.chunks_exact_mut(ENTRY)) {
        let (first, last) = (partition.sectors.start, partition.sectors.end - 1);
        let name = partition.name.encode_utf16().flat_map(u16::to_le_bytes);
        let fields = [
            vec![0xaf; 16],
            vec![number; 16],
            (first as u64).to_le_bytes().to_vec(),
            (last as u64).to_le_bytes().to_vec(),
            vec![0; 8],
            name.collect(),
        ];
        let bytes = fields.concat();
        if let Some(place) = entry.get_mut(..bytes.len()) {
            place.copy_from_slice(&bytes);
        }
    }
    let last = sectors - 1;
    for (at, other, place) in [(1, last, 2), (last, 1, last - TABLE)] {
        put(place * SECTOR, &table);
        let header = |sum: u32| {
            let words = |numbers: &[usize]| -> Vec<u8> {
                let bytes = numbers.iter().map(|number| (*number as u64).to_le_bytes());
                bytes.flatten().collect()
            };
            [
                b"EFI PART\0\0\x01\0\x5c\0\0\0".to_vec(),
                sum.to_le_bytes().to_vec(),
                vec![0; 4],
                words(&[at, other, 2 + TABLE, last - TABLE - 1]),
                vec![9; 16],
                words(&[place]),
                words(&[ENTRIES | ENTRY << 32]),
                CRC.checksum(&table).to_le_bytes().to_vec(),
            ]
            .concat()
        };
        put(at * SECTOR, &[0; SECTOR]);
        put(at * SECTOR, &header(CRC.checksum(&header(0))));
    }
    image
}

/// Writes an image, and takes away the lock that an emulator has left.
pub(super) fn write(path: &Path, image: &[u8]) -> Result<()> {
    let _ = fs::remove_file(path.with_added_extension("lock"));
    fs::write(path, image).with_context(|| format!("cannot write {}", path.display()))
}
