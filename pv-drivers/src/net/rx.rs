//! What a front end receives.

use core::ops::Deref;

use abi::netif::{ExtraInfo, MIN_SLOTS, RxRequest, RxResponse, extra, rx_flags, status};
use abi::{GrantRef, PAGE_SIZE};
use heapless::Vec;
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::checksum::is_ipv6;
use super::frame::{Cursor, Frame, Gso};
use crate::grants::Grants;
use crate::ring::{Back, Broken, Memory};
use crate::shared_page::SharedPage;

/// What a front end takes besides whole frames in one page each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offers {
    /// Frames in several pages.
    pub scatter_gather: bool,
    /// Frames of TCP over IPv4 that were not cut into segments.
    pub gso_ipv4: bool,
    /// The same over IPv6.
    pub gso_ipv6: bool,
    /// Frames whose checksum is blank, other than of IPv6.
    pub blank_checksums: bool,
    /// The same of IPv6.
    pub blank_checksums_ipv6: bool,
}

impl Offers {
    const fn take(self, frame: &Frame) -> bool {
        let gso = match frame.gso {
            None => true,
            Some(Gso { is_ipv6: true, .. }) => self.gso_ipv6,
            Some(_) => self.gso_ipv4,
        };
        gso && (self.scatter_gather || frame.len <= PAGE_SIZE)
    }

    fn take_checksum(self, frame: &Frame) -> bool {
        !frame.checksum_is_blank
            || if is_ipv6(frame.head()) {
                self.blank_checksums_ipv6
            } else {
                self.blank_checksums
            }
    }
}

/// Why a frame was not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undelivered {
    /// The front end has not given as many pages as the frame takes.
    NoRoom,
    /// It does not take such frames.
    NotOffered,
    /// A page is not granted, the sender's or the receiver's.
    NotGranted,
    /// The receiver's index makes no sense.
    Broken,
}

impl From<Broken> for Undelivered {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// The back end of a receive ring.
#[derive(Debug)]
pub struct Rx<P> {
    ring: Back<P>,
    offers: Offers,
}

/// A frame on its way into the ring: the slots that it took so far.
struct Delivery {
    ids: Vec<u16, MIN_SLOTS>,
    /// How many bytes went into each.
    sizes: Vec<u16, MIN_SLOTS>,
}

impl<P: Deref<Target = SharedPage>> Rx<P> {
    /// Takes up the ring in this page.
    pub fn attach(page: P, offers: Offers) -> Option<Self> {
        let memory = Memory::new([page], size_of::<RxRequest>())?;
        let ring = Back::attach(memory);
        Some(Self { ring, offers })
    }

    /// Puts a frame into the receiver's pages. The front end sees it after [`Rx::publish`]. The frame's
    /// checksum is not blank any more if this receiver takes no such frames.
    ///
    /// # Errors
    /// See [`Undelivered`]. Slots that were taken in vain are answered with an error.
    pub fn deliver(
        &mut self,
        frame: &mut Frame,
        sender: &impl Grants,
        receiver: &impl Grants,
    ) -> Result<(), Undelivered> {
        if !self.offers.take(frame) {
            return Err(Undelivered::NotOffered);
        }
        if !self.offers.take_checksum(frame) {
            frame.fill_checksum(sender).ok_or(Undelivered::NotOffered)?;
        }
        let pages = frame.len.div_ceil(PAGE_SIZE);
        let slots = pages.saturating_add(frame.gso.is_some().into());
        if (self.ring.waiting()? as usize) < slots {
            return Err(Undelivered::NoRoom);
        }
        let mut delivery = Delivery {
            ids: Vec::new(),
            sizes: Vec::new(),
        };
        let result = self.fill(frame, &mut delivery, sender, receiver);
        match result {
            Ok(()) => self.answer(frame, &delivery),
            Err(_) => self.refuse(&delivery),
        }
        result
    }

    fn fill(
        &mut self,
        frame: &Frame,
        delivery: &mut Delivery,
        sender: &impl Grants,
        receiver: &impl Grants,
    ) -> Result<(), Undelivered> {
        let mut cursor = Cursor::default();
        let mut left = frame.len;
        while left != 0 {
            let gref = self.slot(delivery)?;
            if delivery.ids.len() == 1 && frame.gso.is_some() {
                // The second slot is for what is said about the first.
                self.slot(delivery)?;
            }
            let len = left.min(PAGE_SIZE);
            let fill = |page: &SharedPage| frame.copy(&mut cursor, len, (page, 0), sender);
            let filled = receiver.with_page(GrantRef(gref), true, fill);
            filled.flatten().ok_or(Undelivered::NotGranted)?;
            let size = u16::try_from(len).unwrap_or(u16::MAX);
            // There are no more sizes than slots.
            let _ = delivery.sizes.push(size);
            left = left.saturating_sub(len);
        }
        Ok(())
    }

    /// Takes a slot; its page's grant.
    fn slot(&mut self, delivery: &mut Delivery) -> Result<u32, Undelivered> {
        let mut request = RxRequest::new_zeroed();
        if delivery.ids.is_full() || !self.ring.take(request.as_mut_bytes())? {
            return Err(Undelivered::NoRoom);
        }
        // There is room.
        let _ = delivery.ids.push(request.id);
        Ok(request.gref)
    }

    fn answer(&mut self, frame: &Frame, delivery: &Delivery) {
        let mut flags = 0;
        if frame.checksum_is_blank {
            flags |= rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED;
        }
        if frame.is_validated {
            flags |= rx_flags::DATA_VALIDATED;
        }
        let mut ids = delivery.ids.iter().copied();
        let mut sizes = delivery.sizes.iter().copied().peekable();
        let mut gso = frame.gso;
        while let Some((id, size)) = ids.next().zip(sizes.next()) {
            if sizes.peek().is_some() {
                flags |= rx_flags::MORE_DATA;
            }
            if gso.is_some() {
                flags |= rx_flags::EXTRA_INFO;
            }
            let response = RxResponse {
                id,
                offset: 0,
                flags,
                status: size.cast_signed(),
            };
            self.ring.respond(response.as_bytes());
            if let Some(gso) = gso.take() {
                ids.next();
                let info = ExtraInfo {
                    kind: extra::GSO,
                    flags: 0,
                    data: gso.data(),
                };
                self.ring.respond(info.as_bytes());
            }
            flags = 0;
        }
    }

    /// Answers slots that were taken in vain.
    fn refuse(&mut self, delivery: &Delivery) {
        for &id in &delivery.ids {
            let response = RxResponse {
                id,
                offset: 0,
                flags: 0,
                status: status::ERROR,
            };
            self.ring.respond(response.as_bytes());
        }
    }

    /// Shows the front end what it got; true when it is to get an event.
    #[must_use = "the front end may sleep until it is told"]
    pub fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Gives the ring's page back.
    pub fn into_pages(self) -> impl Iterator<Item = P> {
        self.ring.into_pages()
    }
}
