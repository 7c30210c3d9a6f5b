//! Micro-guests: one small PVH kernel for each behaviour, over the public ABI alone.
//!
//! Every file in `src/bin` is a kernel of its own on the runtime here: it is entered through its
//! PVH note, checks one thing, and says so in its last line of output, `verdict: pass` or
//! `verdict: fail` and why; then it powers its domain off. Nothing in them knows which hypervisor
//! they run on, so the same files can be held against any other that speaks Xen's ABI.
#![no_std]
#![expect(
    clippy::panic,
    reason = "a panic is how a guest reports that it cannot go on"
)]

pub mod apic;
pub mod bench;
pub mod console;
pub mod cpu;
pub mod debug;
pub mod disk;
pub mod entry;
pub mod events;
pub mod fpu;
pub mod grants;
pub mod interrupts;
pub mod mailbox;
pub mod memory;
pub mod narrow;
pub mod pair;
pub mod report;
pub mod rights;
pub mod ring3;
pub mod runtime;
pub mod sched;
pub mod smp;
pub mod xen;
