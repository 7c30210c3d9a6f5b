//! Device drivers as pure logic: what registers and descriptors say, and in which order they are
//! written.
//!
//! A driver reaches its device through [`Registers`] and memory that both share through
//! [`DmaMemory`]; PCI functions are found and set up through [`pci::Config`]. Boot has the real
//! ones of these, tests have models of devices. Nothing here waits for anything: a driver starts
//! something, and hears of the end when its interrupt comes.
//!
//! What a device says is believed as far as it makes sense, and no further: broken hardware costs
//! an error, not the hypervisor.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
#![cfg_attr(
    test,
    expect(
        clippy::cast_possible_truncation,
        reason = "tests choose their own numbers"
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod access;
pub mod ata;
pub mod block;
pub mod e1000;
pub mod mcfg;
pub mod pci;
#[cfg(test)]
mod testing;

pub use access::{DmaMemory, Registers};
