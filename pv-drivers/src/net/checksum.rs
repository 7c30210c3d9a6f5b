//! The checksum of TCP or UDP that a sender left to others, for a receiver that does not take such
//! frames.
//!
//! A blank checksum is the sum of the pseudo header, not inverted (`NETTXF_csum_blank`,
//! `public/io/netif.h`), so summing all from the transport header on makes it whole.

use abi::GrantRef;

use super::frame::Frame;
use crate::grants::Grants;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Headers of IPv6 that may come before that of the transport: hop-by-hop, routing, destination.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// More of these than anybody sends.
const MOST_EXTENSIONS: usize = 8;
/// Bytes that are read from a sender's page at a time.
const CHUNK: usize = 256;

/// Where the transport's part of a frame lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Transport {
    /// The first byte of its header, and the first one behind its data.
    start: usize,
    end: usize,
    /// The two bytes of the checksum.
    field: usize,
    /// A sum of 0 says that there is none.
    is_udp: bool,
}

/// The place of the network header, and its type.
fn network(head: &[u8]) -> Option<(u16, usize)> {
    match word(head, 12)? {
        VLAN => Some((word(head, 16)?, 18)),
        kind => Some((kind, 14)),
    }
}

/// True for a frame of IPv6.
pub(super) fn is_ipv6(head: &[u8]) -> bool {
    network(head).is_some_and(|(kind, _)| kind == IPV6)
}

