//! The CPU outside VMX: model-specific, control and debug registers, extended state, last-branch
//! records, time stamp, local APIC, idling, and what speculation calls for.

pub mod apic;
pub mod cpuid;
pub mod cr;
pub mod dr;
pub mod fpu;
pub mod idle;
pub mod last_branch;
pub mod msr;
pub mod speculation;
pub mod tsc;
