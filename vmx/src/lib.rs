//! Intel VT-x: every privileged CPU instruction, the VMCS, VM entry and exit decoding.
//!
//! | module | what it is |
//! |---|---|
//! | [`caps`] | which controls this CPU offers, and those that are used (pure) |
//! | [`enable()`] | VMX on and off, per CPU |
//! | [`vmcs`] | the control structure: typed fields, the region, the current one |
//! | [`exit`] | VM exits: which fields to read, what they mean (pure) |
//! | [`event`] | injected and interrupted events (pure) |
//! | [`MsrBitmap`] | which MSR accesses do not exit (pure) |
//! | [`cpu`] | the CPU outside VMX |
//!
//! A vCPU's life:
//!
//! ```text
//!  available() ─► CapMsrs ─► negotiate() ─► Controls          once
//!  enable(frame, &controls) ─► VmxOn                           per CPU
//!  Vmcs::new(frame, revision)                                  per vCPU
//!  vmcs.load(&vmx_on) ─► CurrentVmcs                           per turn on a CPU
//!      .init_controls(&controls, &VmcsSetup { host: HostState::capture(), .. })   the first time
//!      .set_host_state(&HostState::capture())                  after a move to another CPU
//!      .run(&mut regs) ─► ExitReason, and .details() ─► Decoded where that is not all
//!  vmcs.clear(&vmx_on)                                         before a move, and at the end
//! ```
//!
//! Unsafe code is in the files that touch the CPU: `instr`, `entry`, `enable`, `cpu/*`, and in
//! `vmcs` the region, the current VMCS, its set-up and the host state. Everything else takes
//! integers and returns values.
//!
//! Titles cited as "SDM" are those of Intel's *Software Developer's Manual* (order number 325462,
//! edition 084 of June 2024; exit reasons above 79 are from later editions).
#![no_std]

extern crate alloc;

mod bitmap;
pub mod caps;
pub mod cpu;
#[cfg(target_os = "none")]
mod debugger;
mod enable;
mod entry;
pub mod event;
pub mod exit;
mod instr;
mod regs;
pub mod vmcs;

pub use bitmap::MsrBitmap;
pub use caps::{CapMsrs, Controls, FeatureMask, Features, Missing, negotiate};
pub use enable::{EnableError, VmxOn, available, enable};
pub use event::{Event, EventKind};
pub use exit::{Decoded, Exit, RawExit, decode};
pub use instr::{InstructionError, InveptKind, InvvpidKind, VmFail, invept, invvpid};
pub use regs::{GuestRegs, RSP};
pub use vmcs::{
    Counters, CurrentVmcs, EntryFailure, Eptp, Field, HostState, Segment, SegmentName, Vmcs,
    VmcsSetup, field,
};
