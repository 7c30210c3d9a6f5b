//! Memory: the direct map, the frame table, each domain's p2m, and access to guest memory.
//!
//! From the bottom up: [`directmap`] makes host-physical addresses accessible, [`frame`] knows
//! the owner of every frame, [`page`] holds a frame for as long as somebody uses it, [`dma`] a row of them for a device, [`p2m`] maps
//! frames into a guest, [`guest_mem`] reads and writes what is mapped there.

pub mod directmap;
pub mod dma;
pub mod frame;
pub mod guest_mem;
pub mod p2m;
pub mod page;
pub mod scratch;
pub mod span;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
