//! Extended page tables: format, walk, map and split, as pure logic.
//!
//! The manual is Intel's SDM (order number 325462, edition 084 of June 2024); citations give
//! volume and section title. Chapter "VMX Support for Address Translation", section "The
//! Extended Page Table Mechanism (EPT)", defines what this crate builds.
//!
//! [`Ept`] owns a tree of tables and reaches them through [`TableMem`]. Operations that change
//! what a CPU may have cached return a [`Flush`]: the caller invalidates (INVEPT) on every pCPU
//! that ran the domain and then calls [`Flush::done`], which also frees the tables that went out
//! of use. Tables are never freed before that.
//!
//! ```text
//!  gfn bits   35..27   26..18   17..9    8..0
//!            +-------+--------+-------+-------+
//!  root ---> | PML4  |  PDPT  |  PD   |  PT   | ---> frame
//!            +-------+--------+-------+-------+
//!                      1 GiB    2 MiB   4 KiB      a leaf ends the walk
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod entry;
pub mod flush;
pub mod map;
pub mod mem;
pub mod memtype;
pub mod walk;

pub use entry::{Attr, Entry, Perms};
pub use flush::Flush;
pub use map::{Ept, EptError, Gap};
pub use mem::TableMem;
pub use memtype::MemType;
pub use walk::{Leaf, PageSize};

#[cfg(test)]
mod tests;
