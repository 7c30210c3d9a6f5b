//! Frames that go out.

use alloc::boxed::Box;
use core::ops::Range;

use pv_drivers::grants::Grants;
use pv_drivers::net::{Frame, Gso};
use system::network::Direction;
use vswitch::{Bucket, Counters, Filter, Reason, Segments, fill_in_checksum};

use crate::network::card::{Buffer, MAX_FRAME, MIN_FRAME, Transmit};

/// Bytes of a virtual LAN's tag, which make a frame longer.
const TAG: usize = 4;
/// Where its type is, as that of a frame without one, and which types there are.
const TYPE: Range<usize> = 12..14;
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

#[derive(Debug)]
pub(super) struct Sending {
    card: Box<dyn Transmit>,
    bucket: Option<Bucket>,
    pub(super) counters: Counters,
    /// A frame whose checksum is filled in.
    scratch: Box<[u8; MAX_FRAME]>,
}

impl Sending {
    pub(super) fn new(card: Box<dyn Transmit>, bucket: Option<Bucket>) -> Self {
        Self {
            card,
            bucket,
            counters: Counters::default(),
            scratch: Box::new([0; MAX_FRAME]),
        }
    }

    /// Puts a frame, or the segments it is cut into, into the card's buffers; how many there were.
    pub(super) fn send(
        &mut self,
        frame: &Frame,
        sender: &impl Grants,
        filter: &Filter,
        now: u64,
    ) -> usize {
        let sent = match self.segments(frame, filter, now) {
            Ok(None) => self.put_whole(frame, sender).map(|()| 1),
            Ok(Some(segments)) => self.put_segments(&segments, frame, sender),
            Err(reason) => Err(reason),
        };
        sent.unwrap_or_else(|reason| {
            self.counters.drop(reason);
            0
        })
    }

    pub(super) fn publish(&mut self) {
        self.card.publish();
    }

    /// Whether a frame may go out, and how it is to be cut, if it is.
    fn segments(
        &mut self,
        frame: &Frame,
        filter: &Filter,
        now: u64,
    ) -> Result<Option<Segments>, Reason> {
        let head = frame.head();
        if !filter.passes(Direction::Out, head, frame.len()) {
            return Err(Reason::Filtered);
        }
        let cut = |gso: Gso| Segments::new(head, frame.len(), gso.size);
        let segments = frame.gso().map(cut).transpose();
        let segments = segments.map_err(|_| Reason::Malformed)?;
        let longest = segments.as_ref().map_or(frame.len(), Segments::longest);
        if longest > longest_on_a_cable(head) {
            return Err(Reason::NotOffered);
        }
        let count = segments.as_ref().map_or(1, Segments::count);
        if self.card.room() < count {
            return Err(Reason::NoRoom);
        }
        let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        if let Some(bucket) = &mut self.bucket
            && !bucket.take(now, bytes)
        {
            return Err(Reason::Limited);
        }
        Ok(segments)
    }

    fn put_whole(&mut self, frame: &Frame, sender: &impl Grants) -> Result<(), Reason> {
        self.put(
            &[],
            0..frame.len(),
            frame.checksum_is_blank(),
            (frame, sender),
        )
    }

    fn put_segments(
        &mut self,
        segments: &Segments,
        frame: &Frame,
        sender: &impl Grants,
    ) -> Result<usize, Reason> {
        let count = segments.count();
        for segment in (0..count).filter_map(|number| segments.get(number)) {
            let payload = segment.payload.clone();
            self.put(segment.headers(), payload, true, (frame, sender))?;
        }
        Ok(count)
    }

    /// Puts `head` and then bytes of a guest's frame into the next buffer, as one frame.
    fn put(
        &mut self,
        head: &[u8],
        bytes: Range<usize>,
        fill_in: bool,
        (frame, sender): (&Frame, &impl Grants),
    ) -> Result<(), Reason> {
        let Buffer { page, offset } = self.card.buffer().ok_or(Reason::NoRoom)?;
        let at = |offset_in: usize| usize::from(offset).saturating_add(offset_in);
        let mut len = head.len().saturating_add(bytes.len());
        page.write(at(0), head);
        let copied = frame.copy_range(bytes, page, at(head.len()), sender);
        copied.ok_or(Reason::Malformed)?;
        if fill_in {
            // What the guest has in its pages meanwhile makes no difference.
            let whole = self.scratch.get_mut(..len).ok_or(Reason::NotOffered)?;
            page.read(at(0), whole);
            fill_in_checksum(whole).map_err(|_| Reason::Malformed)?;
            page.write(at(0), whole);
        }
        if let Some(missing) = MIN_FRAME.checked_sub(len) {
            page.zero(at(len), missing);
            len = MIN_FRAME;
        }
        self.card.put(len);
        self.counters.count(u32::try_from(len).unwrap_or(u32::MAX));
        Ok(())
    }
}

/// The longest that a frame that begins so can be.
fn longest_on_a_cable(head: &[u8]) -> usize {
    let is_tagged = TAGS.iter().any(|tag| head.get(TYPE) == Some(tag));
    MAX_FRAME.saturating_sub(if is_tagged { 0 } else { TAG })
}
