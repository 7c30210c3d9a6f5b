//! Block devices (`public/io/blkif.h`): what requests say, and both ends that have to do with them.
//!
//! Of the back end, [`proto`] takes an entry of the ring apart and [`Queue`] carries requests out
//! on a [`Disk`]. It sees of the front end what a driver domain would see: the ring and [`Grants`].
//!
//! Of the front end, [`Requests`] are what is in the ring and the grants that go with it; [`Front`]
//! is the disk that a guest uses, by way of [`FrontEnd`].
//!
//! [`FrontEnd`]: crate::xenbus::FrontEnd
//! [`Grants`]: crate::grants::Grants

mod back;
mod disk;
mod front;
#[cfg(test)]
mod front_tests;
pub mod proto;
mod requests;
#[cfg(test)]
mod tests;

pub use back::{MAX_INDIRECT_SEGMENTS, MAX_UNDER_WAY, Queue, Served};
pub use disk::{Begun, Disk, IoError, Piece, Tag, Transfer, sectors_of};
pub use front::{DiskFront, Front, Info};
pub use requests::{Buffer, Completion, NotTaken, RING_REQUESTS, Request, Requests};
