//! Disks: the back end of block devices (`public/io/blkif.h`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::blkif::{SECTOR_SIZE, info};
use abi::{DomId, EvtchnPort, GrantRef, PAGE_SIZE};
use lists::TryPush as _;
use pv_drivers::blk::proto::Protocol;
use pv_drivers::blk::{
    Begun, Disk, IoError, MAX_INDIRECT_SEGMENTS, Piece, Queue, Served, Tag, Transfer,
};
use pv_drivers::ring::MAX_PAGES;
use spin::Mutex;
use system::{Archive, DiskConfig, DiskName, DiskSource};
use xenstore::Error;

use super::DeviceError;
use super::driver::Outcome;
use super::front::{Front, Mapped, Refusal};
use super::keys::{Announcement, Keys, Prefix};
use crate::storage::{Origin, RamDisk, RealDisk, claims};

/// The most queues of one disk.
pub const MAX_QUEUES: u32 = 4;
/// Segments of one queue that are moved in one step: of up to 4 KiB each, which cost up to 3,000
/// instructions if they are the first ones written to pages of the disk. A disk of the machine takes
/// one whole request in a step.
const STEP: usize = 4;

/// A disk of a domain.
#[derive(Debug)]
pub(super) struct Vbd {
    name: DiskName,
    storage: Storage,
    /// Every queue it may have; those that are there are connected.
    queues: Box<[Mutex<Option<Channel>>]>,
    /// How many connections its queues have had.
    connections: AtomicU64,
}

/// What stands behind it.
#[derive(Debug)]
enum Storage {
    Ram(RamDisk),
    Real(&'static RealDisk),
}

#[derive(Debug)]
struct Channel {
    queue: Queue<Mapped>,
    port: EvtchnPort,
    /// Which of all connections it is.
    connection: u64,
}

/// A disk of the machine, for one queue.
struct Behind {
    disk: &'static RealDisk,
    queue: u16,
    connection: u64,
}

impl Disk<Front<'_>> for Behind {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    fn begin(&self, front: &Front<'_>, transfer: &Transfer<'_>) -> Begun {
        let origin = front.origin(self.queue, self.connection);
        let hold = |gref, write| front.hold(gref, write);
        self.disk.begin(origin, transfer, hold)
    }

    // It takes all requests over whole.
    fn read(&self, _: Piece<'_>) -> Result<(), IoError> {
        Err(IoError)
    }

    fn write(&self, _: Piece<'_>) -> Result<(), IoError> {
        Err(IoError)
    }

    fn flush(&self) -> Result<(), IoError> {
        Err(IoError)
    }

    fn discard(&self, _: u64, _: u64) -> Option<u64> {
        None
    }
}

impl Vbd {
    /// A disk of a description, by the places of domain and disk there, for a domain with so many
    /// vCPUs.
    pub(super) fn new(
        archive: &Archive<'static>,
        (domain, number): (usize, usize),
        config: &DiskConfig,
        owner: DomId,
        vcpus: u32,
        give_way: &mut dyn FnMut(),
    ) -> Result<Self, DeviceError> {
        let storage = match config.source {
            DiskSource::Ram { image, sectors } => {
                let image = match image {
                    Some(id) => archive.file(id, give_way)?,
                    None => &[],
                };
                Storage::Ram(RamDisk::new(owner, image, sectors, config.read_only))
            }
            DiskSource::Machine { .. } => {
                let disk = claims::find(domain, number).map_err(DeviceError::Disk)?;
                Storage::Real(disk)
            }
        };
        let queues = (0..vcpus.clamp(1, MAX_QUEUES)).map(|_| Mutex::new(None));
        Ok(Self {
            name: config.name,
            storage,
            queues: queues.collect(),
            connections: AtomicU64::new(0),
        })
    }

    fn sectors(&self) -> u64 {
        match &self.storage {
            Storage::Ram(disk) => disk.sectors(),
            Storage::Real(disk) => disk.sectors(),
        }
    }

