//! A front end's requests on their way.

use abi::blkif::{MAX_SEGMENTS, Request as Entry, RequestDiscard, Response, op, status};
use abi::ring::entries;
use abi::{DomId, GrantRef, PAGE_SIZE};
use heapless::Vec;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::IoError;
use crate::guest::gnttab::{Access, Grants};
use crate::guest::page::OwnPage;
use crate::ring::{self, Broken, Memory};
use crate::shared_page::SharedPage;

/// Requests that fit into a ring of one page.
pub const RING_REQUESTS: usize = entries(size_of::<Entry>(), PAGE_SIZE);

/// Sectors of one page.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// The page.
    pub page: OwnPage,
    /// The first sector in it, 0 to 7.
    pub first: u8,
    /// The last one, not before the first.
    pub last: u8,
}

impl Buffer {
    /// All eight sectors of a page.
    #[must_use]
    pub const fn whole(page: OwnPage) -> Self {
        Self {
            page,
            first: 0,
            last: 7,
        }
    }
}

/// What the disk is to do. Sectors have 512 bytes.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Fill the buffers, at most [`MAX_SEGMENTS`], from this sector on.
    Read(u64, &'a [Buffer]),
    /// Write the buffers.
    Write(u64, &'a [Buffer]),
    /// Make durable what has been written.
    Flush,
    /// Forget so many sectors from this one on.
    Discard(u64, u64),
}

/// Why a request was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotTaken {
    /// The ring is full, or the grant table: there is room when others are complete.
    Full,
    /// It has too many buffers, or none.
    Malformed,
}

/// A request that is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// What it was submitted with.
    pub tag: u64,
    /// How it went.
    pub result: Result<(), IoError>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    Pending,
    /// The back end has answered and still had a page in use.
    Answered(i16),
}

#[derive(Debug, Default)]
struct Slot {
    state: State,
    tag: u64,
    grefs: Vec<GrantRef, MAX_SEGMENTS>,
}

/// The ring and what is in it. A request's pages are granted while it is on its way.
#[derive(Debug)]
pub struct Requests {
    ring: ring::Front<OwnPage>,
    slots: [Slot; RING_REQUESTS],
    /// Slots in [`State::Answered`].
    lingering: usize,
}

impl Requests {
    /// Begins with an empty ring in this page.
    #[must_use]
    pub fn new(page: OwnPage) -> Option<Self> {
        let memory = Memory::new([page], size_of::<Entry>())?;
        Some(Self {
            ring: ring::Front::new(memory),
            slots: core::array::from_fn(|_| Slot::default()),
            lingering: 0,
        })
    }

