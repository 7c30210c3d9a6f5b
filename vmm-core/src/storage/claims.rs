//! Which parts of the machine's disks are which domain's.
//!
//! All of it is settled once, at the start, while nobody else runs: disks are found by their names,
//! partitions in their tables, and no sectors that somebody may write are given twice. A disk that
//! cannot be given costs a line, and the domain that wants it does not start.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::Hpa;
use pv_drivers::blk::IoError;
use spin::Once;
use system::Config;
use system::disk::{DiskPart, DiskSource, overlap};

use super::device::{BlockDevice, read_now};
use super::gpt::{self, Partition};
use super::real::RealDisk;
use crate::mm::dma::DmaBlock;
use crate::percpu;
use crate::time::Tsc;

/// log2 of the pages that are read in one go while a table is looked at.
const READ_ORDER: u8 = 2;
/// Sectors in a page.
const PAGE_SECTORS: u64 = 8;

/// A disk of a domain's, by the places of both in the description; or why it cannot be.
type Claim = (usize, usize, Result<&'static RealDisk, String>);

static DEVICES: Once<&'static [&'static dyn BlockDevice]> = Once::new();
static CLAIMS: Once<Vec<Claim>> = Once::new();

/// Finds what the description names. `end` is the end of RAM.
pub fn init(devices: &'static [&'static dyn BlockDevice], config: &Config, end: Hpa) {
    DEVICES.call_once(|| devices);
    CLAIMS.call_once(|| settle(devices, config, end));
}

/// The part of a disk of the machine that is a domain's, by the places of both in the description.
///
/// # Errors
/// Why it cannot be.
pub fn find(domain: usize, disk: usize) -> Result<&'static RealDisk, &'static str> {
    let claims = CLAIMS.get().into_iter().flatten();
    let mut matching = claims.filter(|(of, number, _)| (*of, *number) == (domain, disk));
    match matching.next() {
        Some((_, _, Ok(disk))) => Ok(disk),
        Some((_, _, Err(why))) => Err(why),
        None => Err("it was not looked for"),
    }
}

/// When the boot pCPU will look at the disks, as far as it knows; in TSC ticks.
static PLANNED: AtomicU64 = AtomicU64::new(Tsc::NEVER.0);

/// When a disk is to be looked at. For the boot pCPU, which has then to do so.
#[must_use]
pub fn deadline() -> Tsc {
    let devices = DEVICES.get().copied().unwrap_or_default();
    let next = devices.iter().map(|device| device.deadline()).min();
    let next = next.unwrap_or(Tsc::NEVER);
    PLANNED.store(next.0, Ordering::Relaxed);
    next
}

/// A device has got something to do. Has the boot pCPU plan anew if it is to look earlier than it
/// knows.
pub(super) fn busy(device: &dyn BlockDevice) {
    if device.deadline().0 < PLANNED.load(Ordering::Relaxed)
        && let Some(boot_cpu) = percpu::by_id(0)
    {
        boot_cpu.reschedule();
    }
}

/// Looks at the disks whose time has come. The caller holds no lock.
pub fn look(now: Tsc) {
    for device in DEVICES.get().copied().unwrap_or_default() {
        if device.deadline() <= now {
            device.look();
        }
    }
}

/// What has been given so far.
struct Given {
    owner: String,
    place: &'static str,
    range: (u64, u64),
    read_only: bool,
}

/// The partitions of each device that was looked at.
type Tables = Vec<(&'static str, Result<Vec<Partition>, String>)>;

fn settle(devices: &'static [&'static dyn BlockDevice], config: &Config, end: Hpa) -> Vec<Claim> {
    let (mut claims, mut given, mut tables) = (Vec::new(), Vec::new(), Tables::new());
    for (index, domain) in config.domains.iter().enumerate() {
        let queues = domain.vcpus.clamp(1, crate::backend::MAX_DISK_QUEUES);
        for (number, disk) in domain.disks.iter().enumerate() {
            let DiskSource::Machine { disk: name, part } = &disk.source else {
                continue;
            };
            let owner = format!("{}/{}", domain.name, disk.name);
            let found = device(devices, name)
                .and_then(|device| Ok((device, range(device, part, &mut tables)?)))
                .and_then(|(device, range)| {
                    let new = Given {
                        owner,
                        place: device.info().place,
                        range,
                        read_only: disk.read_only,
                    };
                    claim(&mut given, new)?;
                    RealDisk::new(device, range, disk.read_only, queues, end)
                        .ok_or_else(|| "there is no memory that the disk reaches".into())
                });
            let found = found.map(|disk| &*Box::leak(Box::new(disk)));
            let found = found.map_err(|why| format!("{} (disk \"{name}\"): {why}", disk.name));
            claims.push((index, number, found));
        }
    }
    claims
}

