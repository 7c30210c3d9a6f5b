//! What stands behind a back end.

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

/// A disk, in sectors of 512 bytes. Sectors that are named lie inside it.
pub trait Disk {
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
    /// says how many sectors that went over: at least one.
    fn discard(&self, sector: u64, count: u64) -> u64;
}
