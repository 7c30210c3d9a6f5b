//! A disk in RAM.

use abi::blkif::SECTOR_SIZE;
use abi::{DomId, PAGE_SIZE};
use pv_drivers::blk::{Begun, Disk, IoError, Piece, Transfer};
use spin::RwLock;

use super::overlay::Overlay;
use crate::mm::directmap::to_usize;
use crate::mm::frame::Owner;
use crate::mm::page::PageRef;

/// Sectors in a page.
const PAGE_SECTORS: u64 = (PAGE_SIZE / SECTOR_SIZE) as u64;

/// An image, which stays as it is, and over it the pages that the domain has written to.
///
/// Pages are taken as they are first written, and are the domain's ([`Owner::Disk`]); they go when
/// the disk does. When the machine has no more, a write fails.
#[derive(Debug)]
pub struct RamDisk {
    owner: DomId,
    image: &'static [u8],
    sectors: u64,
    read_only: bool,
    overlay: RwLock<Overlay>,
}

/// A part of a piece that lies in one page of the disk.
struct Part {
    /// The page of the disk.
    number: u64,
    /// The first byte there.
    at: usize,
    /// The first byte in the piece's page.
    offset: usize,
    len: usize,
}

/// The parts of a piece; two when the disk's pages and the front end's do not meet.
fn parts(piece: &Piece<'_>) -> impl Iterator<Item = Part> {
    let mut sector = piece.sector;
    let mut offset = piece.offset;
    let mut left = piece.len;
    core::iter::from_fn(move || {
        let at = to_usize(sector % PAGE_SECTORS).saturating_mul(SECTOR_SIZE);
        let len = left.min(PAGE_SIZE.saturating_sub(at));
        let part = Part {
            number: sector / PAGE_SECTORS,
            at,
            offset,
            len,
        };
        sector = sector.saturating_add((len / SECTOR_SIZE) as u64);
        offset = offset.saturating_add(len);
        left = left.saturating_sub(len);
        (len != 0).then_some(part)
    })
}

impl RamDisk {
    /// A disk of `owner`'s with so many sectors. It holds the image as far as that goes, and
    /// zeros.
    #[must_use]
    pub const fn new(owner: DomId, image: &'static [u8], sectors: u64, read_only: bool) -> Self {
        Self {
            owner,
            image,
            sectors,
            read_only,
            overlay: RwLock::new(Overlay::new()),
        }
    }

    /// What the image has of `len` bytes from `at` on in a page; less behind its end.
    fn of_image(&self, number: u64, at: usize, len: usize) -> &'static [u8] {
        let start = to_usize(number)
            .saturating_mul(PAGE_SIZE)
            .saturating_add(at);
        let rest = self.image.get(start..).unwrap_or_default();
        rest.get(..len).unwrap_or(rest)
    }

    fn read_part(&self, piece: &Piece<'_>, part: &Part) {
        if let Some(page) = self.overlay.read().get(part.number) {
            piece.page.copy_from(part.offset, page, part.at, part.len);
            return;
        }
        let there = self.of_image(part.number, part.at, part.len);
        piece.page.write(part.offset, there);
        let rest = part.len.saturating_sub(there.len());
        piece
            .page
            .zero(part.offset.saturating_add(there.len()), rest);
    }

    fn write_part(&self, piece: &Piece<'_>, part: &Part) -> Result<(), IoError> {
        if let Some(page) = self.overlay.read().get(part.number) {
            page.copy_from(part.at, piece.page, part.offset, part.len);
            return Ok(());
        }
        let mut overlay = self.overlay.write();
        // Another queue may have been first.
        if overlay.get(part.number).is_none() {
            let page = PageRef::alloc(Owner::Disk(self.owner)).ok_or(IoError)?;
            page.write(0, self.of_image(part.number, 0, PAGE_SIZE));
            overlay.insert(part.number, page).ok_or(IoError)?;
        }
        let page = overlay.get(part.number).ok_or(IoError)?;
        page.copy_from(part.at, piece.page, part.offset, part.len);
        Ok(())
    }
}