/// The one disk with this place, serial number or model.
fn device(
    devices: &'static [&'static dyn BlockDevice],
    name: &str,
) -> Result<&'static dyn BlockDevice, String> {
    let mut matching = devices.iter().filter(|device| {
        let info = device.info();
        [info.place, info.serial, info.model].contains(&name)
    });
    match (matching.next(), matching.next()) {
        (Some(device), None) => Ok(*device),
        (Some(one), Some(other)) => Err(format!(
            "{} and {} are called so: name its place or serial number",
            one.info().place,
            other.info().place
        )),
        (None, _) => Err("this machine has no such disk".into()),
    }
}

/// The first sector of a part, and how many.
fn range(
    device: &'static dyn BlockDevice,
    part: &DiskPart,
    tables: &mut Tables,
) -> Result<(u64, u64), String> {
    let all = device.info().sectors;
    match part {
        DiskPart::Whole => Ok((0, all)),
        DiskPart::Range { first, sectors } => {
            let inside = first.checked_add(*sectors).is_some_and(|end| end <= all);
            let range = inside.then_some((*first, *sectors));
            range.ok_or_else(|| format!("{part} reach behind its end: it has {all}"))
        }
        DiskPart::Name(name) => one(part, table(device, tables)?, |found| found.name == *name),
        DiskPart::Uuid(uuid) => one(part, table(device, tables)?, |found| found.uuid == *uuid),
    }
}

fn one(
    part: &DiskPart,
    partitions: &[Partition],
    wanted: impl Fn(&Partition) -> bool,
) -> Result<(u64, u64), String> {
    let mut matching = partitions.iter().filter(|partition| wanted(partition));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok((found.first, found.sectors)),
        (Some(_), Some(_)) => Err(format!("it has more than one {part}: give its UUID")),
        (None, _) => Err(format!("it has no {part}")),
    }
}

/// The partitions of a disk, read once.
fn table<'t>(
    device: &'static dyn BlockDevice,
    tables: &'t mut Tables,
) -> Result<&'t [Partition], String> {
    let place = device.info().place;
    let at = tables.iter().position(|(of, _)| *of == place);
    let at = at.unwrap_or_else(|| {
        let table = gpt::read(device.info().sectors, &mut |sector, out| {
            read(device, sector, out)
        });
        tables.push((place, table.map_err(|error| format!("{error}"))));
        tables.len().saturating_sub(1)
    });
    match tables.get(at) {
        Some((_, Ok(partitions))) => Ok(partitions),
        Some((_, Err(why))) => Err(why.clone()),
        None => Err(String::new()),
    }
}

/// Reads whole sectors.
fn read(device: &dyn BlockDevice, sector: u64, out: &mut [u8]) -> Result<(), IoError> {
    let info = device.info();
    let block = DmaBlock::alloc(READ_ORDER, info.reach).ok_or(IoError)?;
    let mut sector = sector;
    let mut rest = out;
    while !rest.is_empty() {
        // Whole pages, of which the last may begin before what is wanted ends the disk.
        let room = (block.len() as u64).saturating_mul(PAGE_SECTORS);
        let last = info.sectors.checked_sub(PAGE_SECTORS).ok_or(IoError)?;
        let start = sector.min(last);
        let skip = sector.saturating_sub(start);
        let left = info.sectors.saturating_sub(start) / PAGE_SECTORS;
        let wanted = (rest.len() as u64 / 512).saturating_add(skip);
        let pages = wanted
            .div_ceil(PAGE_SECTORS)
            .min(room / PAGE_SECTORS)
            .min(left);
        let pages = block
            .get(..crate::mm::directmap::to_usize(pages))
            .ok_or(IoError)?;
        read_now(device, start, pages)?;
        let sectors = (pages.len() as u64).saturating_mul(PAGE_SECTORS);
        for at in skip..sectors {
            let Some((now, later)) = rest.split_at_mut_checked(512) else {
                return Ok(());
            };
            let [page, offset] = [at / PAGE_SECTORS, (at % PAGE_SECTORS).saturating_mul(512)];
            let [page, offset] = [page, offset].map(crate::mm::directmap::to_usize);
            pages.get(page).ok_or(IoError)?.read(offset, now);
            rest = later;
            sector = sector.saturating_add(1);
        }
    }
    Ok(())
}

