//! Memory types, and how the host's MTRRs choose one.
//!
//! RAM is write-back. A device's registers mapped into a guest take the type the host's MTRRs
//! give to their address. SDM 3A, "Memory Type Range Registers (MTRRs)"; SDM 3C, "EPT and Memory
//! Typing".

use abi::Hpa;

/// A memory type with the encoding MTRRs and EPT share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MemType {
    /// UC.
    Uncacheable = 0,
    /// WC.
    WriteCombining = 1,
    /// WT.
    WriteThrough = 4,
    /// WP.
    WriteProtected = 5,
    /// WB.
    WriteBack = 6,
}

impl MemType {
    /// The encoding.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// The type of an encoding; `None` for the reserved ones.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            _ => None,
        }
    }

    /// The type of memory two ranges claim: UC wins, WT wins over WB, and any other disagreement
    /// is undefined and taken as UC (SDM 3A, "MTRR Precedences").
    #[must_use]
    pub const fn overlap(self, other: Self) -> Self {
        match (self, other) {
            (Self::WriteBack, Self::WriteThrough)
            | (Self::WriteThrough, Self::WriteBack | Self::WriteThrough) => Self::WriteThrough,
            (Self::WriteBack, Self::WriteBack) => Self::WriteBack,
            (Self::WriteCombining, Self::WriteCombining) => Self::WriteCombining,
            (Self::WriteProtected, Self::WriteProtected) => Self::WriteProtected,
            _ => Self::Uncacheable,
        }
    }
}

/// The host's MTRRs, as read from the MSRs.
#[derive(Clone, Copy, Debug)]
pub struct Mtrrs<'a> {
    /// `IA32_MTRR_DEF_TYPE`.
    pub def_type: u64,
    /// `IA32_MTRR_PHYSBASEn` and `IA32_MTRR_PHYSMASKn`.
    pub variable: &'a [(u64, u64)],
    /// The eleven fixed-range registers from `IA32_MTRR_FIX64K_00000` in ascending order of
    /// address.
    pub fixed: &'a [u64; 11],
}

const ENABLE: u64 = 1 << 11;
const FIXED_ENABLE: u64 = 1 << 10;
const VALID: u64 = 1 << 11;
const FIXED_END: u64 = 0x10_0000;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl Mtrrs<'_> {
    /// The type of the 4 KiB that hold `hpa`.
    #[must_use]
    pub fn type_of(&self, hpa: Hpa) -> MemType {
        if self.def_type & ENABLE == 0 {
            return MemType::Uncacheable;
        }
        if self.def_type & FIXED_ENABLE != 0 && hpa.raw() < FIXED_END {
            return self.fixed_type(hpa.raw());
        }
        let ranges = self.variable.iter().filter(|(base, mask)| {
            mask & VALID != 0 && (hpa.raw() & mask & ADDRESS) == (base & mask & ADDRESS)
        });
        ranges
            .map(|(base, _)| low_type(*base))
            .reduce(MemType::overlap)
            .unwrap_or(low_type(self.def_type))
    }

    /// Below 1 MiB: one register of 64 KiB pieces, two of 16 KiB, eight of 4 KiB.
    fn fixed_type(&self, address: u64) -> MemType {
        let (register, piece) = match address {
            0..0x8_0000 => (0, address >> 16),
            0x8_0000..0xc_0000 => {
                let piece = (address - 0x8_0000) >> 14;
                (1 + piece / 8, piece % 8)
            }
            _ => {
                let piece = (address - 0xc_0000) >> 12;
                (3 + piece / 8, piece % 8)
            }
        };
        let word = usize::try_from(register)
            .ok()
            .and_then(|register| self.fixed.get(register));
        word.map_or(MemType::Uncacheable, |word| low_type(word >> (8 * piece)))
    }
}

/// The type in the low byte of a register.
#[expect(clippy::cast_possible_truncation, reason = "the low byte is meant")]
fn low_type(word: u64) -> MemType {
    MemType::from_raw(word as u8).unwrap_or(MemType::Uncacheable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WB_ALL: [u64; 11] = [0x0606_0606_0606_0606; 11];

    #[test]
    fn disabled_means_uncacheable() {
        let mtrrs = Mtrrs {
            def_type: 6,
            variable: &[],
            fixed: &WB_ALL,
        };
        assert_eq!(mtrrs.type_of(Hpa::new(0)), MemType::Uncacheable);
    }

    #[test]
    fn variable_ranges_and_default() {
        // The usual firmware set-up: WB by default, the PCI hole UC.
        let variable = [
            (0xc000_0000, 0xf_c000_0000 | VALID),
            (0x1000_0004, 0xf_f000_0000 | VALID),
        ];
        let mtrrs = Mtrrs {
            def_type: ENABLE | 6,
            variable: &variable,
            fixed: &[0; 11],
        };
        assert_eq!(mtrrs.type_of(Hpa::new(0xfee0_0000)), MemType::Uncacheable);
        assert_eq!(mtrrs.type_of(Hpa::new(0x1fff_f000)), MemType::WriteThrough);
        assert_eq!(mtrrs.type_of(Hpa::new(0x2000_0000)), MemType::WriteBack);
        assert_eq!(mtrrs.type_of(Hpa::new(0)), MemType::WriteBack);
    }

    #[test]
    fn fixed_ranges_below_one_mebibyte() {
        let mut fixed = WB_ALL;
        fixed[2] = 0; // 0xa0000..0xc0000
        fixed[10] = 0x0506_0606_0606_0606; // the last 4 KiB piece of 0xf8000..0x100000
        let mtrrs = Mtrrs {
            def_type: ENABLE | FIXED_ENABLE,
            variable: &[],
            fixed: &fixed,
        };
        assert_eq!(mtrrs.type_of(Hpa::new(0x9_ffff)), MemType::WriteBack);
        assert_eq!(mtrrs.type_of(Hpa::new(0xa_0000)), MemType::Uncacheable);
        assert_eq!(mtrrs.type_of(Hpa::new(0xb_ffff)), MemType::Uncacheable);
        assert_eq!(mtrrs.type_of(Hpa::new(0xc_0000)), MemType::WriteBack);
        assert_eq!(mtrrs.type_of(Hpa::new(0xf_ffff)), MemType::WriteProtected);
        assert_eq!(mtrrs.type_of(Hpa::new(0x10_0000)), MemType::Uncacheable);
    }

    #[test]
    fn overlaps_follow_the_precedences() {
        use MemType::{Uncacheable, WriteBack, WriteCombining, WriteThrough};
        assert_eq!(WriteBack.overlap(Uncacheable), Uncacheable);
        assert_eq!(WriteBack.overlap(WriteThrough), WriteThrough);
        assert_eq!(WriteThrough.overlap(WriteBack), WriteThrough);
        assert_eq!(WriteCombining.overlap(WriteBack), Uncacheable);
        assert_eq!(WriteBack.overlap(WriteBack), WriteBack);
    }
}
