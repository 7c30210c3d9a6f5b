//! Requests and responses as they are in the ring, in the layouts of 64-bit and 32-bit front ends.

use abi::blkif::{
    CompatRequest, CompatRequestDiscard, CompatRequestIndirect, CompatResponse, MAX_INDIRECT_PAGES,
    Request as RawRequest, RequestDiscard, RequestIndirect, Response, Segment, op,
};
use abi::xenbus::protocol;
use heapless::Vec;
use zerocopy::{FromBytes, IntoBytes as _};

pub use abi::blkif::MAX_SEGMENTS;

/// The size of the larger layout's entries.
pub const ENTRY_MAX: usize = size_of::<RawRequest>();

/// The layout of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Of 64-bit front ends.
    X86_64,
    /// Of 32-bit ones.
    X86_32,
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Fill the segments.
    Read,
    /// Write the segments.
    Write,
    /// Flush, write the segments, flush.
    Barrier,
    /// Flush, then write the segments, if there are any.
    Flush,
}

/// Where a request's segments are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Segments {
    /// In the request.
    Direct(Vec<Segment, MAX_SEGMENTS>),
    /// In pages of their own.
    Indirect {
        /// How many, in all pages together.
        count: u16,
        /// The pages' grants.
        grefs: [u32; MAX_INDIRECT_PAGES],
    },
}

/// What a request says; nothing of it has been checked against the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Reads or writes.
    Transfer {
        /// Which of them.
        kind: Kind,
        /// The first sector.
        sector: u64,
        /// The pages.
        segments: Segments,
    },
    /// Forgets sectors.
    Discard {
        /// The first sector.
        sector: u64,
        /// How many.
        count: u64,
        /// So that nobody can find them again.
        secure: bool,
    },
    /// Something that this back end does not know.
    Unknown,
    /// It claims more segments than its layout has.
    Malformed,
}

/// A request, with what its response has to repeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The front end's number for it.
    pub id: u64,
    /// The operation; of an indirect request the one that it stands for.
    pub operation: u8,
    /// What it asks for.
    pub body: Body,
}

impl Protocol {
    /// The layout that the key `protocol` names; a front end without the key has the native one.
    #[must_use]
    pub fn parse(value: Option<&[u8]>) -> Option<Self> {
        match value {
            None => Some(Self::X86_64),
            Some(name) if name == protocol::X86_64.as_bytes() => Some(Self::X86_64),
            Some(name) if name == protocol::X86_32.as_bytes() => Some(Self::X86_32),
            Some(_) => None,
        }
    }

    /// The size of the ring's entries.
    #[must_use]
    pub const fn entry_size(self) -> usize {
        match self {
            Self::X86_64 => size_of::<RawRequest>(),
            Self::X86_32 => size_of::<CompatRequest>(),
        }
    }

    /// Takes a request apart.
    #[must_use]
    pub fn decode(self, entry: &[u8; ENTRY_MAX]) -> Request {
        match (self, entry.first()) {
            (Self::X86_64, Some(&op::DISCARD)) => {
                let raw: RequestDiscard = prefix(entry);
                discard(raw.id, raw.flag, raw.sector_number, raw.nr_sectors)
            }
            (Self::X86_32, Some(&op::DISCARD)) => {
                let raw: CompatRequestDiscard = prefix(entry);
                discard(
                    raw.id.get(),
                    raw.flag,
                    raw.sector_number.get(),
                    raw.nr_sectors.get(),
                )
            }
            (Self::X86_64, Some(&op::INDIRECT)) => {
                let raw: RequestIndirect = prefix(entry);
                let segments = indirect(raw.nr_segments, raw.indirect_grefs);
                transfer(raw.id, raw.indirect_op, raw.sector_number, Some(segments))
            }
            (Self::X86_32, Some(&op::INDIRECT)) => {
                let raw: CompatRequestIndirect = prefix(entry);
                let segments = indirect(raw.nr_segments, raw.indirect_grefs);
                let sector = raw.sector_number.get();
                transfer(raw.id.get(), raw.indirect_op, sector, Some(segments))
            }
            (Self::X86_64, _) => {
                let raw: RawRequest = prefix(entry);
                let segments = direct(&raw.seg, raw.nr_segments);
                transfer(raw.id, raw.operation, raw.sector_number, segments)
            }
            (Self::X86_32, _) => {
                let raw: CompatRequest = prefix(entry);
                let segments = direct(&raw.seg, raw.nr_segments);
                let sector = raw.sector_number.get();
                transfer(raw.id.get(), raw.operation, sector, segments)
            }
        }
    }

    /// Hands a response to `put`.
    pub fn respond(self, id: u64, operation: u8, status: i16, put: impl FnOnce(&[u8])) {
        match self {
            Self::X86_64 => put(Response {
                id,
                operation,
                pad: 0,
                status,
                pad2: 0,
            }
            .as_bytes()),
            Self::X86_32 => put(CompatResponse {
                id: id.into(),
                operation,
                pad: 0,
                status,
            }
            .as_bytes()),
        }
    }
}

/// The structure at the start of an entry, which is large enough for each of them.
fn prefix<T: FromBytes>(entry: &[u8; ENTRY_MAX]) -> T {
    T::read_from_prefix(entry).map_or_else(|_| T::new_zeroed(), |(raw, _)| raw)
}

fn direct(segments: &[Segment; MAX_SEGMENTS], count: u8) -> Option<Segments> {
    let used = segments.get(..usize::from(count))?;
    Vec::from_slice(used).ok().map(Segments::Direct)
}