/// Gives a range, unless another one that may be written, or that this one may write, has a part of
/// it.
fn claim(given: &mut Vec<Given>, new: Given) -> Result<(), String> {
    let clash = given.iter().find(|other| {
        other.place == new.place
            && !(other.read_only && new.read_only)
            && overlap(other.range, new.range)
    });
    if let Some(other) = clash {
        let (owner, other) = (&new.owner, &other.owner);
        return Err(format!(
            "{owner} and {other} overlap on it and may write: {other} has it"
        ));
    }
    given.push(new);
    Ok(())
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "tests choose their own numbers"
)]
mod tests {
    extern crate std;
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::boxed::Box;
    use std::string::String;
    use std::vec::Vec;

    use super::super::device::{DiskInfo, Request};
    use super::super::gpt::tests::{SECTORS, disk};
    use super::{BlockDevice, IoError, read, settle};
    use crate::mm::testing;
    use crate::time::Tsc;
    use abi::{Hpa, PAGE_SIZE};
    use spin::Mutex;
    use system::disk::{DiskConfig, DiskName, DiskPart, DiskSource, Uuid};
    use system::{Config, DomainConfig, FileId, MemoryBacking, OnReboot, Quotas, Share};

    /// A disk that does what it is asked at the next look, or fails from some request on.
    #[derive(Debug)]
    struct Fake {
        serial: &'static str,
        bytes: Vec<u8>,
        waiting: Mutex<Vec<Request>>,
        good: AtomicU32,
    }

    impl BlockDevice for Fake {
        fn info(&self) -> DiskInfo<'_> {
            DiskInfo {
                place: self.serial,
                model: "FAKE",
                serial: self.serial,
                sectors: self.bytes.len() as u64 / 512,
                reach: Hpa::new(1 << 32),
            }
        }

        fn submit(&self, request: Request) -> Result<(), IoError> {
            self.waiting.lock().push(request);
            Ok(())
        }

        fn deadline(&self) -> Tsc {
            Tsc::NEVER
        }

