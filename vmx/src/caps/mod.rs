//! What VMX can do on this machine, and what of it is used.
//!
//! ```text
//!  CapMsrs (raw values) ──┐
//!  FeatureMask (hidden) ──┴─► negotiate ──► Controls { words, features, ... }
//!                                    └────► [Missing, ...]  one line each
//! ```
//!
//! Pure but for [`CapMsrs::read`]: SDM 3D, "VMX Capability Reporting Facility".

pub mod bits;
mod features;
mod msrs;
mod negotiate;
mod table;

pub use features::{FeatureMask, Features, UnknownFeature};
pub use msrs::CapMsrs;
pub use negotiate::{Controls, FixedBits, Missing, MissingList, Why, negotiate};

#[cfg(test)]
mod models;
