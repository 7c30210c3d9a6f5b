//! What stands behind the domains' disks.
//!
//! [`RamDisk`] is an image of the boot archive and what a domain has written over it.

mod device;
mod overlay;
mod ram;

pub use device::{BlockDevice, Direction, DiskInfo, Transfer, read_now};
pub use pv_drivers::blk::IoError;
pub use ram::RamDisk;
