//! Requests and responses as they are in the ring, in the layouts of 64-bit and 32-bit front ends.

use core::mem::offset_of;

use abi::blkif::{
    CompatRequest, CompatRequestDiscard, CompatRequestIndirect, CompatResponse,
    Request as RawRequest, RequestDiscard, RequestIndirect, Response, Segment, op,
};
use abi::xenbus::protocol;
use zerocopy::{FromBytes, IntoBytes as _};

pub use abi::blkif::MAX_SEGMENTS;

/// The size of the larger layout's entries.
pub const ENTRY_MAX: usize = size_of::<RawRequest>();

/// A private copy of an entry of a ring.
pub type Entry = [u8; ENTRY_MAX];

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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segments {
    /// So many in the request: [`Protocol::segment`] takes them out.
    Direct(u8),
    /// In pages of their own.
    Indirect {
        /// How many, in all pages together.
        count: u16,
        /// The first page's grant.
        gref: u32,
    },
}

/// What a request says; nothing of it has been checked against the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The front end's number for it.
    pub id: u64,
    /// The operation; of an indirect request the one that it stands for.
    pub operation: u8,
    /// What it asks for.
    pub body: Body,
}

/// Where the fields are that differ between the layouts.
struct Places {
    id: usize,
    sector: usize,
    segments: usize,
    discard_count: usize,
    indirect_gref: usize,
}

const X86_64: Places = Places {
    id: offset_of!(RawRequest, id),
    sector: offset_of!(RawRequest, sector_number),
    segments: offset_of!(RawRequest, seg),
    discard_count: offset_of!(RequestDiscard, nr_sectors),
    indirect_gref: offset_of!(RequestIndirect, indirect_grefs),
};

const X86_32: Places = Places {
    id: offset_of!(CompatRequest, id),
    sector: offset_of!(CompatRequest, sector_number),
    segments: offset_of!(CompatRequest, seg),
    discard_count: offset_of!(CompatRequestDiscard, nr_sectors),
    indirect_gref: offset_of!(CompatRequestIndirect, indirect_grefs),
};

// All requests have these in the same places.
const _: () = {
    assert!(X86_64.id == offset_of!(RequestDiscard, id));
    assert!(X86_64.id == offset_of!(RequestIndirect, id));
    assert!(X86_64.sector == offset_of!(RequestDiscard, sector_number));
    assert!(X86_64.sector == offset_of!(RequestIndirect, sector_number));
    assert!(X86_32.id == offset_of!(CompatRequestDiscard, id));
    assert!(X86_32.id == offset_of!(CompatRequestIndirect, id));
    assert!(X86_32.sector == offset_of!(CompatRequestDiscard, sector_number));
    assert!(X86_32.sector == offset_of!(CompatRequestIndirect, sector_number));
    // The second byte: segments, flags, or the operation that an indirect request stands for.
    assert!(offset_of!(RawRequest, nr_segments) == 1);
    assert!(offset_of!(RequestDiscard, flag) == 1);
    assert!(offset_of!(RequestIndirect, indirect_op) == 1);
};

/// Where an indirect request says how many segments it has.
const INDIRECT_COUNT: usize = offset_of!(RequestIndirect, nr_segments);

/// Bytes of an entry; our own offsets all lie inside it.
#[inline]
fn bytes<const N: usize>(entry: &Entry, at: usize) -> [u8; N] {
    let field = entry.get(at..).and_then(<[u8]>::first_chunk);
    field.copied().unwrap_or([0; N])
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

    const fn places(self) -> &'static Places {
        match self {
            Self::X86_64 => &X86_64,
            Self::X86_32 => &X86_32,
        }
    }

    /// Takes a request apart.
    #[must_use]
    pub fn decode(self, entry: &Entry) -> Request {
        let places = self.places();
        let long = |at| u64::from_le_bytes(bytes(entry, at));
        let [operation, detail] = bytes(entry, 0);
        let (id, sector) = (long(places.id), long(places.sector));
        match operation {
            op::DISCARD => Request {
                id,
                operation,
                body: Body::Discard {
                    sector,
                    count: long(places.discard_count),
                    secure: detail & 1 != 0,
                },
            },
            op::INDIRECT => {
                let segments = Segments::Indirect {
                    count: u16::from_le_bytes(bytes(entry, INDIRECT_COUNT)),
                    gref: u32::from_le_bytes(bytes(entry, places.indirect_gref)),
                };
                transfer(id, detail, sector, segments)
            }
            _ => transfer(id, operation, sector, Segments::Direct(detail)),
        }
    }

    /// A segment of a request that has it in itself.
    #[must_use]
    pub fn segment(self, entry: &Entry, index: u8) -> Option<Segment> {
        if usize::from(index) >= MAX_SEGMENTS {
            return None;
        }
        let offset = usize::from(index).saturating_mul(size_of::<Segment>());
        let at = self.places().segments.saturating_add(offset);
        let (segment, _) = Segment::read_from_prefix(entry.get(at..)?).ok()?;
        Some(segment)
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

fn transfer(id: u64, operation: u8, sector: u64, segments: Segments) -> Request {
    let is_direct = matches!(segments, Segments::Direct(_));
    let kind = match operation {
        op::READ => Some(Kind::Read),
        op::WRITE => Some(Kind::Write),
        op::WRITE_BARRIER if is_direct => Some(Kind::Barrier),
        op::FLUSH_DISKCACHE if is_direct => Some(Kind::Flush),
        _ => None,
    };
    let body = match (kind, segments) {
        (None, _) => Body::Unknown,
        (Some(_), Segments::Direct(count)) if usize::from(count) > MAX_SEGMENTS => Body::Malformed,
        (Some(kind), segments) => Body::Transfer {
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
        let write = Body::Transfer {
            kind: Kind::Write,
            sector: 77,
            segments: Segments::Direct(1),
        };
        assert_eq!(request.body, write);
        let segment = Protocol::X86_64.segment(&wide, 0).unwrap();
        assert_eq!(Protocol::X86_32.segment(&narrow, 0), Some(segment));
        assert_eq!((segment.gref, segment.last_sect), (9, 5));
        assert!(Protocol::X86_64.segment(&wide, 10).is_some());
        assert_eq!(Protocol::X86_64.segment(&wide, 11), None);

        let grefs = [3u8, 0, 0, 0, 4];
        let wide = entry(&[(0, &[6, 0, 20]), (8, &id), (16, &sector), (28, &grefs)]);
        let narrow = entry(&[(0, &[6, 0, 20]), (4, &id), (12, &sector), (24, &grefs)]);
        let request = Protocol::X86_64.decode(&wide);
        assert_eq!(request, Protocol::X86_32.decode(&narrow));
        let Body::Transfer { segments, .. } = request.body else {
            panic!("{request:?}");
        };
        assert_eq!(segments, Segments::Indirect { count: 20, gref: 3 });

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
                prop_assert!(segments == bytes[1] && segments <= 11);
            }
        }
    }
}