    /// Puts a request into the ring; the back end sees it after [`Requests::publish`]. `tag` comes
    /// back with its completion.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn submit<T: AsRef<[SharedPage]>>(
        &mut self,
        grants: &mut Grants<T>,
        to: DomId,
        request: Request<'_>,
        tag: u64,
    ) -> Result<(), NotTaken> {
        let is_free = |slot: &Slot| matches!(slot.state, State::Free);
        let index = self.slots.iter().position(is_free);
        let (Some(index), true) = (index, self.ring.room() != 0) else {
            return Err(NotTaken::Full);
        };
        let slot = self.slots.get_mut(index).ok_or(NotTaken::Full)?;
        let id = index as u64;
        let mut entry = Entry::new_zeroed();
        let (operation, sector, buffers, access) = match request {
            Request::Read(sector, buffers) => (op::READ, sector, buffers, Access::Write),
            Request::Write(sector, buffers) => (op::WRITE, sector, buffers, Access::Read),
            Request::Flush => (op::FLUSH_DISKCACHE, 0, &[][..], Access::Read),
            Request::Discard(sector, count) => {
                let mut discard = RequestDiscard::new_zeroed();
                discard.operation = op::DISCARD;
                discard.id = id;
                discard.sector_number = sector;
                discard.nr_sectors = count;
                (slot.state, slot.tag) = (State::Pending, tag);
                self.ring.push(discard.as_bytes());
                return Ok(());
            }
        };
        let moves = operation != op::FLUSH_DISKCACHE;
        if buffers.len() > MAX_SEGMENTS || moves && buffers.is_empty() {
            return Err(NotTaken::Malformed);
        }
        for (segment, buffer) in entry.seg.iter_mut().zip(buffers) {
            let Some(gref) = grants.grant(to, buffer.page.gfn(), access) else {
                end_all(grants, &mut slot.grefs);
                return Err(NotTaken::Full);
            };
            segment.gref = gref.0;
            segment.first_sect = buffer.first;
            segment.last_sect = buffer.last;
            // There are as many as segments.
            let _ = slot.grefs.push(gref);
        }
        entry.operation = operation;
        entry.nr_segments = u8::try_from(buffers.len()).unwrap_or(0);
        entry.id = id;
        entry.sector_number = sector;
        (slot.state, slot.tag) = (State::Pending, tag);
        self.ring.push(entry.as_bytes());
        Ok(())
    }

    /// Shows the back end what was submitted; true when it is to get an event.
    #[must_use = "the back end may sleep until it is told"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// The next request that is done; nobody but this guest uses its pages any more.
    ///
    /// # Errors
    /// [`Broken`]: the back end answers what was not asked.
    pub fn complete<T: AsRef<[SharedPage]>>(
        &mut self,
        grants: &mut Grants<T>,
    ) -> Result<Option<Completion>, Broken> {
        if self.lingering != 0
            && let Some(completion) = self.linger(grants)
        {
            return Ok(Some(completion));
        }
        let mut response = Response::new_zeroed();
        while self.ring.take(response.as_mut_bytes())? {
            let index = usize::try_from(response.id).map_err(|_| Broken)?;
            let slot = self.slots.get_mut(index).ok_or(Broken)?;
            if !matches!(slot.state, State::Pending) {
                return Err(Broken);
            }
            if let Some(completion) = slot.finish(grants, response.status) {
                return Ok(Some(completion));
            }
            self.lingering = self.lingering.saturating_add(1);
        }
        Ok(None)
    }

    fn linger<T: AsRef<[SharedPage]>>(&mut self, grants: &mut Grants<T>) -> Option<Completion> {
        let completion = self.slots.iter_mut().find_map(|slot| match slot.state {
            State::Answered(status) => slot.finish(grants, status),
            State::Free | State::Pending => None,
        })?;
        self.lingering = self.lingering.saturating_sub(1);
        Some(completion)
    }

    /// Asks for an event at the next completion, and then looks: true when there is one already.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn rearm(&mut self) -> Result<bool, Broken> {
        self.ring.rearm()
    }

    /// A request that will not be done: the back end has gone. `None` when there is none left, or
    /// pages of all that are left are in use.
    pub fn abandon<T: AsRef<[SharedPage]>>(
        &mut self,
        grants: &mut Grants<T>,
    ) -> Option<Completion> {
        self.slots.iter_mut().find_map(|slot| match slot.state {
            State::Free => None,
            State::Pending | State::Answered(_) => slot.finish(grants, status::ERROR),
        })
    }

    /// Whether no request is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_free = |slot: &Slot| matches!(slot.state, State::Free);
        self.slots.iter().all(is_free)
    }
}

impl Slot {
    /// Takes the grants back; the completion if that worked.
    fn finish<T: AsRef<[SharedPage]>>(
        &mut self,
        grants: &mut Grants<T>,
        status: i16,
    ) -> Option<Completion> {
        end_all(grants, &mut self.grefs);
        if !self.grefs.is_empty() {
            self.state = State::Answered(status);
            return None;
        }
        self.state = State::Free;
        let good = status == status::OKAY;
        Some(Completion {
            tag: self.tag,
            result: if good { Ok(()) } else { Err(IoError) },
        })
    }
}

/// Takes grants back; those that are in use are left.
fn end_all<T: AsRef<[SharedPage]>>(
    grants: &mut Grants<T>,
    grefs: &mut Vec<GrantRef, MAX_SEGMENTS>,
) {
    grefs.retain(|gref| grants.end(*gref).is_err());
}
