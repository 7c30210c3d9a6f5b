//! The grant table against what Xen's header promises, against a reference model, and against a
//! guest that keeps to nothing.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "tests choose their own numbers"
)]

extern crate std;

mod held;
mod sharing;
mod table;

use abi::{DomId, Gfn, GrantRef};
use core::sync::atomic::Ordering::SeqCst;
use system::GrantLimits;

use super::GrantTable;
use crate::mm::page::PageRef;
use crate::mm::testing;

fn table() -> GrantTable {
    testing::init();
    GrantTable::new(DomId(1), &GrantLimits::default()).unwrap()
}
