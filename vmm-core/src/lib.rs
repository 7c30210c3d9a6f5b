//! The hypervisor core: domains, vCPUs, exits, hypercalls, memory and scheduling.
#![no_std]

extern crate alloc;

pub mod boot_info;
pub mod evtchn;
pub mod fault;
pub mod intr;
pub mod mm;
pub mod platform;
