//! A long frame of TCP cut into segments, for those who take none that long.

use core::ops::Range;

use crate::WINDOW;
use crate::checksum::{Sum, write};
use crate::layout::Layout;
use crate::packet::{Malformed, protocol};

/// Flags of TCP that stand in the last segment only (RFC 9293): `FIN` and `PSH`.
const LAST_ONLY: u8 = 0x09;
/// The flag of TCP that stands in the first segment only (RFC 3168): `CWR`.
const FIRST_ONLY: u8 = 0x80;

/// How a frame is cut.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    head: [u8; WINDOW],
    layout: Layout,
    /// Bytes of all headers together.
    headers: usize,
    /// Bytes of payload in a segment; not 0.
    size: usize,
    sequence: u32,
    flags: u8,
    identification: u16,
}

/// One segment: its headers, and which bytes of the frame follow them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    head: [u8; WINDOW],
    headers: usize,
    /// The payload's place in the frame.
    pub payload: Range<usize>,
}

impl Segment {
    /// The headers, all but the checksum of TCP: see
    /// [`fill_in_checksum`](crate::fill_in_checksum).
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        self.head.get(..self.headers).unwrap_or_default()
    }

    /// The bytes of headers and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.headers.saturating_add(self.payload.len())
    }

    /// False: it has headers.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.headers == 0
    }
}

impl Segments {
    /// Cuts a frame of `length` bytes, of which `window` are the first, into segments of `size`
    /// bytes of payload.
    ///
    /// # Errors
    /// [`Malformed`]: it is no TCP, or its headers are not in sight.
    pub fn new(window: &[u8], length: usize, size: u16) -> Result<Self, Malformed> {
        let layout = Layout::parse(window, length)?;
        let mut head = [0; WINDOW];
        let known = window.len().min(WINDOW);
        let copied = head.get_mut(..known).zip(window.get(..known));
        copied
            .map(|(head, window)| head.copy_from_slice(window))
            .ok_or(Malformed)?;
        let at = |offset| layout.transport.saturating_add(offset);
        let byte = |at: usize| head.get(at).copied().ok_or(Malformed);
        let long = |at: usize| {
            let bytes = head.get(at..).and_then(|rest| rest.first_chunk());
            bytes.copied().map(u32::from_be_bytes).ok_or(Malformed)
        };
        let tcp = usize::from(byte(at(12))? >> 4).saturating_mul(4);
        let headers = at(tcp);
        let is_good = layout.protocol == protocol::TCP
            && tcp >= 20
            && headers <= known.min(layout.end)
            && size != 0;
        if !is_good {
            return Err(Malformed);
        }
        let [_, _, high, low] = long(layout.network.saturating_add(2))?.to_be_bytes();
        Ok(Self {
            layout,
            headers,
            size: size.into(),
            sequence: long(at(4))?,
            flags: byte(at(13))?,
            identification: u16::from_be_bytes([high, low]),
            head,
        })
    }

    /// How many there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payload().div_ceil(self.size).max(1)
    }

    /// The bytes of the longest.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.headers.saturating_add(self.size.min(self.payload()))
    }

    fn payload(&self) -> usize {
        self.layout.end.saturating_sub(self.headers)
    }

    /// The segment with this number, from 0; `None` behind the last.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<Segment> {
        let before = number.saturating_mul(self.size);
        let last = self.count().saturating_sub(1);
        if number > last {
            return None;
        }
        let first = self.headers.saturating_add(before);
        let end = first.saturating_add(self.size).min(self.layout.end);
        let mut segment = Segment {
            head: self.head,
            headers: self.headers,
            payload: first..end,
        };
        let mut flags = self.flags;
        if number != 0 {
            flags &= !FIRST_ONLY;
        }
        if number != last {
            flags &= !LAST_ONLY;
        }
        let number = u16::try_from(number).ok()?;
        self.write_network(&mut segment, number).ok()?;
        let sequence = self.sequence.wrapping_add(u32::try_from(before).ok()?);
        let at = |offset| self.layout.transport.saturating_add(offset);
        let place = segment.head.get_mut(at(4)..)?.first_chunk_mut();
        *place? = sequence.to_be_bytes();
        *segment.head.get_mut(at(13))? = flags;
        Some(segment)
    }

    /// Lengths, and of IPv4 the identification and the checksum.
    fn write_network(&self, segment: &mut Segment, number: u16) -> Result<(), Malformed> {
        let network = self.layout.network;
        let at = |offset| network.saturating_add(offset);
        let length = segment.len().saturating_sub(network);
        let length = u16::try_from(length).map_err(|_| Malformed)?;
        if self.layout.is_ipv6 {
            return write(&mut segment.head, at(4), length.saturating_sub(40));
        }
        write(&mut segment.head, at(2), length)?;
        let identification = self.identification.wrapping_add(number);
        write(&mut segment.head, at(4), identification)?;
        write(&mut segment.head, at(10), 0)?;
        let header = segment.head.get(network..self.layout.transport);
        let sum = Sum::default().add(header.ok_or(Malformed)?).finish();
        write(&mut segment.head, at(10), sum)
    }
}
