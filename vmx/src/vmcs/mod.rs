//! The virtual-machine control structure: its region, and the one that is current.
//!
//! ```text
//!            load (VMCLEAR the first time, VMPTRLD)          enter
//!  Vmcs::new ───────────────────────────────────► current ─────────► launched
//!                     ▲                                                 │
//!                     └──────────────── clear (VMCLEAR) ◄───────────────┘
//! ```
//!
//! SDM 3C, "Software Use of Virtual-Machine Control Structures".

mod count;
mod current;
mod eptp;
pub mod field;
mod host;
pub(crate) mod region;
mod segment;
mod setup;

pub use count::Counters;
pub use current::{CurrentVmcs, EntryFailure};
pub use eptp::Eptp;
pub use field::{Ctl, Field, Ro, Rw};
pub use host::HostState;
pub use region::Vmcs;
pub use segment::{Segment, SegmentName};
pub use setup::VmcsSetup;
