//! The hypervisor core: domains, vCPUs, exits, hypercalls, memory and scheduling.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot_info;
pub mod builder;
pub mod emulate;
pub mod evtchn;
pub mod fault;
pub mod grant;
pub mod intr;
pub mod mm;
pub mod platform;
pub mod policy;