    fn is_read_only(&self) -> bool {
        match &self.storage {
            Storage::Ram(disk) => disk.is_read_only(),
            Storage::Real(disk) => disk.is_read_only(),
        }
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
        keys.set("mode", if self.is_read_only() { "r" } else { "w" })?;
        keys.set("removable", 0)?;
        keys.set("bootable", 1)?;
        keys.set("max-ring-page-order", MAX_PAGES.ilog2())?;
        keys.set("multi-queue-max-queues", self.queues())?;
        keys.set("feature-max-indirect-segments", MAX_INDIRECT_SEGMENTS)?;
        let writes = u8::from(!self.is_read_only());
        keys.set("feature-flush-cache", writes)?;
        keys.set("feature-barrier", writes)?;
        let discards = matches!(self.storage, Storage::Ram(_));
        keys.set("feature-discard", writes & u8::from(discards))?;
        keys.set("discard-granularity", PAGE_SIZE)?;
        keys.set("discard-alignment", 0)?;
        keys.set("discard-secure", 0)
    }

    pub(super) fn describe(&self, keys: &mut Keys<'_, '_>) -> Result<(), Error> {
        keys.set("sectors", self.sectors())?;
        keys.set("sector-size", SECTOR_SIZE)?;
        keys.set("physical-sector-size", PAGE_SIZE)?;
        let read_only = if self.is_read_only() {
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
            let (queue, port) = connect_queue(keys, front, protocol, number, Prefix(prefix))?;
            *slot.lock() = Some(Channel {
                queue,
                port,
                connection: self.connections.fetch_add(1, Ordering::Relaxed),
            });
        }
        Ok(())
    }

    pub(super) fn disconnect(&self, front: Front<'_>) {
        for (number, slot) in (0..u16::MAX).zip(&self.queues) {
            let channel = slot.lock().take();
            if let Some(Channel { queue, port, .. }) = channel {
                front.unbind(port, number);
                queue.into_pages().for_each(|page| front.unmap(page));
            }
        }
    }

    /// Gives back what was written, a step at a time, and waits for what a disk of the machine has
    /// to do with the domain's pages.
    pub(super) fn clear(&self, mut give_way: impl FnMut()) {
        match &self.storage {
            Storage::Ram(disk) => {
                let mut sector = 0;
                let left = |sector| disk.sectors().saturating_sub(sector);
                while left(sector) != 0 {
                    let done = disk.discard(sector, left(sector));
                    sector = sector.saturating_add(done.max(1));
                    give_way();
                }
            }
            Storage::Real(disk) => {
                while disk.is_busy() {
                    disk.look();
                    give_way();
                }
            }
        }
    }

    pub(super) fn serve(&self, front: Front<'_>, queue: u16) -> Result<Outcome, Refusal> {
        self.with(queue, |channel| self.serve_channel(front, queue, channel))
    }

    /// A disk of the machine is done with a request of a queue's.
    pub(super) fn answer(
        &self,
        front: Front<'_>,
        origin: &Origin,
        tag: Tag,
        result: Result<(), IoError>,
    ) -> Result<Outcome, Refusal> {
        let queue = origin.queue.queue;
        self.with(queue, |channel| {
            // A later connection has not asked.
            if channel.connection != origin.connection {
                return Ok(Outcome::default());
            }
            channel.queue.answer(tag, result);
            self.serve_channel(front, queue, channel)
        })
    }

    fn with(
        &self,
        queue: u16,
        act: impl FnOnce(&mut Channel) -> Result<Outcome, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let Some(slot) = self.queues.get(usize::from(queue)) else {
            return Ok(Outcome::default());
        };
        slot.lock().as_mut().map_or(Ok(Outcome::default()), act)
    }

    fn serve_channel(
        &self,
        front: Front<'_>,
        queue: u16,
        channel: &mut Channel,
    ) -> Result<Outcome, Refusal> {
        let Served { notify, more } = match &self.storage {
            Storage::Ram(disk) => channel.queue.serve(&front, disk, STEP)?,
            Storage::Real(disk) => {
                let behind = Behind {
                    disk,
                    queue,
                    connection: channel.connection,
                };
                channel.queue.serve(&front, &behind, STEP)?
            }
        };
        Ok(Outcome {
            notify: notify.then_some(channel.port),
            more,
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
) -> Result<(Queue<Mapped>, EvtchnPort), Refusal> {
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
    Ok((queue, port))
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
