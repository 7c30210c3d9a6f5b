//! The back end of one queue.
//!
//! A request is copied out of the ring once; the copy is checked, and what it says is never read
//! again. Of pages with segments the same. The data itself goes straight between the granted page
//! and the disk.

use core::ops::Deref;

use abi::GrantRef;
use abi::blkif::{SECTOR_SIZE, SEGMENTS_PER_PAGE, Segment, status};
use heapless::Vec;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::proto::{Body, ENTRY_MAX, Entry, Kind, Protocol, Request, Segments};
use super::{Disk, IoError, Piece};
use crate::grants::Grants;
use crate::ring::{self, Broken, Memory};
use crate::shared_page::SharedPage;

/// The most segments of an indirect request, for `feature-max-indirect-segments`.
pub const MAX_INDIRECT_SEGMENTS: usize = 256;
// So they are all in the first page.
const _: () = assert!(MAX_INDIRECT_SEGMENTS <= SEGMENTS_PER_PAGE);

/// Sectors in a page.
const PAGE_SECTORS: u8 = 8;

/// What [`Queue::serve`] left to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "the front end may sleep until it is told"]
pub struct Served {
    /// The front end is to get an event.
    pub notify: bool,
    /// Requests are left, beyond the share of this call.
    pub more: bool,
}

/// The back end of one queue: its ring, whose pages it holds as `P`.
#[derive(Debug)]
pub struct Queue<P> {
    ring: ring::Back<P>,
    protocol: Protocol,
    /// Of the request being served.
    segments: Vec<Segment, MAX_INDIRECT_SEGMENTS>,
    /// A long request that goes on in the next call.
    discard: Option<Discard>,
}

#[derive(Debug)]
struct Discard {
    id: u64,
    operation: u8,
    sector: u64,
    left: u64,
}

impl<P: Deref<Target = SharedPage>> Queue<P> {
    /// Takes up a ring in these pages; `None` when they are none, or too many.
    pub fn attach(pages: impl IntoIterator<Item = P>, protocol: Protocol) -> Option<Self> {
        let memory = Memory::new(pages, protocol.entry_size())?;
        Some(Self {
            ring: ring::Back::attach(memory),
            protocol,
            segments: Vec::new(),
            discard: None,
        })
    }

    /// Carries out the requests that wait, about as many as have `share` segments.
    ///
    /// # Errors
    /// [`Broken`]: the front end's index makes no sense.
    pub fn serve(
        &mut self,
        grants: &impl Grants,
        disk: &impl Disk,
        share: usize,
    ) -> Result<Served, Broken> {
        let mut left = share;
        let mut served = Served::default();
        loop {
            let done = self.go_on(disk, &mut left);
            while done && left != 0 && self.serve_one(grants, disk, &mut left)? {}
            served.notify |= self.ring.publish();
            served.more = self.discard.is_some();
            if left == 0 {
                served.more |= self.ring.waiting()? != 0;
            }
            // Who has more to do looks again by itself.
            if served.more || !self.ring.rearm()? {
                return Ok(served);
            }
            if left == 0 {
                served.more = true;
                return Ok(served);
            }
        }
    }

    /// Serves the next request; false when there is none, or it goes on later.
    fn serve_one(
        &mut self,
        grants: &impl Grants,
        disk: &impl Disk,
        left: &mut usize,
    ) -> Result<bool, Broken> {
        let mut entry = [0; ENTRY_MAX];
        let size = self.protocol.entry_size();
        if !self.ring.take(entry.get_mut(..size).unwrap_or_default())? {
            return Ok(false);
        }
        let Request {
            id,
            operation,
            body,
        } = self.protocol.decode(&entry);
        let answer = match body {
            Body::Transfer {
                kind,
                sector,
                segments,
            } => {
                let result = self
                    .gather(grants, &entry, segments)
                    .and_then(|()| self.transfer(grants, disk, kind, sector));
                *left = left.saturating_sub(self.segments.len().max(1));
                result.map_or(status::ERROR, |()| status::OKAY)
            }
            Body::Discard { secure: true, .. } | Body::Unknown => {
                *left = left.saturating_sub(1);
                status::EOPNOTSUPP
            }
            Body::Discard { sector, count, .. } if is_writable(disk, sector, count) => {
                self.discard = Some(Discard {
                    id,
                    operation,
                    sector,
                    left: count,
                });
                return Ok(self.go_on(disk, left));
            }
            Body::Discard { .. } | Body::Malformed => {
                *left = left.saturating_sub(1);
                status::ERROR
            }
        };
        self.respond(id, operation, answer);
        Ok(true)
    }