const fn indirect(count: u16, grefs: [u32; MAX_INDIRECT_PAGES]) -> Segments {
    Segments::Indirect { count, grefs }
}

const fn discard(id: u64, flag: u8, sector: u64, count: u64) -> Request {
    Request {
        id,
        operation: op::DISCARD,
        body: Body::Discard {
            sector,
            count,
            secure: flag & 1 != 0,
        },
    }
}

fn transfer(id: u64, operation: u8, sector: u64, segments: Option<Segments>) -> Request {
    let is_indirect = matches!(segments, Some(Segments::Indirect { .. }));
    let kind = match operation {
        op::READ => Some(Kind::Read),
        op::WRITE => Some(Kind::Write),
        op::WRITE_BARRIER if !is_indirect => Some(Kind::Barrier),
        op::FLUSH_DISKCACHE if !is_indirect => Some(Kind::Flush),
        _ => None,
    };
    let body = match (kind, segments) {
        (None, _) => Body::Unknown,
        (Some(_), None) => Body::Malformed,
        (Some(kind), Some(segments)) => Body::Transfer {
            kind,
            sector,
            segments,
        },
    };
    Request {
        id,
        operation,
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, ENTRY_MAX, Kind, Protocol, Segments};
    use proptest::prelude::{any, prop_assert, proptest};

    fn entry(bytes: &[(usize, &[u8])]) -> [u8; ENTRY_MAX] {
        let mut entry = [0; ENTRY_MAX];
        for (at, bytes) in bytes {
            entry[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        entry
    }

    #[test]
    fn both_layouts_say_the_same() {
        let (id, sector) = (0x1122_3344_5566_7788u64.to_le_bytes(), 77u64.to_le_bytes());
        let segment = [9, 0, 0, 0, 2, 5, 0, 0];
        let wide = entry(&[(0, &[1, 1]), (8, &id), (16, &sector), (24, &segment)]);
        let narrow = entry(&[(0, &[1, 1]), (4, &id), (12, &sector), (20, &segment)]);
        let request = Protocol::X86_64.decode(&wide);
        assert_eq!(request, Protocol::X86_32.decode(&narrow));
        assert_eq!((request.id, request.operation), (0x1122_3344_5566_7788, 1));
        let Body::Transfer {
            kind: Kind::Write,
            sector: 77,
            segments: Segments::Direct(segments),
        } = request.body
        else {
            panic!("{request:?}");
        };
        assert_eq!(segments.len(), 1);
        assert_eq!((segments[0].gref, segments[0].last_sect), (9, 5));

        let grefs = [3u8, 0, 0, 0, 4];
        let wide = entry(&[(0, &[6, 0, 20]), (8, &id), (16, &sector), (28, &grefs)]);
        let narrow = entry(&[(0, &[6, 0, 20]), (4, &id), (12, &sector), (24, &grefs)]);
        let request = Protocol::X86_64.decode(&wide);
        assert_eq!(request, Protocol::X86_32.decode(&narrow));
        let Body::Transfer {
            segments: Segments::Indirect { count: 20, grefs },
            ..
        } = request.body
        else {
            panic!("{request:?}");
        };
        assert_eq!(grefs[..3], [3, 4, 0]);

        let wide = entry(&[(0, &[5, 1]), (8, &id), (16, &sector), (24, &sector)]);
        let narrow = entry(&[(0, &[5, 1]), (4, &id), (12, &sector), (20, &sector)]);
        let request = Protocol::X86_64.decode(&wide);
        assert_eq!(request, Protocol::X86_32.decode(&narrow));
        let discard = Body::Discard {
            sector: 77,
            count: 77,
            secure: true,
        };
        assert_eq!(request.body, discard);
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        let body = |bytes: [u8; 2]| Protocol::X86_64.decode(&entry(&[(0, &bytes)])).body;
        assert_eq!(body([0, 12]), Body::Malformed);
        assert_eq!(body([1, 255]), Body::Malformed);
        assert_eq!(body([4, 0]), Body::Unknown);
        assert_eq!(body([255, 255]), Body::Unknown);
        // Only reads and writes have segments elsewhere.
        assert_eq!(body([6, 2]), Body::Unknown);
        assert_eq!(body([6, 6]), Body::Unknown);
    }

    #[test]
    fn responses_have_the_layout_of_their_ring() {
        let mut sizes = [0; 2];
        for (protocol, size) in [Protocol::X86_64, Protocol::X86_32]
            .into_iter()
            .zip(&mut sizes)
        {
            protocol.respond(7, 1, -1, |bytes| {
                assert_eq!((bytes[0], bytes[8]), (7, 1));
                assert_eq!(bytes[10..12], [0xff, 0xff]);
                *size = bytes.len();
            });
        }
        assert_eq!(sizes, [16, 12]);
        assert_eq!(Protocol::parse(None), Some(Protocol::X86_64));
        assert_eq!(Protocol::parse(Some(b"x86_32-abi")), Some(Protocol::X86_32));
        assert_eq!(Protocol::parse(Some(b"arm-abi")), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(bytes in any::<[u8; ENTRY_MAX]>(), wide in any::<bool>()) {
            let protocol = if wide { Protocol::X86_64 } else { Protocol::X86_32 };
            let request = protocol.decode(&bytes);
            if let Body::Transfer { segments: Segments::Direct(segments), .. } = request.body {
                prop_assert!(segments.len() == usize::from(bytes[1]));
            }
        }
    }
}
