//! Paravirtual drivers: rings, console, block and network, front and back ends.
//!
//! Both ends live here, so that one ring implementation serves guests and the hypervisor. All
//! access to memory shared with a peer goes through [`shared_page::SharedPage`].
#![no_std]

pub mod blk;
pub mod byte_ring;
pub mod bytes;
pub mod console;
pub mod grants;
pub mod guest;
pub mod hypercall;
pub mod net;
pub mod ring;
pub mod shared_page;
#[cfg(test)]
mod test_guest;
#[cfg(test)]
mod test_page;
pub mod xenbus;
pub mod xenstore;
