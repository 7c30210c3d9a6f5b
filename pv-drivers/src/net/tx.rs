//! What a front end sends.

use core::ops::Deref;

use abi::netif::{ExtraInfo, MIN_SLOTS, TxRequest, TxResponse, extra, status, tx_flags};
use heapless::Vec;
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::frame::{Frame, Gso, MIN_FRAME, Piece};
use crate::grants::Grants;
use crate::ring::{Back, Broken, Memory};
use crate::shared_page::SharedPage;

/// Extra informations of one frame; there are fewer kinds.
const MAX_EXTRAS: u8 = 8;

/// What a front end asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the front end waits for an answer"]
pub enum Taken {
    /// To send [`Tx::frame`].
    Frame,
    /// To hear a group, or not any more.
    Group {
        /// The group's address.
        address: [u8; 6],
        /// Whether to hear it.
        join: bool,
    },
    /// To send what is no frame: too short, or in pages that are not granted.
    Nothing,
}

/// Why nothing more can be taken from a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// The front end's index makes no sense.
    Index,
    /// Slots of one frame make no sense together, or one that was announced is not there.
    Slot,
}

impl From<Broken> for Unusable {
    fn from(_: Broken) -> Self {
        Self::Index
    }
}

/// The back end of a transmit ring.
#[derive(Debug)]
pub struct Tx<P> {
    ring: Back<P>,
    /// The frame that was taken last, and its slots, which want an answer each.
    frame: Frame,
    ids: Vec<u16, MIN_SLOTS>,
    extras: u8,
}

/// What the extra informations of a frame say.
#[derive(Default)]
struct Extras {
    count: u8,
    gso: Option<Gso>,
    /// A group, and whether to hear it.
    group: Option<([u8; 6], bool)>,
}

impl<P: Deref<Target = SharedPage>> Tx<P> {
    /// Takes up the ring in this page.
    pub fn attach(page: P) -> Option<Self> {
        let memory = Memory::new([page], size_of::<TxRequest>())?;
        Some(Self {
            ring: Back::attach(memory),
            frame: Frame::new(),
            ids: Vec::new(),
            extras: 0,
        })
    }

    /// Takes what comes next; `None` when there is nothing. What was taken before has been
    /// answered.
    ///
    /// # Errors
    /// [`Unusable`]: the index or the slots make no sense, and where the next frame would begin
    /// cannot be told.
    pub fn take(&mut self, grants: &impl Grants) -> Result<Option<Taken>, Unusable> {
        let mut first = TxRequest::new_zeroed();
        if !self.ring.take(first.as_mut_bytes())? {
            return Ok(None);
        }
        self.ids.clear();
        self.ids.push(first.id).map_err(|_| Unusable::Slot)?;
        let extras = if first.flags & tx_flags::EXTRA_INFO != 0 {
            self.take_extras()?
        } else {
            Extras::default()
        };
        self.extras = extras.count;
        if let Some((address, join)) = extras.group {
            return Ok(Some(Taken::Group { address, join }));
        }
        self.take_pieces(first)?;
        let frame = &mut self.frame;
        frame.len = first.size.into();
        frame.checksum_is_blank = first.flags & tx_flags::CSUM_BLANK != 0;
        frame.is_validated = first.flags & tx_flags::DATA_VALIDATED != 0;
        frame.gso = extras.gso;
        let good = frame.len >= MIN_FRAME && frame.copy_head(grants).is_some();
        Ok(Some(if good { Taken::Frame } else { Taken::Nothing }))
    }

    /// The frame that was taken last.
    #[must_use]
    pub const fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The next slot, which has to be there.
    fn slot(&mut self) -> Result<TxRequest, Unusable> {
        let mut slot = TxRequest::new_zeroed();
        if self.ring.take(slot.as_mut_bytes())? {
            Ok(slot)
        } else {
            Err(Unusable::Slot)
        }
    }

    fn take_extras(&mut self) -> Result<Extras, Unusable> {
        let mut extras = Extras::default();
        loop {
            let slot = self.slot()?;
            let (info, _) =
                ExtraInfo::read_from_prefix(slot.as_bytes()).map_err(|_| Unusable::Slot)?;
            extras.count = extras.count.saturating_add(1);
            let [a, b, c, d, e, f] = info.data;
            let address = [a, b, c, d, e, f];
            match info.kind {
                extra::GSO => extras.gso = Some(Gso::parse(info.data).ok_or(Unusable::Slot)?),
                extra::MCAST_ADD => extras.group = Some((address, true)),
                extra::MCAST_DEL => extras.group = Some((address, false)),
                extra::HASH => {}
                _ => return Err(Unusable::Slot),
            }
            if info.flags & extra::FLAG_MORE == 0 {
                return Ok(extras);
            }
            if extras.count >= MAX_EXTRAS {
                return Err(Unusable::Slot);
            }
        }
    }

    /// The pieces of a frame, whose first slot tells the size of all.
    fn take_pieces(&mut self, first: TxRequest) -> Result<(), Unusable> {
        let mut own = first.size;
        let mut more = first.flags & tx_flags::MORE_DATA != 0;
        self.frame.pieces.clear();
        // Filled in when it is known how much is in the others.
        self.add_piece(Piece::new(first.gref, 0, 0))?;
        while more {
            let slot = self.slot()?;
            self.ids.push(slot.id).map_err(|_| Unusable::Slot)?;
            own = own.checked_sub(slot.size).ok_or(Unusable::Slot)?;
            self.add_piece(Piece::new(slot.gref, slot.offset, slot.size))?;
            more = slot.flags & tx_flags::MORE_DATA != 0;
        }
        let begin = Piece::new(first.gref, first.offset, own).ok_or(Unusable::Slot)?;
        if let Some(place) = self.frame.pieces.first_mut() {
            *place = begin;
        }
        Ok(())
    }

    fn add_piece(&mut self, piece: Option<Piece>) -> Result<(), Unusable> {
        let piece = piece.ok_or(Unusable::Slot)?;
        self.frame.pieces.push(piece).map_err(|_| Unusable::Slot)
    }

    /// Answers what was taken last, with one of [`status`] for each of its slots. The front end
    /// sees it after [`Tx::publish`].
    pub fn answer(&mut self, status: i16) {
        for id in core::mem::take(&mut self.ids) {
            self.ring.respond(TxResponse { id, status }.as_bytes());
        }
        for _ in 0..core::mem::take(&mut self.extras) {
            let null = TxResponse {
                id: 0,
                status: status::NULL,
            };
            self.ring.respond(null.as_bytes());
        }
    }

    /// The same, to be delivered.
    pub const fn frame_mut(&mut self) -> &mut Frame {
        &mut self.frame
    }

    /// Slots that want an answer.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.ids.len().saturating_add(self.extras.into())
    }

    /// Shows the front end the answers; true when it is to get an event.
    #[must_use = "the front end may sleep until it is told"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Asks for an event at the next slot, and then looks: true when slots wait already.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn rearm(&mut self) -> Result<bool, Broken> {
        self.ring.rearm()
    }

    /// Gives the ring's page back.
    pub fn into_pages(self) -> impl Iterator<Item = P> {
        self.ring.into_pages()
    }
}
