//! IA32_APIC_BASE and the modes it switches between.
//!
//! ```text
//!              EN              EXTD
//!  Disabled ------> XApic --------------> X2Apic
//!      ^  ^-----------'                      |
//!      '-------------- EN and EXTD off ------'
//! ```
//!
//! Every other change is refused (SDM 3A, "x2APIC State Transitions").
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use super::{Config, VLapic};
use crate::fault::GuestFault;

/// Where the xAPIC page is. The guest may not move it.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;

const BOOTSTRAP: u64 = 1 << 8;
const EXTD: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
const RESERVED_LOW: u64 = 0xff | 1 << 9;

/// The mode of a local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Disabled,
    XApic,
    X2Apic,
}

/// The value of IA32_APIC_BASE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ApicBase(u64);

impl ApicBase {
    pub(super) fn reset(bootstrap: bool) -> Self {
        Self(DEFAULT_BASE | ENABLE | if bootstrap { BOOTSTRAP } else { 0 })
    }

    pub(super) fn mode(self) -> Mode {
        match (self.0 & ENABLE != 0, self.0 & EXTD != 0) {
            (false, _) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
        }
    }

    pub(super) fn address(self) -> u64 {
        self.0 & !0xfff
    }

    /// The value after a write of `value`, if that write is legal.
    fn change(self, value: u64, config: &Config) -> Result<Self, GuestFault> {
        let above = u64::MAX
            .checked_shl(u32::from(config.phys_bits))
            .unwrap_or(0);
        if value & (RESERVED_LOW | above) != 0 || value & EXTD != 0 && value & ENABLE == 0 {
            return Err(GuestFault::GP0);
        }
        let new = Self(value);
        let moved = new.address() != self.address();
        let legal = match (self.mode(), new.mode()) {
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => false,
            (Mode::Disabled | Mode::XApic | Mode::X2Apic, Mode::Disabled)
            | (Mode::Disabled | Mode::XApic, Mode::XApic)
            | (Mode::XApic | Mode::X2Apic, Mode::X2Apic) => !moved,
        };
        if legal { Ok(new) } else { Err(GuestFault::GP0) }
    }
}

impl VLapic {
    /// The value of IA32_APIC_BASE.
    pub(super) fn base_value(&self) -> u64 {
        self.base.0
    }

    /// A write to IA32_APIC_BASE. Disabling the APIC loses its state.
    pub(super) fn set_base(&mut self, value: u64) -> Result<(), GuestFault> {
        let new = self.base.change(value, &self.config)?;
        let disabled = new.mode() == Mode::Disabled && self.base.mode() != Mode::Disabled;
        self.base = new;
        if disabled {
            self.init();
        } else {
            self.publish();
        }
        Ok(())
    }
}