impl RamDisk {
    /// Fills a piece of a page from the disk.
    pub fn read_piece(&self, piece: &Piece<'_>) {
        parts(piece).for_each(|part| self.read_part(piece, &part));
    }

    /// Writes a piece of a page to the disk.
    ///
    /// # Errors
    /// [`IoError`]: there is no memory for it.
    pub fn write_piece(&self, piece: &Piece<'_>) -> Result<(), IoError> {
        parts(piece).try_for_each(|part| self.write_part(piece, &part))
    }

    /// How many sectors there are.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// True when it refuses writes.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Gives back the pages that lie wholly among the sectors: there the image shows again.
    pub fn discard(&self, sector: u64, count: u64) -> u64 {
        let end = sector.saturating_add(count);
        let (first, last) = (sector.div_ceil(PAGE_SECTORS), end / PAGE_SECTORS);
        if first >= last {
            return count;
        }
        let stopped = self.overlay.write().remove(first, last);
        if stopped >= last {
            return count;
        }
        stopped.saturating_mul(PAGE_SECTORS).saturating_sub(sector)
    }
}

impl<G> Disk<G> for RamDisk {
    fn begin(&self, _: &G, _: &Transfer<'_>) -> Begun {
        Begun::InPieces
    }

    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, piece: Piece<'_>) -> Result<(), IoError> {
        self.read_piece(&piece);
        Ok(())
    }

    fn write(&self, piece: Piece<'_>) -> Result<(), IoError> {
        self.write_piece(&piece)
    }

    /// Nothing is more durable than RAM can be.
    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn discard(&self, sector: u64, count: u64) -> Option<u64> {
        Some(self.discard(sector, count))
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "tests choose their own numbers"
)]
mod tests {
    extern crate std;
    use std::boxed::Box;
    use std::vec::Vec;

    use super::RamDisk;
    use crate::mm::frame::{Owner, frames};
    use crate::mm::testing;
    use abi::DomId;
    use core::sync::atomic::{AtomicU16, Ordering};
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use pv_drivers::blk::{IoError, Piece};

    static NEXT_ID: AtomicU16 = AtomicU16::new(30_000);

    fn owner() -> DomId {
        testing::init();
        DomId(NEXT_ID.fetch_add(1, Ordering::Relaxed))
    }

