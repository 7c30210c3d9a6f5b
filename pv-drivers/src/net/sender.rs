//! A front end's half that sends.

use abi::netif::{MIN_SLOTS, TxRequest, TxResponse, tx_flags};
use abi::{DomId, GrantRef, PAGE_SIZE};
use heapless::Vec;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::guest::gnttab::{Access, Grants};
use crate::guest::page::OwnPage;
use crate::ring::{Broken, Front, Memory};
use crate::shared_page::SharedPage;
use crate::xenbus::end;

/// Why a frame was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSent {
    /// There is room when others have gone.
    Full,
    /// No back end takes so long a frame.
    TooLong,
}

/// The transmit ring, and pages that are granted for as long as it lives: a frame is copied into
/// as many as it takes.
#[derive(Debug)]
pub struct Sender<const N: usize> {
    ring: Front<OwnPage>,
    pages: [OwnPage; N],
    grefs: [Option<GrantRef>; N],
    /// Pages that hold nothing.
    free: Vec<u16, N>,
}

impl<const N: usize> Sender<N> {
    /// Begins with an empty ring. The pages are not granted yet.
    #[must_use]
    pub fn new(ring: OwnPage, pages: [OwnPage; N]) -> Option<Self> {
        let memory = Memory::new([ring], size_of::<TxRequest>())?;
        let count = u16::try_from(N).ok()?;
        Some(Self {
            ring: Front::new(memory),
            pages,
            grefs: [None; N],
            free: (0..count).collect(),
        })
    }

    /// Grants the pages; `None` when there is no room for that, and some are granted.
    pub fn grant<T: AsRef<[SharedPage]>>(
        &mut self,
        grants: &mut Grants<T>,
        to: DomId,
    ) -> Option<()> {
        for (gref, page) in self.grefs.iter_mut().zip(&self.pages) {
            *gref = Some(grants.grant(to, page.gfn(), Access::Read)?);
        }
        Some(())
    }

    /// Whether a frame of so many bytes would be taken.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        let pages = len.div_ceil(PAGE_SIZE);
        pages <= self.free.len() && pages <= self.ring.room() as usize
    }

    /// Puts a frame into the ring; the back end sees it after [`Sender::publish`].
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn send(&mut self, frame: &[u8]) -> Result<(), NotSent> {
        let pieces = frame.len().div_ceil(PAGE_SIZE);
        let total = u16::try_from(frame.len()).map_err(|_| NotSent::TooLong)?;
        if pieces > MIN_SLOTS {
            return Err(NotSent::TooLong);
        }
        if !self.has_room(frame.len()) {
            return Err(NotSent::Full);
        }
        for (number, piece) in frame.chunks(PAGE_SIZE).enumerate() {
            // There is room for all of them.
            let id = self.free.pop().ok_or(NotSent::Full)?;
            let index = usize::from(id);
            let (page, gref) = self
                .pages
                .get(index)
                .zip(self.grefs.get(index))
                .ok_or(NotSent::Full)?;
            page.write(0, piece);
            let is_last = number.saturating_add(1) == pieces;
            let own = u16::try_from(piece.len()).unwrap_or(u16::MAX);
            let request = TxRequest {
                gref: gref.ok_or(NotSent::Full)?.0,
                offset: 0,
                flags: if is_last { 0 } else { tx_flags::MORE_DATA },
                id,
                // The first slot tells the length of the whole.
                size: if number == 0 { total } else { own },
            };
            self.ring.push(request.as_bytes());
        }
        Ok(())
    }

    /// Shows the back end what was sent; true when it is to get an event.
    #[must_use = "the back end may sleep until it is told"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes back the pages of frames that have gone, whatever became of them, and asks for an
    /// event when more have.
    ///
    /// # Errors
    /// [`Broken`]: the back end answers what was not asked.
    pub fn reclaim(&mut self) -> Result<(), Broken> {
        let mut response = TxResponse::new_zeroed();
        loop {
            while self.ring.take(response.as_mut_bytes())? {
                let id = response.id;
                if usize::from(id) >= N || self.free.contains(&id) {
                    return Err(Broken);
                }
                self.free.push(id).map_err(|_| Broken)?;
            }
            if !self.ring.rearm()? {
                return Ok(());
            }
        }
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
