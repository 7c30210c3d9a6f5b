//! The disk, a piece at a time for each connection.

use abi::blkif::SECTOR_SIZE;
use abi::{EvtchnPort, PAGE_SIZE};
use guests::memory::Page;
use guests::say;
use heapless::Vec;
use pv_drivers::blk::{Buffer, DiskFront, Front, Request};
use pv_drivers::ring::Broken;
use pv_drivers::xenbus::front::Phase;

use crate::Bus;
use crate::connection::CONNECTIONS;

/// The number of `xvda`.
const XVDA: u32 = 51712;
/// Pages of a piece.
const PAGES: usize = 8;
/// Sectors of a page.
const PAGE_SECTORS: usize = PAGE_SIZE / SECTOR_SIZE;
/// Sectors of a piece.
pub(crate) const PIECE: u64 = (PAGES * PAGE_SECTORS) as u64;

static RING: Page = Page::new();
static PIECES: [[Page; PAGES]; CONNECTIONS] =
    [const { [const { Page::new() }; PAGES] }; CONNECTIONS];

/// What became of a connection's piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load {
    /// It is on its way.
    Pending,
    /// It is there.
    Done,
    /// It will not come.
    Failed,
}

/// The disk.
#[derive(Debug)]
pub(crate) struct Disk {
    front: DiskFront,
    loads: [Load; CONNECTIONS],
}

impl Disk {
    /// The first disk, if the domain has one.
    pub(crate) fn find(bus: &mut Bus) -> Option<Self> {
        let front = DiskFront::new(bus, XVDA, Front::new(RING.own())).ok()?;
        Some(Self {
            front,
            loads: [Load::Failed; CONNECTIONS],
        })
    }

    pub(crate) fn port(&self) -> Option<EvtchnPort> {
        self.front.port()
    }

    /// Its size in sectors, once it is connected.
    pub(crate) fn sectors(&self) -> Option<u64> {
        let connected = self.front.phase() == Phase::Connected;
        connected.then(|| self.front.info().sectors)
    }

    /// Does what the back end's state asks for.
    pub(crate) fn look(&mut self, bus: &mut Bus) {
        self.complete(bus);
        if let Err(why) = self.front.look(bus) {
            say!("unikernel: the disk is gone: {why:?}");
        }
        self.lose();
    }

    pub(crate) fn close(&mut self, bus: &mut Bus) {
        if let Err(why) = self.front.close(bus) {
            say!("unikernel: the disk does not close: {why:?}");
        }
    }

    /// What was on its way when a connection ended does not come any more.
    fn lose(&mut self) {
        if self.front.is_idle() {
            for load in &mut self.loads {
                if *load == Load::Pending {
                    *load = Load::Failed;
                }
            }
        }
    }

    /// Begins to read a piece for a connection: at most [`PIECE`] sectors. False when that cannot be
    /// now.
    pub(crate) fn load(&mut self, bus: &mut Bus, number: usize, sector: u64, count: u64) -> bool {
        let Some(pages) = PIECES.get(number) else {
            return false;
        };
        let mut left = usize::try_from(count.min(PIECE)).unwrap_or(0);
        let mut buffers = Vec::<_, PAGES>::new();
        for page in pages {
            let now = left.min(PAGE_SECTORS);
            if now == 0 {
                break;
            }
            // There are as many as pages, and eight sectors at most in each.
            let _ = buffers.push(Buffer {
                page: page.own(),
                first: 0,
                last: u8::try_from(now - 1).unwrap_or(0),
            });
            left -= now;
        }
        let request = Request::Read(sector, &buffers);
        let taken = self.front.submit(bus, request, number as u64).is_ok();
        if taken {
            self.loads[number] = Load::Pending;
            self.front.publish();
            // The answer may be there already.
            self.complete(bus);
        }
        taken
    }

    /// What became of a connection's piece.
    pub(crate) fn state(&self, number: usize) -> Load {
        self.loads.get(number).copied().unwrap_or(Load::Failed)
    }

    /// Takes what the back end has done.
    pub(crate) fn complete(&mut self, bus: &mut Bus) {
        loop {
            match self.front.complete(bus) {
                Ok(None) => return,
                Ok(Some(done)) => {
                    let index = usize::try_from(done.tag).unwrap_or(usize::MAX);
                    if let Some(load) = self.loads.get_mut(index) {
                        *load = match done.result {
                            Ok(()) => Load::Done,
                            Err(_) => Load::Failed,
                        };
                    }
                }
                Err(Broken) => {
                    say!("unikernel: the disk makes no sense");
                    // What is wrong shows in its phase.
                    let _ = self.front.restart(bus);
                    return self.lose();
                }
            }
        }
    }
}

/// Copies bytes of a connection's piece, from `at` on, as many as `out` holds and one page has.
pub(crate) fn read(number: usize, at: usize, out: &mut [u8]) -> usize {
    let page = PIECES
        .get(number)
        .and_then(|pages| pages.get(at / PAGE_SIZE));
    let Some(page) = page else { return 0 };
    let offset = at % PAGE_SIZE;
    let len = out.len().min(PAGE_SIZE - offset);
    page.view().read(offset, &mut out[..len]);
    len
}