    fn respond(&mut self, id: u64, operation: u8, status: i16) {
        let Self { ring, protocol, .. } = self;
        protocol.respond(id, operation, status, |bytes| ring.respond(bytes));
    }

    /// Goes on with a long request; true when there is none any more.
    fn go_on(&mut self, disk: &impl Disk, left: &mut usize) -> bool {
        while let Some(discard) = &mut self.discard {
            if discard.left == 0 {
                let (id, operation) = (discard.id, discard.operation);
                self.discard = None;
                self.respond(id, operation, status::OKAY);
                return true;
            }
            if *left == 0 {
                return false;
            }
            let done = disk.discard(discard.sector, discard.left).max(1);
            discard.sector = discard.sector.saturating_add(done);
            discard.left = discard.left.saturating_sub(done);
            *left = left.saturating_sub(DISCARD_COST);
        }
        true
    }

    fn transfer(
        &mut self,
        grants: &impl Grants,
        disk: &impl Disk,
        kind: Kind,
        sector: u64,
    ) -> Result<(), IoError> {
        let sectors = check(&self.segments)?;
        let writes = kind != Kind::Read;
        let in_range = if writes && sectors != 0 {
            is_writable(disk, sector, sectors)
        } else {
            is_inside(disk, sector, sectors) || sectors == 0
        };
        let needs_data = matches!(kind, Kind::Read | Kind::Write);
        if !in_range || (needs_data && sectors == 0) {
            return Err(IoError);
        }
        if matches!(kind, Kind::Barrier | Kind::Flush) {
            disk.flush()?;
        }
        let mut at = sector;
        for segment in &self.segments {
            let sectors = sectors_of(segment);
            let moved = grants.with_page(GrantRef(segment.gref), !writes, |page| {
                let piece = Piece {
                    sector: at,
                    page,
                    offset: bytes(segment.first_sect),
                    len: bytes(sectors),
                };
                if writes {
                    disk.write(piece)
                } else {
                    disk.read(piece)
                }
            });
            moved.ok_or(IoError)??;
            at = at.saturating_add(sectors.into());
        }
        if kind == Kind::Barrier {
            disk.flush()?;
        }
        Ok(())
    }

    /// Takes a private copy of a request's segments.
    fn gather(
        &mut self,
        grants: &impl Grants,
        entry: &Entry,
        segments: Segments,
    ) -> Result<(), IoError> {
        self.segments.clear();
        match segments {
            Segments::Direct(count) => {
                for index in 0..count {
                    let segment = self.protocol.segment(entry, index).ok_or(IoError)?;
                    self.segments.push(segment).map_err(|_| IoError)?;
                }
            }
            Segments::Indirect { count, gref } => {
                let (count, new) = (usize::from(count), Segment::new_zeroed());
                self.segments.resize(count, new).map_err(|_| IoError)?;
                let out = self.segments.as_mut_slice().as_mut_bytes();
                let read = grants.with_page(GrantRef(gref), false, |page| page.read(0, out));
                read.ok_or(IoError)?;
            }
        }
        Ok(())
    }

    /// Gives the ring's pages back.
    pub fn into_pages(self) -> impl Iterator<Item = P> {
        self.ring.into_pages()
    }
}

/// What one step of a discard counts, in segments.
const DISCARD_COST: usize = 16;

/// The sectors of all segments together, when each of them stays inside its page.
fn check(segments: &[Segment]) -> Result<u64, IoError> {
    let good = |segment: &Segment| {
        segment.first_sect <= segment.last_sect && segment.last_sect < PAGE_SECTORS
    };
    if segments.iter().all(good) {
        Ok(segments.iter().map(|s| u64::from(sectors_of(s))).sum())
    } else {
        Err(IoError)
    }
}

const fn sectors_of(segment: &Segment) -> u8 {
    let more = segment.last_sect.saturating_sub(segment.first_sect);
    more.saturating_add(1)
}

fn bytes(sectors: u8) -> usize {
    usize::from(sectors).saturating_mul(SECTOR_SIZE)
}

fn is_inside(disk: &impl Disk, sector: u64, count: u64) -> bool {
    let end = sector.checked_add(count);
    end.is_some_and(|end| end <= disk.sectors())
}

fn is_writable(disk: &impl Disk, sector: u64, count: u64) -> bool {
    !disk.is_read_only() && is_inside(disk, sector, count)
}
