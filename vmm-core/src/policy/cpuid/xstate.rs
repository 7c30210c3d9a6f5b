//! Extended state: the components a guest may enable in XCR0, and the sizes of its save area.
//!
//! SDM 1, "Managing State Using the XSAVE Feature Set".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use super::Registers;
use super::host::Host;

/// x87 and SSE.
pub(super) const LEGACY: u64 = 0b11;
pub(super) const AVX: u64 = 1 << 2;
/// Opmask, the upper halves of ZMM0-15, and ZMM16-31; all or none.
pub(super) const AVX512: u64 = 0b111 << 5;
pub(super) const PKRU: u64 = 1 << 9;
/// TILECFG and TILEDATA; both or none.
pub(super) const AMX: u64 = 0b11 << 17;
const KNOWN: u64 = LEGACY | AVX | AVX512 | PKRU | AMX;

/// The legacy region and the header.
const MIN_SIZE: u32 = 512 + 64;
/// Components 0 to 18.
const COMPONENTS: usize = 19;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Component {
    size: u32,
    /// In the standard format.
    offset: u32,
    /// ECX of its leaf: bit 1 aligns it to 64 bytes in the compacted format.
    flags: u32,
}

/// The extended state of a domain's vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct XStates {
    xcr0: u64,
    components: [Component; COMPONENTS],
}

/// True for a value of XCR0 that the architecture allows (SDM 1, "Enabling the XSAVE Feature Set
/// and XSAVE-Enabled Features").
pub(super) fn is_consistent(xcr0: u64) -> bool {
    let all_or_none = |bits: u64| xcr0 & bits == 0 || xcr0 & bits == bits;
    let needs = |bits: u64, needed: u64| xcr0 & bits == 0 || xcr0 & needed == needed;
    xcr0 & 1 != 0
        && needs(AVX, LEGACY)
        && needs(AVX512, AVX)
        && all_or_none(AVX512)
        && all_or_none(AMX)
}

impl XStates {
    pub(super) fn new(host: &mut Host<'_>, limit: u64) -> Self {
        const XSAVE: u32 = 1 << 26;
        if host.read(1, 0).ecx & XSAVE == 0 {
            return Self::default();
        }
        let supported = host.read(0xd, 0);
        let supported = u64::from(supported.edx) << 32 | u64::from(supported.eax);
        let xcr0 = consistent_part(supported & limit & KNOWN);
        let mut states = Self {
            xcr0,
            ..Self::default()
        };
        for (index, component) in (0..).zip(&mut states.components).skip(2) {
            if has(xcr0, index) {
                let leaf = host.read(0xd, index);
                *component = Component {
                    size: leaf.eax,
                    offset: leaf.ebx,
                    flags: leaf.ecx & 2,
                };
            }
        }
        states
    }

    pub(super) fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// The size of the standard format for the components in `xcr0`.
    pub(super) fn standard_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).fold(MIN_SIZE, |size, c| {
            size.max(c.offset.saturating_add(c.size))
        })
    }

    /// The size of the compacted format for the components in `xcr0`.
    pub(super) fn compacted_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).fold(MIN_SIZE, |size, c| {
            let start = if c.flags & 2 == 0 {
                size
            } else {
                size.saturating_add(63) & !63
            };
            start.saturating_add(c.size)
        })
    }

    /// The subleaves of leaf 0xd; `instructions` is EAX of the second.
    pub(super) fn leaves(&self, instructions: u32) -> heapless::Vec<Registers, COMPONENTS> {
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let first = Registers {
            eax: half(self.xcr0),
            ebx: MIN_SIZE,
            ecx: self.standard_size(self.xcr0),
            edx: half(self.xcr0 >> 32),
        };
        let second = Registers {
            eax: instructions,
            ..Registers::default()
        };
        let count = 64_u32.saturating_sub(self.xcr0.leading_zeros()).max(2) as usize;
        let rest = self.components.iter().skip(2).map(|component| Registers {
            eax: component.size,
            ebx: component.offset,
            ecx: component.flags,
            edx: 0,
        });
        [first, second]
            .into_iter()
            .chain(rest)
            .take(count)
            .collect()
    }

    fn enabled(&self, xcr0: u64) -> impl Iterator<Item = &Component> {
        let xcr0 = xcr0 & self.xcr0;
        (0..)
            .zip(&self.components)
            .skip(2)
            .filter(move |(index, _)| has(xcr0, *index))
            .map(|(_, component)| component)
    }
}

fn has(xcr0: u64, index: u32) -> bool {
    xcr0.wrapping_shr(index) & 1 != 0
}

/// The largest consistent value in `xcr0`, or 0.
fn consistent_part(mut xcr0: u64) -> u64 {
    if xcr0 & LEGACY != LEGACY {
        return 0;
    }
    if xcr0 & AVX == 0 || xcr0 & AVX512 != AVX512 {
        xcr0 &= !AVX512;
    }
    if xcr0 & AMX != AMX {
        xcr0 &= !AMX;
    }
    xcr0
}
