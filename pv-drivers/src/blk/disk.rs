//! What stands behind a back end.

use abi::blkif::Segment;

use super::proto::Kind;
use crate::shared_page::SharedPage;

/// The disk could not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoError;

/// Sectors of a disk that go to or come from one page.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The first sector.
    pub sector: u64,
    /// The page.
    pub page: &'a SharedPage,
    /// The first byte in the page.
    pub offset: usize,
    /// Bytes: a whole number of sectors that stay inside the page.
    pub len: usize,
}

/// What an answer has to repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// The front end's number for the request.
    pub id: u64,
    /// The operation.
    pub operation: u8,
    /// How many segments it has.
    pub segments: usize,
}

/// A request whose segments have been checked: each is a run of sectors in one page, all of them
/// lie inside the disk, and it may be written if they are to be.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// For the answer.
    pub tag: Tag,
    /// What is asked for.
    pub kind: Kind,
    /// The first sector.
    pub sector: u64,
    /// Where the data goes or comes from; none for a flush alone.
    pub segments: &'a [Segment],
}

/// Who carries a transfer out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begun {
    /// The queue, piece by piece.
    InPieces,
    /// The disk, by itself: [`Queue::answer`](super::Queue::answer) is called when it is done.
    Whole,
    /// Nobody: it fails.
    Failed,
}

/// How many sectors a segment has.
#[must_use]
pub const fn sectors_of(segment: &Segment) -> u8 {
    let more = segment.last_sect.saturating_sub(segment.first_sect);
    more.saturating_add(1)
}

/// A disk, in sectors of 512 bytes, for front ends whose pages `G` gives. Sectors that are named lie
/// inside it.
pub trait Disk<G> {
    /// Takes a transfer over whole, if the disk works so.
    fn begin(&self, grants: &G, transfer: &Transfer<'_>) -> Begun;

    /// How many sectors there are.
    fn sectors(&self) -> u64;

    /// True when it refuses writes.
    fn is_read_only(&self) -> bool;

    /// Fills a piece of a page from the disk.
    ///
    /// # Errors
    /// [`IoError`]; what is in the page then is anything.
    fn read(&self, piece: Piece<'_>) -> Result<(), IoError>;

    /// Writes a piece of a page to the disk. It is durable after [`Disk::flush`].
    ///
    /// # Errors
    /// [`IoError`]; what is on the disk then is anything.
    fn write(&self, piece: Piece<'_>) -> Result<(), IoError>;

    /// Makes durable what has been written.
    ///
    /// # Errors
    /// [`IoError`].
    fn flush(&self) -> Result<(), IoError>;

    /// Forgets what is in `count` sectors from `sector` on, as far as the disk can in one go, and
    /// says how many sectors that went over: at least one. `None` when it cannot do so at all.
    fn discard(&self, sector: u64, count: u64) -> Option<u64>;
}
