//! The memory-type range registers, as state a guest may keep: EPT decides the memory types.
//!
//! SDM 3A, "Memory Type Range Registers (MTRRs)".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use crate::fault::GuestFault;

const VARIABLE_RANGES: usize = 8;
const FIXED_RANGES: usize = 11;
/// Eight variable ranges, fixed ranges, write combining.
const CAPABILITIES: u64 = 1 << 10 | 1 << 8 | VARIABLE_RANGES as u64;
/// Enabled, fixed ranges off, write-back by default.
const DEF_TYPE_RESET: u64 = 1 << 11 | WRITE_BACK;
const DEF_TYPE_FLAGS: u64 = 1 << 11 | 1 << 10;
const MASK_VALID: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

const IA32_MTRRCAP: u32 = 0xfe;
const IA32_MTRR_PHYSBASE0: u32 = 0x200;
const IA32_MTRR_PHYSMASK7: u32 = 0x20f;
const IA32_MTRR_FIX64K_00000: u32 = 0x250;
const IA32_MTRR_FIX16K_80000: u32 = 0x258;
const IA32_MTRR_FIX16K_A0000: u32 = 0x259;
const IA32_MTRR_FIX4K_C0000: u32 = 0x268;
const IA32_MTRR_FIX4K_F8000: u32 = 0x26f;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;

/// The registers of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mtrrs {
    def_type: u64,
    fixed: [u64; FIXED_RANGES],
    /// Base and mask in turn.
    variable: [u64; 2 * VARIABLE_RANGES],
}

/// A register by its place.
#[derive(Clone, Copy)]
enum Place {
    Capabilities,
    DefType,
    Fixed(usize),
    Variable(usize),
}

impl Place {
    fn of(msr: u32) -> Option<Self> {
        let from = |first: u32| msr.checked_sub(first).map(|offset| offset as usize);
        match msr {
            IA32_MTRRCAP => Some(Self::Capabilities),
            IA32_MTRR_DEF_TYPE => Some(Self::DefType),
            IA32_MTRR_PHYSBASE0..=IA32_MTRR_PHYSMASK7 => {
                from(IA32_MTRR_PHYSBASE0).map(Self::Variable)
            }
            IA32_MTRR_FIX64K_00000 => Some(Self::Fixed(0)),
            IA32_MTRR_FIX16K_80000 => Some(Self::Fixed(1)),
            IA32_MTRR_FIX16K_A0000 => Some(Self::Fixed(2)),
            IA32_MTRR_FIX4K_C0000..=IA32_MTRR_FIX4K_F8000 => {
                from(IA32_MTRR_FIX4K_C0000.saturating_sub(3)).map(Self::Fixed)
            }
            _ => None,
        }
    }
}

impl Mtrrs {
    pub(super) const RESET: Self = Self {
        def_type: DEF_TYPE_RESET,
        fixed: [0; FIXED_RANGES],
        variable: [0; 2 * VARIABLE_RANGES],
    };

    /// The value of `msr`, or `None` when it is no such register.
    pub(super) fn read(&self, msr: u32) -> Option<u64> {
        match Place::of(msr)? {
            Place::Capabilities => Some(CAPABILITIES),
            Place::DefType => Some(self.def_type),
            Place::Fixed(index) => self.fixed.get(index).copied(),
            Place::Variable(index) => self.variable.get(index).copied(),
        }
    }

    /// Writes `msr`; `phys_bits` is the width of a guest-physical address.
    pub(super) fn write(&mut self, msr: u32, value: u64, phys_bits: u8) -> Result<(), GuestFault> {
        let address = 1_u64
            .checked_shl(u32::from(phys_bits))
            .unwrap_or(0)
            .wrapping_sub(0x1000);
        let place = Place::of(msr).ok_or(GuestFault::GP0)?;
        let (slot, legal) = match place {
            Place::Capabilities => (None, false),
            Place::DefType => {
                let flags = value & !0xff;
                (
                    Some(&mut self.def_type),
                    is_type(value & 0xff) && flags & !DEF_TYPE_FLAGS == 0,
                )
            }
            Place::Fixed(index) => {
                let legal = value.to_le_bytes().into_iter().map(u64::from).all(is_type);
                (self.fixed.get_mut(index), legal)
            }
            Place::Variable(index) if index & 1 == 0 => {
                let legal = is_type(value & 0xff) && value & !0xff & !address == 0;
                (self.variable.get_mut(index), legal)
            }
            Place::Variable(index) => (
                self.variable.get_mut(index),
                value & !MASK_VALID & !address == 0,
            ),
        };
        match slot {
            Some(slot) if legal => *slot = value,
            Some(_) | None => return Err(GuestFault::GP0),
        }
        Ok(())
    }
}

/// True for an encoding of a memory type that MTRRs take.
fn is_type(encoding: u64) -> bool {
    matches!(encoding, 0 | 1 | 4 | 5 | 6)
}
