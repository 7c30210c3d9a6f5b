//! The CPU's tables and the ways into the hypervisor that the processor itself takes.

pub(crate) mod control;
pub(crate) mod local;
pub(crate) mod machine_check;
pub(crate) mod tables;
pub(crate) mod traps;
