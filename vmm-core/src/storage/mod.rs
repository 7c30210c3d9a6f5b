//! What stands behind the domains' disks.
//!
//! [`RamDisk`] is an image of the boot archive and what a domain has written over it.

mod overlay;
mod ram;

pub use ram::RamDisk;
