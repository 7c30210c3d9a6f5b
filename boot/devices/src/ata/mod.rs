//! ATA disks behind a bus-master IDE controller. ATA/ATAPI-6 (48-bit addresses, DMA), and the
//! Programming Interface for Bus Master IDE Controller, revision 1.0.
//!
//! ```text
//!  submit --> row --> command --> disk ... interrupt --> done, next command
//!                        |                    |
//!                        |  time is up        | error
//!                        +--> reset, once <---+
//!                               |  fails again: the request fails
//!                               |  no disk answers: all requests fail, from now on
//! ```
//!
//! A [`Channel`] has up to two disks and carries out one command at a time. Its user calls it when
//! the interrupt comes, and when the time has come that [`Channel::deadline`] says.

mod channel;
mod identity;
mod prd;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use channel::{Channel, Micros, Parts};
pub use identity::Identity;

/// Registers of the command block.
mod register {
    pub(super) const FEATURES: usize = 1;
    pub(super) const COUNT: usize = 2;
    pub(super) const LBA_LOW: usize = 3;
    pub(super) const LBA_MID: usize = 4;
    pub(super) const LBA_HIGH: usize = 5;
    pub(super) const DEVICE: usize = 6;
    pub(super) const STATUS: usize = 7;
    pub(super) const COMMAND: usize = 7;
    pub(super) const DATA: usize = 0;
}

/// Bits of the status register.
mod status {
    pub(super) const ERROR: u8 = 1 << 0;
    pub(super) const DATA_REQUEST: u8 = 1 << 3;
    pub(super) const FAULT: u8 = 1 << 5;
    pub(super) const BUSY: u8 = 1 << 7;
}

/// Bits of the device register.
mod device {
    /// Addresses are sector numbers.
    pub(super) const LBA: u8 = 1 << 6;
    /// The second of two.
    pub(super) const SECOND: u8 = 1 << 4;
}

/// Bits of the control register.
mod control {
    pub(super) const RESET: u8 = 1 << 2;
}

mod command {
    pub(super) const READ_DMA_EXT: u8 = 0x25;
    pub(super) const WRITE_DMA_EXT: u8 = 0x35;
    pub(super) const FLUSH_CACHE: u8 = 0xe7;
    pub(super) const FLUSH_CACHE_EXT: u8 = 0xea;
    pub(super) const IDENTIFY: u8 = 0xec;
}

/// The bus master's registers, of one channel.
mod bus_master {
    pub(super) const COMMAND: usize = 0;
    pub(super) const STATUS: usize = 2;
    pub(super) const TABLE: usize = 4;

    /// Command: go.
    pub(super) const START: u8 = 1 << 0;
    /// Command: the controller writes memory.
    pub(super) const TO_MEMORY: u8 = 1 << 3;
    /// Status: it could not reach memory; written to clear.
    pub(super) const ERROR: u8 = 1 << 1;
    /// Status: the disk has interrupted; written to clear.
    pub(super) const INTERRUPT: u8 = 1 << 2;
}
