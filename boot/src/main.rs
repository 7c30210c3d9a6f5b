//! The hypervisor image: from the boot loader's last instruction to the core's first.
//!
//! [`start`] sets everything up in order; the rest is what it needs. Nothing here runs once the
//! core does, except interrupts, the console, and the ends: [`cpu::traps`], [`console`],
//! [`mod@panic`] and [`end`].
#![no_std]
#![no_main]

extern crate alloc;

mod console;
mod cpu;
mod device;
mod end;
mod entry;
mod layout;
mod loader;
mod machine;
mod memory;
mod panic;
mod port;
mod smp;
mod start;
