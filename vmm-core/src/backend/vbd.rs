//! Disks: the back end of block devices (`public/io/blkif.h`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use abi::blkif::{SECTOR_SIZE, info};
use abi::{DomId, EvtchnPort, GrantRef, PAGE_SIZE};
use lists::TryPush as _;
use pv_drivers::blk::proto::Protocol;
use pv_drivers::blk::{Disk as _, MAX_INDIRECT_SEGMENTS, Queue};
use pv_drivers::ring::MAX_PAGES;
use spin::Mutex;
use system::{Archive, ArchiveError, DiskConfig, DiskName};
use xenstore::Error;

use super::driver::Outcome;
use super::front::{Front, Mapped, Refusal};
use super::keys::{Announcement, Keys, Prefix};
use crate::storage::RamDisk;

/// The most queues of one disk.
const MAX_QUEUES: u32 = 4;
/// Segments of one queue that are moved in one step: of up to 4 KiB each, which cost up to 3,000
/// instructions if they are the first ones written to pages of the disk.
const STEP: usize = 4;

/// A disk of a domain.
#[derive(Debug)]
pub(super) struct Vbd {
    name: DiskName,
    disk: RamDisk,
    /// Every queue it may have; those that are there are connected.
    queues: Box<[Mutex<Option<Channel>>]>,
}

#[derive(Debug)]
struct Channel {
    queue: Queue<Mapped>,
    port: EvtchnPort,
}

impl Vbd {
    /// The disk of a description, for a domain with so many vCPUs.
    pub(super) fn new(
        archive: &Archive<'static>,
        config: &DiskConfig,
        owner: DomId,
        vcpus: u32,
        give_way: &mut dyn FnMut(),
    ) -> Result<Self, ArchiveError> {
        let image = match config.image {
            Some(id) => archive.file(id, give_way)?,
            None => &[],
        };
        let queues = (0..vcpus.clamp(1, MAX_QUEUES)).map(|_| Mutex::new(None));
        Ok(Self {
            name: config.name,
            disk: RamDisk::new(owner, image, config.sectors, config.read_only),
            queues: queues.collect(),
        })
    }

