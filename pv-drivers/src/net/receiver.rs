//! A front end's half that receives.

use abi::netif::{MIN_SLOTS, RxRequest, RxResponse, rx_flags};
use abi::{DomId, GrantRef};
use heapless::Deque;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::guest::gnttab::{Access, Grants};
use crate::guest::page::OwnPage;
use crate::ring::{Broken, Front, Memory};
use crate::shared_page::SharedPage;
use crate::xenbus::end;

/// What is known of the checksum of a frame's transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// Nobody has looked at it.
    Unknown,
    /// It is right, or need not be looked at.
    Good,
    /// It covers the pseudo header only: the data is good, and whoever passes it on to a wire has
    /// to [complete](super::offload::complete_checksum) it.
    Blank,
}

/// A frame that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Its length in bytes: up to 65535, if its sender left it to others to cut it into segments.
    pub len: usize,
    /// Its checksum.
    pub checksum: Checksum,
}

/// The receive ring, and pages that are granted for as long as it lives.
#[derive(Debug)]
pub struct Receiver<const N: usize> {
    ring: Front<OwnPage>,
    pages: [OwnPage; N],
    grefs: [Option<GrantRef>; N],
    /// Pages that the back end has, in the order in which it answers.
    given: Deque<u16, N>,
}

/// A slot of the ring as the back end left it.
#[derive(Clone, Copy)]
struct Slot {
    page: u16,
    raw: RxResponse,
}

impl<const N: usize> Receiver<N> {
    /// Begins with an empty ring. The pages are not granted yet.
    #[must_use]
    pub fn new(ring: OwnPage, pages: [OwnPage; N]) -> Option<Self> {
        let memory = Memory::new([ring], size_of::<RxRequest>())?;
        Some(Self {
            ring: Front::new(memory),
            pages,
            grefs: [None; N],
            given: Deque::new(),
        })
    }

    /// Grants the pages and gives them to the back end; `None` when there is no room for that, and
    /// some are granted.
    pub fn grant<T: AsRef<[SharedPage]>>(
        &mut self,
        grants: &mut Grants<T>,
        to: DomId,
    ) -> Option<()> {
        for (gref, page) in self.grefs.iter_mut().zip(&self.pages) {
            *gref = Some(grants.grant(to, page.gfn(), Access::Write)?);
        }
        for page in 0..u16::try_from(N).ok()? {
            self.give(page)?;
        }
        Some(())
    }

    /// Gives a page to the back end, which sees it after [`Receiver::publish`].
    fn give(&mut self, page: u16) -> Option<()> {
        let gref = (*self.grefs.get(usize::from(page))?)?;
        let request = RxRequest {
            id: page,
            pad: 0,
            gref: gref.0,
        };
        if !self.ring.push(request.as_bytes()) {
            return None;
        }
        self.given.push_back(page).ok()
    }

    /// Shows the back end the pages; true when it is to get an event.
    #[must_use = "the back end may sleep until it is told"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Copies the next frame into `out`. When it says that there is none, the port's event will
    /// tell of the next one. A frame that failed on its way, or is longer than `out`, is left out.
    ///
    /// # Errors
    /// [`Broken`]: the back end makes no sense.
    pub fn receive(&mut self, out: &mut [u8]) -> Result<Option<Received>, Broken> {
        loop {
            while let Some(first) = self.next_slot()? {
                if let Some(frame) = self.frame(first, out)? {
                    return Ok(Some(frame));
                }
            }
            if !self.ring.rearm()? {
                return Ok(None);
            }
        }
    }

    /// Puts a frame together from its slots, all of which are there.
    fn frame(&mut self, first: Slot, out: &mut [u8]) -> Result<Option<Received>, Broken> {
        let (mut slot, mut at, mut is_whole) = (first, 0usize, true);
        // A frame has no more pieces than that, and each of them one slot of extra information.
        for _ in 0..MIN_SLOTS {
            if slot.raw.id != slot.page {
                return Err(Broken);
            }
            let flags = slot.raw.flags;
            is_whole &= self.copy(slot, &mut at, out).is_some();
            self.give_back(slot)?;
            let mut extra = flags & rx_flags::EXTRA_INFO != 0;
            while extra {
                let info = self.next_slot()?.ok_or(Broken)?;
                // Its second byte, which lies where a response has its id.
                let [_, more] = info.raw.id.to_le_bytes();
                extra = more & abi::netif::extra::FLAG_MORE != 0;
                self.give_back(info)?;
            }
            if flags & rx_flags::MORE_DATA == 0 {
                let received = Received {
                    len: at,
                    checksum: checksum(first.raw.flags),
                };
                return Ok(is_whole.then_some(received));
            }
            slot = self.next_slot()?.ok_or(Broken)?;
        }
        Err(Broken)
    }

    /// Copies a slot's bytes behind those that are there.
    fn copy(&self, slot: Slot, at: &mut usize, out: &mut [u8]) -> Option<()> {
        let RxResponse { offset, status, .. } = slot.raw;
        let len = usize::try_from(status).ok()?;
        let page = self.pages.get(usize::from(slot.page))?;
        let offset = usize::from(offset);
        if offset.checked_add(len)? > abi::PAGE_SIZE {
            return None;
        }
        let end = at.checked_add(len)?;
        page.read(offset, out.get_mut(*at..end)?);
        *at = end;
        Some(())
    }

    /// The next slot that the back end has filled. It answers in the order of the requests.
    fn next_slot(&mut self) -> Result<Option<Slot>, Broken> {
        let mut raw = RxResponse::new_zeroed();
        if !self.ring.take(raw.as_mut_bytes())? {
            return Ok(None);
        }
        let page = self.given.pop_front().ok_or(Broken)?;
        Ok(Some(Slot { page, raw }))
    }

    fn give_back(&mut self, slot: Slot) -> Result<(), Broken> {
        self.give(slot.page).ok_or(Broken)
    }

    /// Takes the grants back; false while some are in use.
    pub fn end<T: AsRef<[SharedPage]>>(&mut self, grants: &mut Grants<T>) -> bool {
        let mut done = true;
        for gref in &mut self.grefs {
            done &= end(grants, gref);
        }
        done
    }
}

const fn checksum(flags: u16) -> Checksum {
    if flags & rx_flags::CSUM_BLANK != 0 {
        Checksum::Blank
    } else if flags & rx_flags::DATA_VALIDATED != 0 {
        Checksum::Good
    } else {
        Checksum::Unknown
    }
}
