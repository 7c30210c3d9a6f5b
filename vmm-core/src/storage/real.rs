//! A disk of a domain that is a part of a disk of the machine.
//!
//! A front end's request becomes a [`Request`] to the device, with the front end's own pages: held
//! until the device is done, whatever the front end, or its domain, does meanwhile. A page that the
//! device does not reach is replaced by one of the disk's own, and copied.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use abi::blkif::Segment;
use abi::{GrantRef, Hpa};
use lists::TryPush as _;
use pv_drivers::blk::proto::Kind;
use pv_drivers::blk::{Begun, IoError, MAX_UNDER_WAY, Tag, Transfer, sectors_of};
use spin::Mutex;

use super::claims;
use super::device::{BlockDevice, Direction, Request, Span, Waiter};
use crate::backend;
use crate::domain::Domain;
use crate::evtchn::DeviceQueue;
use crate::grant::HeldPage;
use crate::mm::dma::DmaBlock;
use crate::mm::page::PageRef;

/// log2 of the pages that are set aside for each queue of a disk that does not reach all memory: all
/// that can be under way.
const BOUNCE_ORDER: u8 = {
    assert!(MAX_UNDER_WAY == 256);
    9
};

/// The most segments that the device has for one disk of a domain: those of all its queues. Only who
/// connects anew again and again, and leaves what it asked for to the device, comes up to this.
const MAX_SEGMENTS: usize = backend::MAX_DISK_QUEUES as usize * 2 * MAX_UNDER_WAY;

/// Bytes in a sector.
const SECTOR: u16 = 512;

/// A range of a disk of the machine.
#[derive(Debug)]
pub struct RealDisk {
    pub(super) device: &'static dyn BlockDevice,
    pub(super) first: u64,
    pub(super) sectors: u64,
    pub(super) read_only: bool,
    /// Pages that the device reaches, if there are some that it does not.
    bounce: Option<Mutex<Vec<PageRef>>>,
    /// What the device has to do for it.
    under_way: UnderWay,
}

/// Segments of requests that a device has for one disk of a domain, up to [`MAX_SEGMENTS`]. A request
/// without any counts as one.
#[derive(Debug, Default)]
struct UnderWay(AtomicUsize);

/// The queue that a request came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The front end's domain.
    pub domain: Arc<Domain>,
    /// The queue.
    pub queue: DeviceQueue,
    /// Which of the connections that the queue has had.
    pub connection: u64,
}

/// A front end's request on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    disk: &'static RealDisk,
    origin: Origin,
    tag: Tag,
    read: bool,
    pages: Vec<Page>,
}

/// A page of the front end's, in use by the device.
#[derive(Debug)]
struct Page {
    held: HeldPage<Arc<Domain>>,
    /// Where the data is there.
    offset: usize,
    len: usize,
    /// The page that the device uses in its stead.
    bounce: Option<PageRef>,
}

impl RealDisk {
    /// A range of a disk. `end` is the end of RAM, `queues` the most queues that its disk in the
    /// domain has. `None` when there is no memory.
    pub(super) fn new(
        device: &'static dyn BlockDevice,
        (first, sectors): (u64, u64),
        read_only: bool,
        queues: u32,
        end: Hpa,
    ) -> Option<Self> {
        let reach = device.info().reach;
        let bounce = if end > reach {
            let mut pages = Vec::new();
            for _ in 0..queues {
                let block = DmaBlock::alloc(BOUNCE_ORDER, reach)?;
                pages.try_reserve(block.len()).ok()?;
                pages.extend(block.iter().cloned());
            }
            Some(Mutex::new(pages))
        } else {
            None
        };
        Some(Self {
            device,
            first,
            sectors,
            read_only,
            bounce,
            under_way: UnderWay::default(),
        })
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

    /// True while the device has requests.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.under_way.is_nothing()
    }

    /// Looks whether something is done. The caller holds no lock.
    pub fn look(&self) {
        self.device.look();
    }

    /// Begins a transfer for a queue, with the pages that `hold` gives.
    pub fn begin(
        &'static self,
        origin: Origin,
        transfer: &Transfer<'_>,
        hold: impl Fn(GrantRef, bool) -> Option<HeldPage<Arc<Domain>>>,
    ) -> Begun {
        match self.try_begin(origin, transfer, hold) {
            Some(()) => Begun::Whole,
            None => Begun::Failed,
        }
    }

