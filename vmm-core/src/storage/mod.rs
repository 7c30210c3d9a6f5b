//! What stands behind the domains' disks.
//!
//! * [`RamDisk`] is an image of the boot archive and what a domain has written over it.
//! * [`RealDisk`] is a part of a disk of the machine ([`BlockDevice`]); [`claims`] says which.
#![deny(clippy::indexing_slicing)]

pub mod claims;
mod device;
mod gpt;
mod overlay;
mod ram;
mod real;

pub use device::{BlockDevice, Direction, DiskInfo, Request, Span};
pub use pv_drivers::blk::IoError;
pub use ram::RamDisk;
pub use real::{Origin, RealDisk};