    /// Two and a half pages of image, with a sector that is cut off.
    fn image() -> &'static [u8] {
        let bytes: Vec<u8> = (0..10_100u32)
            .map(|at| (at / 512 + at % 5) as u8 | 1)
            .collect();
        Box::leak(bytes.into_boxed_slice())
    }

    #[derive(Clone, Debug)]
    enum Step {
        Read(u64, u64, u64),
        Write(u64, u64, u64, u8),
        Discard(u64, u64),
    }

    /// Sectors of the disk, and where they are in a page.
    fn span() -> impl Strategy<Value = (u64, u64, u64)> {
        (0u64..40, 0u64..8, 1u64..9)
            .prop_map(|(sector, first, count)| (sector, first, count.min(8 - first)))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            span().prop_map(|(sector, first, count)| Step::Read(sector, first, count)),
            (span(), any::<u8>()).prop_map(|((sector, first, count), byte)| {
                Step::Write(sector, first, count, byte)
            }),
            (0u64..40, 0u64..40).prop_map(|(a, b)| Step::Discard(a.min(b), a.abs_diff(b))),
        ]
    }

    proptest! {
        /// A disk is a row of bytes; discarding whole pages brings the image back.
        #[test]
        fn a_disk_is_a_row_of_bytes(steps in proptest::collection::vec(step(), 1..60)) {
            const SECTORS: u64 = 48;
            let image = image();
            let disk = RamDisk::new(owner(), image, SECTORS, false);
            let mut fresh = std::vec![0; SECTORS as usize * 512];
            fresh[..image.len()].copy_from_slice(image);
            let mut model = fresh.clone();
            let page = testing::page(Owner::Hypervisor);
            for step in steps {
                match step {
                    Step::Read(sector, first, count) => {
                        page.write(0, &[0xee; 4096]);
                        let (offset, len) = (first as usize * 512, count as usize * 512);
                        disk.read_piece(&Piece { sector, page: &page, offset, len });
                        let mut bytes = [0; 4096];
                        page.read(0, &mut bytes);
                        let at = sector as usize * 512;
                        prop_assert_eq!(&bytes[offset..offset + len], &model[at..at + len]);
                        prop_assert!(bytes[..offset].iter().all(|byte| *byte == 0xee));
                        prop_assert!(bytes[offset + len..].iter().all(|byte| *byte == 0xee));
                    }
                    Step::Write(sector, first, count, byte) => {
                        page.write(0, &[byte; 4096]);
                        let (offset, len) = (first as usize * 512, count as usize * 512);
                        disk.write_piece(&Piece { sector, page: &page, offset, len }).unwrap();
                        let at = sector as usize * 512;
                        model[at..at + len].fill(byte);
                    }
                    Step::Discard(sector, count) => {
                        prop_assert_eq!(disk.discard(sector, count), count);
                        for number in sector.div_ceil(8)..(sector + count) / 8 {
                            let at = number as usize * 4096;
                            model[at..at + 4096].copy_from_slice(&fresh[at..at + 4096]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn pages_are_the_owners_until_they_are_discarded_or_the_disk_goes() {
        let owner = owner();
        let disk = RamDisk::new(owner, &[], 1 << 20, false);
        let page = testing::page(Owner::Hypervisor);
        let write = |sector| {
            disk.write_piece(&Piece {
                sector,
                page: &page,
                offset: 0,
                len: 4096,
            })
        };
        for number in 0..600 {
            write(number * 8).unwrap();
        }
        write(4801).unwrap();
        assert_eq!(frames().owned_by(owner).disks, 602);
        // Some pages at a time, those of one leaf; a page that is named in part stays.
        assert_eq!(disk.discard(4, 8 * 700), 33 * 8 - 4);
        assert_eq!(frames().owned_by(owner).disks, 602 - 32);
        assert_eq!(disk.discard(500 * 8, 8 * 200), 12 * 8);
        let (mut sector, mut steps) = (4, 0);
        while sector < 8 * 700 {
            sector += disk.discard(sector, 8 * 700 - sector);
            steps += 1;
        }
        assert_eq!((sector, steps), (8 * 700, 16 + 6));
        assert_eq!(frames().owned_by(owner).disks, 1);
        drop(disk);
        assert_eq!(frames().owned_by(owner).disks, 0);
    }

    #[test]
    fn a_large_disk_has_tables_where_it_was_written() {
        let owner = owner();
        let sectors = 1 << 31;
        let disk = RamDisk::new(owner, &[], sectors, false);
        let page = testing::page(Owner::Hypervisor);
        let piece = |sector| Piece {
            sector,
            page: &page,
            offset: 0,
            len: 4096,
        };
        for sector in [0, sectors / 2, sectors - 8] {
            page.u64(0).store(sector, Ordering::Relaxed);
            disk.write_piece(&piece(sector)).unwrap();
        }
        for sector in [sectors - 8, sectors / 2, 0] {
            disk.read_piece(&piece(sector));
            assert_eq!(page.u64(0).load(Ordering::Relaxed), sector);
        }
        let (mut sector, mut steps) = (0, 0);
        while sector < sectors {
            sector += disk.discard(sector, sectors - sector);
            steps += 1;
        }
        // A directory, a leaf or some pages at a time.
        assert!(steps < 1024 + 3 * (512 + 16), "{steps} steps");
        assert_eq!(frames().owned_by(owner).disks, 0);
    }

    #[test]
    fn a_write_without_memory_fails_and_leaves_the_disk_as_it_was() {
        let disk = RamDisk::new(owner(), image(), 48, false);
        let page = testing::page(Owner::Hypervisor);
        let piece = Piece {
            sector: 0,
            page: &page,
            offset: 0,
            len: 512,
        };
        testing::limit_allocations(Some(0));
        let written = disk.write_piece(&piece);
        testing::limit_allocations(None);
        assert_eq!(written, Err(IoError));
        disk.read_piece(&piece);
        let mut bytes = [0; 512];
        page.read(0, &mut bytes);
        assert_eq!(bytes[..], image()[..512]);
    }
}