    fn try_begin(
        &'static self,
        origin: Origin,
        transfer: &Transfer<'_>,
        hold: impl Fn(GrantRef, bool) -> Option<HeldPage<Arc<Domain>>>,
    ) -> Option<()> {
        let read = transfer.kind == Kind::Read;
        let mut waiting = Waiting {
            disk: self,
            origin,
            tag: transfer.tag,
            read,
            pages: Vec::new(),
        };
        let mut spans = Vec::new();
        let count = transfer.segments.len();
        waiting.pages.try_reserve_exact(count).ok()?;
        spans.try_reserve_exact(count).ok()?;
        for segment in transfer.segments {
            let held = hold(GrantRef(segment.gref), read)?;
            let (page, span) = self.page(held, segment, read)?;
            waiting.pages.try_push(page).ok()?;
            spans.try_push(span).ok()?;
        }
        let flushes = matches!(transfer.kind, Kind::Flush | Kind::Barrier);
        let request = Request {
            flush_before: flushes,
            direction: if read {
                Direction::Read
            } else {
                Direction::Write
            },
            sector: self.first.checked_add(transfer.sector)?,
            flush_after: flushes && count != 0,
            spans,
            waiter: Waiter::Front(waiting),
        };
        self.under_way.add(count)?;
        let taken = self.device.submit(request);
        if taken.is_err() {
            self.under_way.remove(count);
        } else {
            claims::busy(self.device);
        }
        taken.ok()
    }

    /// Where a segment's data is for the device.
    fn page(
        &self,
        held: HeldPage<Arc<Domain>>,
        segment: &Segment,
        read: bool,
    ) -> Option<(Page, Span)> {
        let first = u16::from(segment.first_sect).checked_mul(SECTOR)?;
        let len = u16::from(sectors_of(segment)).checked_mul(SECTOR)?;
        let (offset, count) = (usize::from(first), usize::from(len));
        let theirs = held.page()?;
        let mut start = held.mfn().hpa().checked_add(first.into())?;
        let mut bounce = None;
        if start >= self.device.info().reach {
            let own = self.bounce.as_ref()?.lock().pop()?;
            if !read {
                own.copy_from(offset, theirs, offset, count);
            }
            start = Hpa::new(own.mfn().hpa().raw() | u64::from(first));
            bounce = Some(own);
        }
        let page = Page {
            held,
            offset,
            len: count,
            bounce,
        };
        Some((page, Span { start, len }))
    }
}

impl UnderWay {
    /// Adds a request of so many segments; `None` when that is too much.
    fn add(&self, segments: usize) -> Option<()> {
        let more = |now: usize| {
            let then = now.checked_add(segments.max(1))?;
            (then <= MAX_SEGMENTS).then_some(then)
        };
        let added = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        added.ok().map(drop)
    }

    /// Removes a request that was added.
    fn remove(&self, segments: usize) {
        self.0.fetch_sub(segments.max(1), Ordering::AcqRel);
    }

    fn is_nothing(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl Drop for Waiting {
    /// Gives back what was set aside; the pages are let go.
    fn drop(&mut self) {
        let Some(pool) = &self.disk.bounce else {
            return;
        };
        let mut pool = pool.lock();
        for page in &mut self.pages {
            if let Some(own) = page.bounce.take() {
                // It came from there, so there is room.
                let _ = pool.try_push(own);
            }
        }
    }
}

impl Waiting {
    /// The device is done: the pages are let go, and then the front end hears of it.
    pub(super) fn complete(self, result: Result<(), IoError>) {
        if self.read && result.is_ok() {
            for page in &self.pages {
                if let (Some(own), Some(theirs)) = (&page.bounce, page.held.page()) {
                    theirs.copy_from(page.offset, own, page.offset, page.len);
                }
            }
        }
        let (disk, origin, tag) = (self.disk, self.origin.clone(), self.tag);
        let count = self.pages.len();
        drop(self);
        disk.under_way.remove(count);
        backend::answer(&origin, tag, result);
    }
}

impl fmt::Display for RealDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.device.info();
        write!(
            f,
            "{} sectors from {} on of {} ({})",
            self.sectors, self.first, info.place, info.model
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SEGMENTS, UnderWay};

    #[test]
    fn what_a_device_has_for_one_disk_is_bounded() {
        let under_way = UnderWay::default();
        let flushes = (0..=MAX_SEGMENTS).take_while(|_| under_way.add(0).is_some());
        assert_eq!(flushes.count(), MAX_SEGMENTS);
        under_way.remove(0);
        assert_eq!(under_way.add(2), None);
        assert_eq!(under_way.add(usize::MAX), None);
        assert_eq!(under_way.add(1), Some(()));
        for _ in 0..MAX_SEGMENTS {
            assert!(!under_way.is_nothing());
            under_way.remove(1);
        }
        assert!(under_way.is_nothing());
    }
}
