//! The hypervisor core: domains, vCPUs, exits, hypercalls, memory and scheduling.
#![no_std]

pub mod fault;