    pub(super) fn queues(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn announce(&self, keys: &mut Announcement<'_>) -> Result<(), Error> {
        keys.set_front("virtual-device", self.name.virtual_device())?;
        keys.set_front("device-type", "disk")?;
        keys.set_front("trusted", 1)?;
        keys.set("dev", self.name)?;
        keys.set("device-type", "disk")?;
        keys.set("mode", if self.disk.is_read_only() { "r" } else { "w" })?;
        keys.set("removable", 0)?;
        keys.set("bootable", 1)?;
        keys.set("max-ring-page-order", MAX_PAGES.ilog2())?;
        keys.set("multi-queue-max-queues", self.queues())?;
        keys.set("feature-max-indirect-segments", MAX_INDIRECT_SEGMENTS)?;
        let writes = u8::from(!self.disk.is_read_only());
        keys.set("feature-flush-cache", writes)?;
        keys.set("feature-barrier", writes)?;
        keys.set("feature-discard", writes)?;
        keys.set("discard-granularity", PAGE_SIZE)?;
        keys.set("discard-alignment", 0)?;
        keys.set("discard-secure", 0)
    }

    pub(super) fn describe(&self, keys: &mut Keys<'_, '_>) -> Result<(), Error> {
        keys.set("sectors", self.disk.sectors())?;
        keys.set("sector-size", SECTOR_SIZE)?;
        keys.set("physical-sector-size", PAGE_SIZE)?;
        let read_only = if self.disk.is_read_only() {
            info::READONLY
        } else {
            0
        };
        keys.set("info", read_only)
    }

    pub(super) fn connect(&self, keys: &Keys<'_, '_>, front: Front<'_>) -> Result<(), Refusal> {
        let protocol = Protocol::parse(keys.front("protocol")).ok_or(Refusal::Key("protocol"))?;
        let what = "multi-queue-num-queues";
        let count = keys.front_number(what, what)?.unwrap_or(1);
        if !(1..=self.queues().into()).contains(&count) {
            return Err(Refusal::Key(what));
        }
        for (number, slot) in (0..u16::MAX).zip(&self.queues).take(count as usize) {
            let prefix = (count > 1).then_some(number);
            let channel = connect_queue(keys, front, protocol, number, Prefix(prefix))?;
            *slot.lock() = Some(channel);
        }
        Ok(())
    }

    pub(super) fn disconnect(&self, front: Front<'_>) {
        for (number, slot) in (0..u16::MAX).zip(&self.queues) {
            let channel = slot.lock().take();
            if let Some(Channel { queue, port }) = channel {
                front.unbind(port, number);
                queue.into_pages().for_each(|page| front.unmap(page));
            }
        }
    }

    /// Gives back what was written, a step at a time.
    pub(super) fn clear(&self, mut give_way: impl FnMut()) {
        let mut sector = 0;
        let left = |sector| self.disk.sectors().saturating_sub(sector);
        while left(sector) != 0 {
            let done = self.disk.discard(sector, left(sector));
            sector = sector.saturating_add(done.max(1));
            give_way();
        }
    }

    pub(super) fn serve(&self, front: Front<'_>, queue: u16) -> Result<Outcome, Refusal> {
        let Some(slot) = self.queues.get(usize::from(queue)) else {
            return Ok(Outcome::default());
        };
        let mut slot = slot.lock();
        let Some(Channel { queue, port }) = &mut *slot else {
            return Ok(Outcome::default());
        };
        let served = queue.serve(&front, &self.disk, STEP)?;
        Ok(Outcome {
            notify: served.notify.then_some(*port),
            more: served.more,
        })
    }
}

impl fmt::Display for Vbd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// Maps a queue's ring and binds its port; on failure all is let go.
fn connect_queue(
    keys: &Keys<'_, '_>,
    front: Front<'_>,
    protocol: Protocol,
    number: u16,
    prefix: Prefix,
) -> Result<Channel, Refusal> {
    let what = "event-channel";
    let port = keys.front_number(format_args!("{prefix}{what}"), what)?;
    let port = EvtchnPort(port.ok_or(Refusal::Key(what))?);
    let grefs = ring_grefs(keys, prefix)?;
    let mut pages = Vec::new();
    // First, since a page that finds no place would have to be unmapped.
    let room = pages.try_reserve_exact(grefs.len());
    room.map_err(|_| Refusal::Memory)?;
    let mapped = grefs.iter().try_for_each(|gref| {
        let pushed = pages.try_push(front.map(*gref)?);
        pushed.map_err(|_| Refusal::Memory)
    });
    if let Err(refusal) = mapped.and_then(|()| front.bind(port, number)) {
        pages.into_iter().for_each(|page| front.unmap(page));
        return Err(refusal);
    }
    // There are as many pages as a ring may have.
    let queue = Queue::attach(pages, protocol).ok_or(Refusal::Key("ring-page-order"))?;
    Ok(Channel { queue, port })
}

fn ring_grefs(
    keys: &Keys<'_, '_>,
    prefix: Prefix,
) -> Result<heapless::Vec<GrantRef, MAX_PAGES>, Refusal> {
    let what = "ring-ref";
    let mut grefs = heapless::Vec::new();
    let mut add = |gref: Option<u32>| {
        let gref = GrantRef(gref.ok_or(Refusal::Key(what))?);
        grefs
            .push(gref)
            .map_err(|_| Refusal::Key("ring-page-order"))
    };
    match keys.front_number("ring-page-order", "ring-page-order")? {
        None => add(keys.front_number(format_args!("{prefix}ring-ref"), what)?)?,
        Some(order) => {
            if order > MAX_PAGES.ilog2() {
                return Err(Refusal::Key("ring-page-order"));
            }
            for page in 0..1u32 << order {
                add(keys.front_number(format_args!("{prefix}ring-ref{page}"), what)?)?;
            }
        }
    }
    Ok(grefs)
}