fn word(head: &[u8], at: usize) -> Option<u16> {
    let bytes = head.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

impl Transport {
    /// Finds it by the first bytes of a frame; `None` for what is not whole, or neither TCP nor UDP.
    fn find(head: &[u8], len: usize) -> Option<Self> {
        let (kind, at) = network(head)?;
        let byte = |at: usize| head.get(at).copied();
        let below = |offset: usize| at.checked_add(offset);
        let (protocol, start, end) = match kind {
            IPV4 => {
                let header = usize::from(byte(at)? & 0xf).checked_mul(4)?;
                let more_or_offset = word(head, below(6)?)? & 0x3fff;
                if header < 20 || more_or_offset != 0 {
                    return None;
                }
                let total = word(head, below(2)?)?;
                (byte(below(9)?)?, below(header)?, below(total.into())?)
            }
            IPV6 => {
                let payload = word(head, below(4)?)?;
                let (mut next, mut start) = (byte(below(6)?)?, below(40)?);
                let end = start.checked_add(payload.into())?;
                for _ in 0..MOST_EXTENSIONS {
                    if !EXTENSIONS.contains(&next) {
                        break;
                    }
                    next = byte(start)?;
                    let units = usize::from(byte(start.checked_add(1)?)?).checked_add(1)?;
                    start = start.checked_add(units.checked_mul(8)?)?;
                }
                (next, start, end)
            }
            _ => return None,
        };
        let (offset, header) = match protocol {
            TCP => (16, 20),
            UDP => (6, 8),
            _ => return None,
        };
        let whole = end <= len && start.checked_add(header)? <= end;
        whole.then_some(Self {
            start,
            end,
            field: start.checked_add(offset)?,
            is_udp: protocol == UDP,
        })
    }
}

/// A sum of 16-bit words in the network's order, of bytes that come in pieces.
#[derive(Default)]
struct Sum {
    /// There are fewer than 2^48 words in any frame.
    words: u64,
    /// The next byte is the second one of its word.
    is_odd: bool,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.is_odd
            && let Some((low, behind)) = rest.split_first()
        {
            self.words = self.words.saturating_add((*low).into());
            self.is_odd = false;
            rest = behind;
        }
        let (pairs, last) = rest.as_chunks();
        for pair in pairs {
            let word = u16::from_be_bytes(*pair);
            self.words = self.words.saturating_add(word.into());
        }
        if let Some(high) = last.first() {
            self.words = self.words.saturating_add(u64::from(*high) << 8);
            self.is_odd = true;
        }
    }

    /// The checksum: the sum with its carries added to it, inverted.
    fn finish(self) -> u16 {
        let mut sum = self.words;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff).saturating_add(sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

impl Frame {
    /// Makes a blank checksum whole. `None`, and nothing changed, when it cannot: the frame is not
    /// TCP or UDP, is to be cut into segments, or a page of it is not granted any more.
    pub(super) fn fill_checksum(&mut self, grants: &impl Grants) -> Option<()> {
        if self.gso.is_some() {
            return None;
        }
        let transport = Transport::find(self.head(), self.len)?;
        let Transport {
            start,
            end,
            field,
            is_udp,
        } = transport;
        let mut sum = Sum::default();
        let head = self.head();
        sum.add(head.get(start..end.min(head.len()))?);
        self.read(head.len(), end, grants, |bytes| sum.add(bytes))?;
        let sum = match sum.finish() {
            0 if is_udp => u16::MAX,
            sum => sum,
        };
        let place = self.head.get_mut(field..)?.first_chunk_mut()?;
        *place = sum.to_be_bytes();
        self.checksum_is_blank = false;
        self.is_validated = true;
        Some(())
    }

    /// Shows the bytes from `from` to before `to`, as they are in the sender's pages now.
    fn read(
        &self,
        from: usize,
        to: usize,
        grants: &impl Grants,
        mut see: impl FnMut(&[u8]),
    ) -> Option<()> {
        let mut at = 0_usize;
        for piece in &self.pieces {
            let begin = at;
            at = at.saturating_add(piece.len.into());
            let (mut here, end) = (begin.max(from), at.min(to));
            if here >= end {
                continue;
            }
            let mut chunk = [0; CHUNK];
            grants.with_page(GrantRef(piece.gref.0), false, |page| {
                while here < end {
                    let len = end.saturating_sub(here).min(CHUNK);
                    let out = chunk.get_mut(..len).unwrap_or_default();
                    let offset =
                        usize::from(piece.offset).saturating_add(here.saturating_sub(begin));
                    page.read(offset, out);
                    see(out);
                    here = here.saturating_add(len);
                }
            })?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::{Sum, Transport, is_ipv6};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    /// An Ethernet header, and behind it these bytes.
    fn frame(kind: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut frame = std::vec![0; 12];
        frame.extend_from_slice(kind);
        frame.extend_from_slice(rest);
        frame
    }

    fn find(frame: &[u8], len: usize) -> Option<(usize, usize, usize, bool)> {
        let found = Transport::find(frame, len)?;
        Some((found.start, found.end, found.field, found.is_udp))
    }

    #[test]
    fn the_transport_is_found_behind_every_header() {
        let mut v4 = [0; 64];
        v4[0] = 0x46;
        v4[3] = 60;
        v4[9] = 6;
        let plain = frame(&[8, 0], &v4);
        assert_eq!(find(&plain, 78), Some((38, 74, 54, false)));
        assert_eq!(find(&plain, 73), None, "cut off");
        let tagged = frame(&[0x81, 0, 0, 5, 8, 0], &v4);
        assert_eq!(find(&tagged, 82), Some((42, 78, 58, false)));
        for (at, value) in [(0, 0x44), (6, 0x20), (7, 1), (9, 1)] {
            let mut other = v4;
            other[at] = value;
            assert_eq!(find(&frame(&[8, 0], &other), 78), None, "{at}");
        }
        let mut v6 = [0; 100];
        v6[5] = 8 + 16 + 8;
        v6[40] = 60;
        v6[48] = 17;
        v6[49] = 1;
        let v6 = frame(&[0x86, 0xdd], &v6);
        assert!(is_ipv6(&v6) && !is_ipv6(&plain) && !is_ipv6(&[0; 13]));
        assert_eq!(find(&v6, 114), Some((78, 86, 84, true)));
    }

    proptest! {
        #[test]
        fn a_sum_is_the_same_however_it_is_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0usize..300, 0..5),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(bytes.len())).collect();
            cuts.sort_unstable();
            let (mut cut, mut at) = (Sum::default(), 0);
            for end in cuts.into_iter().chain([bytes.len()]) {
                cut.add(&bytes[core::mem::replace(&mut at, end)..end]);
            }
            let mut padded = bytes.clone();
            padded.resize(bytes.len().next_multiple_of(2), 0);
            let sum: u64 = padded.chunks(2).map(|two| u64::from(two[0]) << 8 | u64::from(two[1])).sum();
            let whole = cut.finish();
            prop_assert_eq!((u64::from(!whole)) % 0xffff, sum % 0xffff);
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..128), len in 0usize..70000) {
            if let Some((start, end, field, _)) = find(&bytes, len) {
                proptest::prop_assert!(start < field && field + 2 <= end && end <= len);
            }
        }
    }
}
