//! The leaves that are made from the host's.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use super::features::{Conditions, Register, allowed, enabled_in_cr4, forced};
use super::{Registers, Spec};
use crate::intr::vlapic::TIMER_KHZ;

/// A guest-physical address has at most as many bits as a four-level EPT translates.
const MAX_PHYS_BITS: u32 = 48;
const LINEAR_BITS: u32 = 48;
const MAX_CACHES: usize = 8;

/// The host's CPUID; a leaf beyond its last one reads zero.
pub(super) struct Host<'a> {
    reader: &'a mut dyn FnMut(u32, u32) -> Registers,
    max_basic: u32,
    max_extended: u32,
}

impl<'a> Host<'a> {
    pub(super) fn new(reader: &'a mut dyn FnMut(u32, u32) -> Registers) -> Self {
        let max_basic = reader(0, 0).eax;
        let max_extended = reader(0x8000_0000, 0).eax;
        Self {
            reader,
            max_basic,
            max_extended,
        }
    }

    pub(super) fn read(&mut self, leaf: u32, subleaf: u32) -> Registers {
        let max = if leaf >> 31 == 0 {
            self.max_basic
        } else {
            self.max_extended
        };
        if leaf > max {
            return Registers::default();
        }
        (self.reader)(leaf, subleaf)
    }
}

/// A leaf of feature bits.
pub(super) fn filtered(
    host: &mut Host<'_>,
    leaf: u32,
    subleaf: u32,
    usable: Conditions,
) -> Registers {
    let read = host.read(leaf, subleaf);
    let filter = |value, register| {
        value & allowed(leaf, subleaf, register, usable) | forced(leaf, subleaf, register)
    };
    let ecx = filter(read.ecx, Register::Ecx);
    Registers {
        eax: filter(read.eax, Register::Eax),
        ebx: filter(read.ebx, Register::Ebx),
        ecx: ecx | enabled_in_cr4(leaf, subleaf, ecx),
        edx: filter(read.edx, Register::Edx),
    }
}

/// Leaf 1: the host's signature and CLFLUSH size, the domain's topology, the features.
pub(super) fn features(host: &mut Host<'_>, spec: &Spec, usable: Conditions) -> Registers {
    const HTT: u32 = 1 << 28;
    let read = host.read(1, 0);
    let features = filtered(host, 1, 0, usable);
    let ids = ids_per_package(spec.vcpus).min(0xff);
    Registers {
        eax: read.eax,
        ebx: read.ebx & 0xff00 | ids.wrapping_shl(16),
        ecx: features.ecx,
        edx: features.edx | if spec.vcpus > 1 { HTT } else { 0 },
    }
}

/// Leaf 4: the host's caches, the last level shared by the whole domain and the others private.
pub(super) fn caches(host: &mut Host<'_>, vcpus: u32) -> heapless::Vec<Registers, MAX_CACHES> {
    let ids = ids_per_package(vcpus);
    let cores = (ids >> 1).saturating_sub(1).min(0x3f);
    let mut caches = heapless::Vec::new();
    for subleaf in 0..8 {
        let cache = host.read(4, subleaf);
        if cache.eax & 0x1f == 0 {
            break;
        }
        let level = (cache.eax >> 5) & 7;
        let sharing = if level >= 3 {
            ids.saturating_sub(1).min(0xfff)
        } else {
            1
        };
        let eax = cache.eax & 0x3fff | sharing.wrapping_shl(14) | cores.wrapping_shl(26);
        if caches.push(Registers { eax, ..cache }).is_err() {
            break;
        }
    }
    caches
}

/// Leaf 0xb: one package of single-threaded cores, whose APIC ids are two apart.
pub(super) fn topology(vcpus: u32) -> [Registers; 2] {
    const SMT_LEVEL: u32 = 1 << 8;
    const CORE_LEVEL: u32 = 2 << 8;
    let core_shift = ids_per_package(vcpus).trailing_zeros();
    [
        Registers {
            eax: 1,
            ebx: 1,
            ecx: SMT_LEVEL,
            edx: 0,
        },
        Registers {
            eax: core_shift,
            ebx: vcpus,
            ecx: CORE_LEVEL,
            edx: 0,
        },
    ]
}

/// APIC ids that a package spans: a power of two.
fn ids_per_package(vcpus: u32) -> u32 {
    vcpus
        .max(1)
        .saturating_mul(2)
        .checked_next_power_of_two()
        .unwrap_or(1 << 31)
}

/// Leaf 0x15: the TSC's rate as a ratio to the clock of the APIC timer.
///
/// Guests multiply kHz of that clock by the numerator in 32 bits, so the ratio must not be finer
/// than that holds; what is lost is below 1 part in 100 000.
pub(super) fn crystal(tsc_khz: u32) -> Registers {
    let tsc_khz = tsc_khz.max(1);
    let exact = TIMER_KHZ.checked_div(gcd(tsc_khz, TIMER_KHZ)).unwrap_or(1);
    // The numerator is rounded: leave room for half a step.
    let finest = (u32::MAX - TIMER_KHZ).checked_div(tsc_khz).unwrap_or(1);
    let denominator = exact.min(finest).max(1);
    let product = u64::from(tsc_khz).saturating_mul(u64::from(denominator));
    let half = u64::from(TIMER_KHZ >> 1);
    let numerator = product
        .saturating_add(half)
        .checked_div(u64::from(TIMER_KHZ))
        .unwrap_or(0);
    Registers {
        eax: denominator,
        ebx: u32::try_from(numerator).unwrap_or(u32::MAX),
        ecx: TIMER_KHZ.saturating_mul(1000),
        edx: 0,
    }
}

/// Leaf 0x16: the TSC's rate in MHz as base and as highest frequency, and a bus of 100 MHz.
pub(super) fn frequency(tsc_khz: u32) -> Registers {
    let mhz = tsc_khz.saturating_add(500).checked_div(1000).unwrap_or(0);
    Registers {
        eax: mhz,
        ebx: mhz,
        ecx: 100,
        edx: 0,
    }
}

/// Leaf 0x80000008.
pub(super) fn address_widths(host: &mut Host<'_>) -> Registers {
    let physical = match host.read(0x8000_0008, 0).eax & 0xff {
        0 => 36,
        bits => bits.min(MAX_PHYS_BITS),
    };
    Registers {
        eax: physical | LINEAR_BITS << 8,
        ..Registers::default()
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while let Some(rest) = a.checked_rem(b) {
        a = b;
        b = rest;
    }
    a
}
