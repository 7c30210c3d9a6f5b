//! The machine around the CPUs: firmware tables, interrupt routing, clocks, power.

pub(crate) mod acpi;
pub(crate) mod clocks;
pub(crate) mod ioapic;
pub(crate) mod power;
