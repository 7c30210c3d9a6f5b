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
use super::{Begun, Disk, IoError, Piece, Tag, Transfer, sectors_of};
use crate::grants::Grants;
use crate::ring::{self, Broken, Memory};
use crate::shared_page::SharedPage;

/// The most segments of an indirect request, for `feature-max-indirect-segments`.
pub const MAX_INDIRECT_SEGMENTS: usize = 256;
// So they are all in the first page.
const _: () = assert!(MAX_INDIRECT_SEGMENTS <= SEGMENTS_PER_PAGE);

/// With so many segments under way no further request is taken up, so that what is held for them
/// has a bound: twice as many.
pub const MAX_UNDER_WAY: usize = 256;

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
    /// Segments of the requests that the disk answers later.
    under_way: usize,
    /// A request that was begun and is not done.
    current: Option<Current>,
}

/// A request that has been checked, and how far it got: it goes on in the next call when the share
/// of one ends.
#[derive(Clone, Copy, Debug)]
struct Current {
    id: u64,
    operation: u8,
    /// Where it goes on.
    sector: u64,
    rest: Rest,
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    /// To move data: the segments from this one on.
    Segments(Kind, usize),
    /// To forget this many sectors.
    Discard(u64),
}

impl<P: Deref<Target = SharedPage>> Queue<P> {
    /// Takes up a ring in these pages; `None` when they are none, or too many.
    pub fn attach(pages: impl IntoIterator<Item = P>, protocol: Protocol) -> Option<Self> {
        let memory = Memory::new(pages, protocol.entry_size())?;
        Some(Self {
            ring: ring::Back::attach(memory),
            protocol,
            segments: Vec::new(),
            under_way: 0,
            current: None,
        })
    }

