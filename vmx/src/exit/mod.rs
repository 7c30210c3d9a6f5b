//! VM exits: which fields to read ([`raw`]), what they mean ([`decode()`]).
//!
//! ```text
//! entry::enter ──► RawExit::read ──► decode ──► Decoded { exit, redeliver, ... } ──► vmm-core
//!                  (VMREADs)         (pure)
//! ```

mod decode;
mod kind;
mod layout;
mod qual;
pub mod raw;
pub mod reason;

pub use decode::{Decoded, ExitReason, Plain, decode};
pub use kind::Exit;
pub use qual::{
    AddressSize, ApicAccess, ApicAccessKind, CrAccess, DrAccess, EptViolation, ExceptionInfo,
    FailedEntry, GuestStateFault, Invalidate, IoAccess, LinearInfo, MemoryOperand, Operand,
    RegisterOperand, SegmentReg, StringIo, TableAccess, TableRegister, TaskSource, TaskSwitch,
};
pub use raw::RawExit;

/// The basic exit reason in an exit reason: its low half.
#[inline]
#[must_use]
pub const fn basic(reason: u32) -> u16 {
    let [low, high, ..] = reason.to_le_bytes();
    u16::from_le_bytes([low, high])
}