        fn look(&self) {
            let Some(request) = self.waiting.lock().pop() else {
                return;
            };
            let left = self.good.load(Ordering::Relaxed);
            self.good.store(left.saturating_sub(1), Ordering::Relaxed);
            if left == 0 {
                request.complete(Err(IoError));
                return;
            }
            let mut at = request.sector as usize * 512;
            for span in request.spans() {
                let page = testing::held(span.start);
                let offset = span.start.raw() as usize % PAGE_SIZE;
                let len = usize::from(span.len);
                page.write(offset, &self.bytes[at..at + len]);
                at += len;
            }
            request.complete(Ok(()));
        }
    }

    fn fake(serial: &'static str, bytes: Vec<u8>, good: u32) -> &'static dyn BlockDevice {
        testing::init();
        Box::leak(Box::new(Fake {
            serial,
            bytes,
            waiting: Mutex::new(Vec::new()),
            good: AtomicU32::new(good),
        }))
    }

    fn domain(name: &str, disks: &[(&str, DiskPart, bool)]) -> DomainConfig {
        let disks = disks
            .iter()
            .zip(0..)
            .map(|((of, part, read_only), name)| DiskConfig {
                name: DiskName(name),
                source: DiskSource::Machine {
                    disk: (*of).into(),
                    part: part.clone(),
                },
                read_only: *read_only,
            });
        DomainConfig {
            name: name.into(),
            kernel: FileId(0),
            initrd: None,
            cmdline: String::new(),
            memory_pages: 4096,
            backing: MemoryBacking::default(),
            vcpus: 1,
            affinity: None,
            quotas: Quotas::usual(1, 4096),
            share: Share::default(),
            on_reboot: OnReboot::Stop,
            disks: disks.collect(),
            vifs: Vec::new(),
        }
    }

    /// What becomes of each disk: its range, or why not.
    fn claims(
        devices: &[&'static dyn BlockDevice],
        domains: Vec<DomainConfig>,
    ) -> Vec<Result<(u64, u64), String>> {
        let config = Config {
            domains,
            ..Config::default()
        };
        let devices = Box::leak(devices.to_vec().into_boxed_slice());
        let found = settle(devices, &config, Hpa::new(1 << 31));
        let range = |found: Result<&'static super::RealDisk, String>| {
            found.map(|disk| (disk.first, disk.sectors))
        };
        found
            .into_iter()
            .map(|(_, _, found)| range(found))
            .collect()
    }

    fn range(first: u64, sectors: u64) -> DiskPart {
        DiskPart::Range { first, sectors }
    }

    #[test]
    fn parts_are_found_by_all_their_names() {
        let table = disk(&[("root", 40, 99), ("twin", 100, 109), ("twin", 110, 119)]);
        let devices = [
            fake("S1", table, 1000),
            fake("S2", std::vec![0; 51_200], 1000),
        ];
        let named = |name: &str| DiskPart::Name(name.into());
        let uuid = |byte| DiskPart::Uuid(Uuid::from_bytes([byte; 16]));
        let wanted = [
            ("S1", named("root"), Ok((40, 60))),
            ("S1", uuid(3), Ok((110, 10))),
            ("S2", DiskPart::Whole, Ok((0, 100))),
            ("S1", range(0, 4), Ok((0, 4))),
            ("S1", named("none"), Err("it has no partition \"none\"")),
            ("S1", named("twin"), Err("more than one partition \"twin\"")),
            ("S1", uuid(9), Err("it has no partition 09090909-")),
            ("S2", named("root"), Err("it has no GUID partition table")),
            (
                "S1",
                range(SECTORS - 1, 2),
                Err("reach behind its end: it has 200"),
            ),
            ("S3", DiskPart::Whole, Err("no such disk")),
            ("FAKE", DiskPart::Whole, Err("S1 and S2 are called so")),
        ];
        for (of, part, wanted) in wanted {
            let found = claims(
                &devices,
                std::vec![domain("a", &[(of, part.clone(), false)])],
            );
            match (&found[0], wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(*found, wanted),
                (Err(why), Err(words)) => assert!(why.contains(words), "{why}"),
                (found, _) => panic!("{of} {part}: {found:?}"),
            }
        }
    }

    #[test]
    fn sectors_that_are_written_are_given_once() {
        let devices = [fake("S1", disk(&[("root", 40, 99)]), 1000)];
        let domains = std::vec![
            domain("a", &[("S1", range(50, 10), false)]),
            domain("b", &[("S1", DiskPart::Name("root".into()), false)]),
            domain(
                "c",
                &[("S1", range(59, 1), true), ("S1", range(60, 40), true)]
            ),
            domain("d", &[("S1", range(60, 40), true)]),
            domain("e", &[("S1", range(99, 9), false)]),
        ];
        let found = claims(&devices, domains);
        let good: Vec<bool> = found.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, false, true, true, false]);
        let why = found[1].clone().unwrap_err();
        assert!(
            why.contains("b/xvda and a/xvda overlap on it and may write: a/xvda has it"),
            "{why}"
        );
        let why = found[5].clone().unwrap_err();
        assert!(why.contains("e/xvda and c/xvdb overlap"), "{why}");
    }

    #[test]
    fn a_disk_that_fails_has_no_table() {
        for good in 0..4 {
            let devices = [fake("S1", disk(&[("root", 40, 99)]), good)];
            let part = DiskPart::Name("root".into());
            let found = claims(&devices, std::vec![domain("a", &[("S1", part, true)])]);
            let why = found[0].clone().unwrap_err();
            assert!(why.contains("its partition table cannot be read"), "{why}");
        }
    }

    #[test]
    fn any_sectors_are_read_from_wherever_they_are() {
        let bytes: Vec<u8> = (0..100 * 512)
            .map(|at| (at / 512 * 3 + at % 7) as u8)
            .collect();
        let device = fake("S1", bytes.clone(), u32::MAX);
        for (sector, count) in [(0, 1), (1, 1), (7, 2), (99, 1), (92, 8), (3, 97), (0, 100)] {
            let mut out = std::vec![0; count * 512];
            assert_eq!(read(device, sector, &mut out), Ok(()), "{sector} {count}");
            let at = sector as usize * 512;
            assert_eq!(out, bytes[at..at + count * 512], "{sector} {count}");
        }
    }
}
