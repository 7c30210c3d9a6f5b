//! Memory: the direct map, the frame table, each domain's p2m, and access to guest memory.
//!
//! From the bottom up: [`directmap`] makes host-physical addresses accessible, [`frame`] knows
//! the owner of every frame, [`page`] holds a frame for as long as somebody uses it.

pub mod directmap;
pub mod frame;
pub mod page;
#[cfg(test)]
pub mod testing;
