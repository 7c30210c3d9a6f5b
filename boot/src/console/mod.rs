//! The hypervisor's own console: the serial port and the log.

pub(crate) mod log;
pub(crate) mod serial;
