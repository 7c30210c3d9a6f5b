//! Disks of the machine, and what is asked of them.
//!
//! Boot has the drivers. A [`Request`] goes to a [`BlockDevice`] and comes back when it is done,
//! from an interrupt or when the time has come to look; then it tells who asked
//! ([`Request::complete`]). Until then it holds the pages that the device reads or writes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use abi::{Hpa, PAGE_SIZE};
use pv_drivers::blk::IoError;

use super::real::Waiting;
use crate::mm::page::PageRef;
use crate::time::Tsc;

/// Bytes in a sector.
const SECTOR: u32 = 512;
/// Bytes in a page.
const PAGE: u16 = {
    assert!(PAGE_SIZE == 4096);
    4096
};

/// A disk of the machine.
pub trait BlockDevice: Sync {
    /// What it is.
    fn info(&self) -> DiskInfo<'_>;

    /// Takes a request over, to call [`Request::complete`] when it is done, but not from in here.
    ///
    /// # Errors
    /// [`IoError`]: it cannot be done, and nobody hears more of it.
    fn submit(&self, request: Request) -> Result<(), IoError>;

    /// When [`BlockDevice::look`] is to be called.
    fn deadline(&self) -> Tsc;

    /// Looks whether something is done or takes too long. Called where no lock is held.
    fn look(&self);
}

/// What it is, and not what it does: that leads to the domains it works for, and would bring the text
/// of all that is in them into the hypervisor.
impl fmt::Debug for dyn BlockDevice + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info().fmt(f)
    }
}

/// What a disk is called, and what it can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskInfo<'a> {
    /// Where it is: the controller and the place there.
    pub place: &'a str,
    /// The maker's name for its kind.
    pub model: &'a str,
    /// The maker's number for this one; empty if it has none.
    pub serial: &'a str,
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// The end of the memory that it reaches.
    pub reach: Hpa,
}

impl fmt::Display for DiskInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            model,
            serial,
            sectors,
            ..
        } = self;
        write!(
            f,
            "{place}: {model}, serial \"{serial}\", {} MiB",
            sectors / 2048
        )
    }
}

/// Which way data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// A piece of memory for a device: whole sectors in one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub start: Hpa,
    /// How many.
    pub len: u16,
}

/// A request to a disk, done in this order: flush, data, flush; what is not asked for is left out.
#[derive(Debug)]
#[must_use = "somebody waits for it"]
pub struct Request {
    /// All that was written before is on the medium before the data is written.
    pub flush_before: bool,
    /// Which way the data goes.
    pub direction: Direction,
    /// The first sector.
    pub sector: u64,
    /// What is written is on the medium when the request is done.
    pub flush_after: bool,
    /// Where the data goes or comes from.
    pub(super) spans: Vec<Span>,
    pub(super) waiter: Waiter,
}

/// Who hears of the end, and holds the pages until then.
#[derive(Debug)]
pub(super) enum Waiter {
    /// The hypervisor, as it starts.
    Start(Arc<AtomicU8>),
    /// A front end.
    Front(Waiting),
}

const WAITS: u8 = 0;
const GOOD: u8 = 1;
const BAD: u8 = 2;

impl Request {
    /// The pieces of memory, in order.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// How many sectors move.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        let lengths = self.spans.iter().map(|span| u32::from(span.len));
        lengths.fold(0, u32::saturating_add) / SECTOR
    }

    /// Tells who waits how it went. Called where no lock is held.
    pub fn complete(self, result: Result<(), IoError>) {
        match self.waiter {
            Waiter::Start(said) => {
                let outcome = if result.is_ok() { GOOD } else { BAD };
                said.store(outcome, Ordering::Release);
            }
            Waiter::Front(waiting) => waiting.complete(result),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.direction {
            _ if self.spans.is_empty() => return f.write_str("a flush"),
            Direction::Read => "reading",
            Direction::Write => "writing",
        };
        write!(
            f,
            "{what} {} sectors from {} on",
            self.sectors(),
            self.sector
        )
    }
}

/// Reads sectors into pages that the device reaches, and waits for them: for the start, when nobody
/// else runs.
///
/// # Errors
/// [`IoError`].
pub(super) fn read_now(
    device: &dyn BlockDevice,
    sector: u64,
    pages: &[PageRef],
) -> Result<(), IoError> {
    let said = Arc::new(AtomicU8::new(WAITS));
    let span = |page: &PageRef| Span {
        start: page.mfn().hpa(),
        len: PAGE,
    };
    let request = Request {
        flush_before: false,
        direction: Direction::Read,
        sector,
        flush_after: false,
        spans: pages.iter().map(span).collect(),
        waiter: Waiter::Start(Arc::clone(&said)),
    };
    device.submit(request)?;
    loop {
        match said.load(Ordering::Acquire) {
            WAITS => device.look(),
            GOOD => return Ok(()),
            _ => return Err(IoError),
        }
    }
}
