//! Interrupts of a vCPU: the virtual local APIC, the mailbox other pCPUs post to, and the choice
//! of what to inject at the next VM entry.
//!
//! ```text
//! any pCPU --post()--> Inbox --fold()--> VLapic IRR --pending_vector()--> inject::decide()
//! ```

pub mod inbox;
pub mod inject;
mod vectors;
pub mod vlapic;