    /// Carries out the requests that wait, about as many as have `share` segments.
    ///
    /// # Errors
    /// [`Broken`]: the front end's index makes no sense.
    pub fn serve<G: Grants>(
        &mut self,
        grants: &G,
        disk: &impl Disk<G>,
        share: usize,
    ) -> Result<Served, Broken> {
        let mut left = share;
        let mut served = Served::default();
        loop {
            while left != 0 && !self.is_full() && self.serve_one(grants, disk, &mut left)? {}
            served.notify |= self.ring.publish();
            if self.is_full() {
                // The answers bring us back.
                return Ok(served);
            }
            served.more = self.current.is_some();
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

    const fn is_full(&self) -> bool {
        self.under_way >= MAX_UNDER_WAY
    }

    /// Takes note of what became of a request that the disk has taken over. [`Queue::serve`] is to
    /// follow, which shows the response.
    pub fn answer(&mut self, tag: Tag, result: Result<(), IoError>) {
        self.under_way = self.under_way.saturating_sub(tag.segments.max(1));
        let answer = result.map_or(status::ERROR, |()| status::OKAY);
        self.respond(tag.id, tag.operation, answer);
    }

    /// Goes on with the request that was begun, or with the next one, as far as the share goes; false
    /// when there is none.
    fn serve_one<G: Grants>(
        &mut self,
        grants: &G,
        disk: &impl Disk<G>,
        left: &mut usize,
    ) -> Result<bool, Broken> {
        let Some(mut current) = self.current.take() else {
            return self.begin(grants, disk, left);
        };
        while *left != 0 {
            if let Some(answer) = self.step(grants, disk, &mut current, left) {
                self.respond(current.id, current.operation, answer);
                return Ok(true);
            }
        }
        self.current = Some(current);
        Ok(true)
    }

    /// Takes the next request and checks it: it is refused, or becomes the current one. False when
    /// there is none.
    fn begin<G: Grants>(
        &mut self,
        grants: &G,
        disk: &impl Disk<G>,
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
        let begun = match body {
            Body::Transfer {
                kind,
                sector,
                segments,
            } => {
                let begun = self
                    .gather(grants, &entry, segments)
                    .and_then(|()| self.check_transfer(disk, kind, sector))
                    .and_then(|()| {
                        let tag = Tag {
                            id,
                            operation,
                            segments: self.segments.len(),
                        };
                        self.begin_transfer(grants, disk, tag, kind, sector)
                    });
                match begun {
                    Ok(Some(rest)) => Ok((sector, rest)),
                    Ok(None) => {
                        let count = self.segments.len().max(1);
                        self.under_way = self.under_way.saturating_add(count);
                        *left = left.saturating_sub(count);
                        return Ok(true);
                    }
                    Err(IoError) => Err(status::ERROR),
                }
            }
            Body::Discard { secure: true, .. } | Body::Unknown => Err(status::EOPNOTSUPP),
            Body::Discard { sector, count, .. } if is_writable(disk, sector, count) => {
                Ok((sector, Rest::Discard(count)))
            }
            Body::Discard { .. } | Body::Malformed => Err(status::ERROR),
        };
        match begun {
            Ok((sector, rest)) => {
                self.current = Some(Current {
                    id,
                    operation,
                    sector,
                    rest,
                });
            }
            Err(answer) => {
                *left = left.saturating_sub(1);
                self.respond(id, operation, answer);
            }
        }
        Ok(true)
    }

    fn respond(&mut self, id: u64, operation: u8, status: i16) {
        let Self { ring, protocol, .. } = self;
        protocol.respond(id, operation, status, |bytes| ring.respond(bytes));
    }

    /// Checks a transfer whose segments have been gathered.
    fn check_transfer<G>(
        &self,
        disk: &impl Disk<G>,
        kind: Kind,
        sector: u64,
    ) -> Result<(), IoError> {
        let sectors = check(&self.segments)?;
        let in_range = if kind != Kind::Read && sectors != 0 {
            is_writable(disk, sector, sectors)
        } else {
            is_inside(disk, sector, sectors) || sectors == 0
        };
        let needs_data = matches!(kind, Kind::Read | Kind::Write);
        if !in_range || (needs_data && sectors == 0) {
            return Err(IoError);
        }
        Ok(())
    }

    /// Begins a transfer that has been checked; `None` when the disk has taken it over.
    fn begin_transfer<G: Grants>(
        &self,
        grants: &G,
        disk: &impl Disk<G>,
        tag: Tag,
        kind: Kind,
        sector: u64,
    ) -> Result<Option<Rest>, IoError> {
        let transfer = Transfer {
            tag,
            kind,
            sector,
            segments: &self.segments,
        };
        match disk.begin(grants, &transfer) {
            Begun::Whole => Ok(None),
            Begun::Failed => Err(IoError),
            Begun::InPieces => {
                if matches!(kind, Kind::Barrier | Kind::Flush) {
                    disk.flush()?;
                }
                Ok(Some(Rest::Segments(kind, 0)))
            }
        }
    }

    /// A step of a request: one segment, or what the disk discards in one go. The answer when that
    /// was the last one.
    fn step<G: Grants>(
        &self,
        grants: &G,
        disk: &impl Disk<G>,
        current: &mut Current,
        left: &mut usize,
    ) -> Option<i16> {
        let result = match current.rest {
            Rest::Discard(count) => {
                *left = left.saturating_sub(DISCARD_COST);
                let done = if count == 0 {
                    0
                } else {
                    match disk.discard(current.sector, count) {
                        Some(done) => done.max(1),
                        None => return Some(status::EOPNOTSUPP),
                    }
                };
                current.sector = current.sector.saturating_add(done);
                let count = count.saturating_sub(done);
                current.rest = Rest::Discard(count);
                Ok(count == 0)
            }
            Rest::Segments(kind, next) => {
                *left = left.saturating_sub(1);
                self.move_segment(grants, disk, kind, next, &mut current.sector)
                    .and_then(|()| {
                        let next = next.saturating_add(1);
                        current.rest = Rest::Segments(kind, next);
                        let is_last = next >= self.segments.len();
                        if is_last && kind == Kind::Barrier {
                            disk.flush()?;
                        }
                        Ok(is_last)
                    })
            }
        };
        match result {
            Ok(false) => None,
            Ok(true) => Some(status::OKAY),
            Err(IoError) => Some(status::ERROR),
        }
    }

    /// Moves the data of one segment, if there is such, and `at` behind it.
    fn move_segment<G: Grants>(
        &self,
        grants: &G,
        disk: &impl Disk<G>,
        kind: Kind,
        index: usize,
        at: &mut u64,
    ) -> Result<(), IoError> {
        let Some(segment) = self.segments.get(index) else {
            return Ok(());
        };
        let writes = kind != Kind::Read;
        let sectors = sectors_of(segment);
        let moved = grants.with_page(GrantRef(segment.gref), !writes, |page| {
            let piece = Piece {
                sector: *at,
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
        *at = at.saturating_add(sectors.into());
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
const DISCARD_COST: usize = 8;

/// The sectors of all segments together, when each of them stays inside its page.
fn check(segments: &[Segment]) -> Result<u64, IoError> {
    let good = |segment: &Segment| {
        segment.first_sect <= segment.last_sect && segment.last_sect < PAGE_SECTORS
    };
    if !segments.iter().all(good) {
        return Err(IoError);
    }
    let sum = |sum: u64, segment| sum.saturating_add(sectors_of(segment).into());
    Ok(segments.iter().fold(0, sum))
}

fn bytes(sectors: u8) -> usize {
    usize::from(sectors).saturating_mul(SECTOR_SIZE)
}

fn is_inside<G>(disk: &impl Disk<G>, sector: u64, count: u64) -> bool {
    let end = sector.checked_add(count);
    end.is_some_and(|end| end <= disk.sectors())
}

fn is_writable<G>(disk: &impl Disk<G>, sector: u64, count: u64) -> bool {
    !disk.is_read_only() && is_inside(disk, sector, count)
}
