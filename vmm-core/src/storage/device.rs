//! Disks of the machine, and what is asked of them.
//!
//! Boot has the drivers. A [`Transfer`] goes to a [`BlockDevice`] and comes back when it is done:
//! from an interrupt, or when the time has come to look.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

use abi::{Hpa, PAGE_SIZE};
use pv_drivers::blk::IoError;

use crate::mm::page::PageRef;
use crate::time::Tsc;

/// Bytes in a sector.
const SECTOR: u32 = 512;
/// Bytes in a page.
const PAGE: u32 = {
    assert!(PAGE_SIZE == 4096);
    4096
};

/// A disk of the machine.
pub trait BlockDevice: Sync + fmt::Debug {
    /// What it is.
    fn info(&self) -> DiskInfo<'_>;

    /// Takes a transfer over. Not to be called from [`Transfer::complete`].
    ///
    /// # Errors
    /// Gives it back when it cannot be done.
    fn submit(&self, transfer: Transfer) -> Result<(), Transfer>;

    /// When [`BlockDevice::look`] is to be called.
    fn deadline(&self) -> Tsc;

    /// Looks whether something is done or takes too long. Called where no lock is held.
    fn look(&self);
}

/// What a disk is called, and how large it is.
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
}

impl fmt::Display for DiskInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            model,
            serial,
            sectors,
        } = self;
        write!(
            f,
            "{place}: {model}, serial {serial:?}, {} MiB",
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

/// A request to a disk, done in this order: flush, data, flush; what is not asked for is left out.
#[derive(Debug)]
#[must_use = "somebody waits for it"]
pub struct Transfer {
    /// All that was written before is on the medium before the data is written.
    pub flush_before: bool,
    /// Which way the data goes.
    pub direction: Direction,
    /// The first sector.
    pub sector: u64,
    /// What is written is on the medium when the transfer is done.
    pub flush_after: bool,
    buffers: Box<[PageRef]>,
    waiter: Waiter,
}

/// Who hears of the end.
#[derive(Debug)]
enum Waiter {
    /// The hypervisor, as it starts.
    Start(Arc<AtomicU8>),
}

const WAITS: u8 = 0;
const GOOD: u8 = 1;
const BAD: u8 = 2;

impl Transfer {
    /// The pieces of memory, in order: each lies in one page.
    pub fn pieces(&self) -> impl Iterator<Item = (Hpa, u32)> {
        self.buffers.iter().map(|page| (page.mfn().hpa(), PAGE))
    }

    /// How many sectors move.
    #[must_use]
    pub fn sectors(&self) -> u32 {
        let bytes = self.pieces().map(|(_, len)| len);
        bytes.fold(0, u32::saturating_add) / SECTOR
    }

    /// Tells who waits how it went. Called where no lock is held.
    pub fn complete(self, result: Result<(), IoError>) {
        match self.waiter {
            Waiter::Start(said) => {
                let outcome = if result.is_ok() { GOOD } else { BAD };
                said.store(outcome, Ordering::Release);
            }
        }
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.direction {
            _ if self.sectors() == 0 => return f.write_str("a flush"),
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

/// Reads as many sectors as fit into pages below the device's reach, and waits for them: for the
/// start, when nobody else runs.
///
/// # Errors
/// [`IoError`].
pub fn read_now(
    device: &dyn BlockDevice,
    sector: u64,
    pages: Box<[PageRef]>,
) -> Result<(), IoError> {
    let said = Arc::new(AtomicU8::new(WAITS));
    let transfer = Transfer {
        flush_before: false,
        direction: Direction::Read,
        sector,
        flush_after: false,
        buffers: pages,
        waiter: Waiter::Start(Arc::clone(&said)),
    };
    device.submit(transfer).map_err(|_| IoError)?;
    loop {
        match said.load(Ordering::Acquire) {
            WAITS => device.look(),
            GOOD => return Ok(()),
            _ => return Err(IoError),
        }
    }
}
