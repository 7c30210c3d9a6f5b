//! Requests and responses of block devices (`public/io/blkif.h`).
//!
//! Sectors have 512 bytes, whatever the device says of its own. A front end says in the xenstore
//! which layout its ring has ([`protocol`](crate::xenbus::protocol)); the structs named `Compat…` are those
//! of 32-bit x86, where 64-bit words are aligned to four bytes.

use zerocopy::little_endian::U64;

use crate::layout::guest_structs;

/// Bytes in a sector.
pub const SECTOR_SIZE: usize = 512;
/// Segments in a request itself (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const MAX_SEGMENTS: usize = 11;
/// Pages of segments that one indirect request can name
/// (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
pub const MAX_INDIRECT_PAGES: usize = 8;
/// Segments in one such page.
pub const SEGMENTS_PER_PAGE: usize = crate::PAGE_SIZE / size_of::<Segment>();

/// What a request asks for (`BLKIF_OP_*`).
pub mod op {
    /// Fill the segments from the disk.
    pub const READ: u8 = 0;
    /// Write the segments to the disk.
    pub const WRITE: u8 = 1;
    /// The same, after all requests before and before all that follow.
    pub const WRITE_BARRIER: u8 = 2;
    /// Make everything durable that has been written.
    pub const FLUSH_DISKCACHE: u8 = 3;
    /// Forget the contents of sectors.
    pub const DISCARD: u8 = 5;
    /// Read or write with the segments in pages of their own.
    pub const INDIRECT: u8 = 6;
}

/// What became of a request (`BLKIF_RSP_*`).
pub mod status {
    /// Done.
    pub const OKAY: i16 = 0;
    /// Failed.
    pub const ERROR: i16 = -1;
    /// The device cannot do this.
    pub const EOPNOTSUPP: i16 = -2;
}

/// Bits of the key `info` (`VDISK_*`).
pub mod info {
    /// A CD.
    pub const CDROM: u32 = 1;
    /// The medium can be taken out.
    pub const REMOVABLE: u32 = 2;
    /// Writes are refused.
    pub const READONLY: u32 = 4;
}

guest_structs! {
    /// A piece of one page (`struct blkif_request_segment`).
    pub struct Segment: 8 {
        /// The page's grant.
        pub gref: u32 = 0,
        /// The first sector in the page, 0 to 7.
        pub first_sect: u8 = 4,
        /// The last one, not before the first.
        pub last_sect: u8 = 5,
        /// Unused.
        pub pad: u16 = 6,
    }

    /// A request (`struct blkif_request`), and the size of a ring's entry.
    pub struct Request: 112 {
        /// One of [`op`], but for the two that have a layout of their own.
        pub operation: u8 = 0,
        /// Segments in use.
        pub nr_segments: u8 = 1,
        /// The front end's number of the device.
        pub handle: u16 = 2,
        /// Unused.
        pub pad: u32 = 4,
        /// Comes back in the response.
        pub id: u64 = 8,
        /// Where on the disk.
        pub sector_number: u64 = 16,
        /// The pages.
        pub seg: [Segment; MAX_SEGMENTS] = 24,
    }

    /// [`Request`] of a 32-bit front end.
    pub struct CompatRequest: 108 {
        /// As in [`Request`].
        pub operation: u8 = 0,
        /// Segments in use.
        pub nr_segments: u8 = 1,
        /// The front end's number of the device.
        pub handle: u16 = 2,
        /// Comes back in the response.
        pub id: U64 = 4,
        /// Where on the disk.
        pub sector_number: U64 = 12,
        /// The pages.
        pub seg: [Segment; MAX_SEGMENTS] = 20,
    }

    /// A request to forget sectors (`struct blkif_request_discard`).
    pub struct RequestDiscard: 32 {
        /// [`op::DISCARD`].
        pub operation: u8 = 0,
        /// Bit 0: the contents must be gone for good.
        pub flag: u8 = 1,
        /// The front end's number of the device.
        pub handle: u16 = 2,
        /// Unused.
        pub pad: u32 = 4,
        /// Comes back in the response.
        pub id: u64 = 8,
        /// The first sector.
        pub sector_number: u64 = 16,
        /// How many.
        pub nr_sectors: u64 = 24,
    }

    /// [`RequestDiscard`] of a 32-bit front end.
    pub struct CompatRequestDiscard: 28 {
        /// [`op::DISCARD`].
        pub operation: u8 = 0,
        /// Bit 0: the contents must be gone for good.
        pub flag: u8 = 1,
        /// The front end's number of the device.
        pub handle: u16 = 2,
        /// Comes back in the response.
        pub id: U64 = 4,
        /// The first sector.
        pub sector_number: U64 = 12,
        /// How many.
        pub nr_sectors: U64 = 20,
    }

    /// A request whose segments are in pages of their own (`struct blkif_request_indirect`).
    pub struct RequestIndirect: 64 {
        /// [`op::INDIRECT`].
        pub operation: u8 = 0,
        /// [`op::READ`] or [`op::WRITE`].
        pub indirect_op: u8 = 1,
        /// Segments in all pages together.
        pub nr_segments: u16 = 2,
        /// Unused.
        pub pad: u32 = 4,
        /// Comes back in the response.
        pub id: u64 = 8,
        /// Where on the disk.
        pub sector_number: u64 = 16,
        /// The front end's number of the device.
        pub handle: u16 = 24,
        /// Unused.
        pub pad2: u16 = 26,
        /// The grants of the pages.
        pub indirect_grefs: [u32; MAX_INDIRECT_PAGES] = 28,
        /// Unused.
        pub pad3: u32 = 60,
    }

    /// [`RequestIndirect`] of a 32-bit front end.
    pub struct CompatRequestIndirect: 56 {
        /// [`op::INDIRECT`].
        pub operation: u8 = 0,
        /// [`op::READ`] or [`op::WRITE`].
        pub indirect_op: u8 = 1,
        /// Segments in all pages together.
        pub nr_segments: u16 = 2,
        /// Comes back in the response.
        pub id: U64 = 4,
        /// Where on the disk.
        pub sector_number: U64 = 12,
        /// The front end's number of the device.
        pub handle: u16 = 20,
        /// Unused.
        pub pad2: u16 = 22,
        /// The grants of the pages.
        pub indirect_grefs: [u32; MAX_INDIRECT_PAGES] = 24,
    }

    /// A response (`struct blkif_response`).
    pub struct Response: 16 {
        /// The request's.
        pub id: u64 = 0,
        /// The request's.
        pub operation: u8 = 8,
        /// Unused.
        pub pad: u8 = 9,
        /// One of [`status`].
        pub status: i16 = 10,
        /// Unused.
        pub pad2: u32 = 12,
    }

    /// [`Response`] to a 32-bit front end.
    pub struct CompatResponse: 12 {
        /// The request's.
        pub id: U64 = 0,
        /// The request's.
        pub operation: u8 = 8,
        /// Unused.
        pub pad: u8 = 9,
        /// One of [`status`].
        pub status: i16 = 10,
    }
}
