//! Block devices (`public/io/blkif.h`): what requests say, and the back end that serves them.
//!
//! [`proto`] takes an entry of the ring apart, [`Queue`] carries requests out on a [`Disk`]. It
//! sees of the front end what a driver domain would see: the ring and [`Grants`].
//!
//! [`Grants`]: crate::grants::Grants

mod back;
mod disk;
pub mod proto;
#[cfg(test)]
mod tests;

pub use back::{MAX_INDIRECT_SEGMENTS, Queue, Served};
pub use disk::{Disk, IoError, Piece};
