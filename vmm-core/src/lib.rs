//! The hypervisor core: domains, vCPUs, exits, hypercalls, memory and scheduling.
#![no_std]

pub mod boot_info;
pub mod fault;
pub mod platform;
