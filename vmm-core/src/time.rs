//! Time: the host TSC as the one clock, and a domain's view of it.
//!
//! Inside the hypervisor every instant is a host TSC value ([`Tsc`]). A domain sees nanoseconds
//! since its creation; [`Clock`] converts both ways with the multipliers that the guest itself
//! uses (`vcpu_time_info`, `public/xen.h`), so both sides agree to the tick.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::bits::saturate64;

/// An instant, in host TSC ticks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Tsc(pub u64);

impl Tsc {
    /// The far future: a deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(vmx::cpu::tsc::rdtsc())
    }

    /// This instant and `ticks` more, stopping at [`Tsc::NEVER`].
    #[must_use]
    pub const fn after(self, ticks: u64) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// Ticks from `earlier` to this instant; zero when it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

static TSC_KHZ: AtomicU64 = AtomicU64::new(1_000_000);

/// Records the measured TSC frequency, once at boot.
pub fn set_tsc_khz(khz: u64) {
    TSC_KHZ.store(khz.max(1), Ordering::Relaxed);
}

/// The TSC frequency in kHz.
#[must_use]
pub fn tsc_khz() -> u64 {
    TSC_KHZ.load(Ordering::Relaxed)
}

/// Converts microseconds to TSC ticks.
#[must_use]
pub fn ticks_from_us(us: u64) -> u64 {
    us.saturating_mul(tsc_khz()) / 1000
}

/// The scale between TSC ticks and nanoseconds that `vcpu_time_info` describes:
/// `ns = ((ticks << shift) * mul) >> 32`, a negative shift going right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// `tsc_to_system_mul`.
    pub mul: u32,
    /// `tsc_shift`.
    pub shift: i8,
}

impl Scale {
    /// The scale of a TSC that runs at `khz`.
    #[must_use]
    pub fn from_khz(khz: u64) -> Self {
        let hz = u128::from(khz.max(1)) * 1000;
        let mut shift: i8 = 0;
        // Bring nanoseconds per (shifted) tick into [0.5, 1), where 32 bits hold it best.
        let per_tick = |shift: i8| -> u128 {
            let scaled = (1_000_000_000u128 << 64) / hz;
            if shift >= 0 {
                scaled >> shift
            } else {
                scaled << -shift
            }
        };
        while per_tick(shift) >= 1 << 64 {
            shift += 1;
        }
        while per_tick(shift) < 1 << 63 {
            shift -= 1;
        }
        let mul = u32::try_from(per_tick(shift) >> 32).unwrap_or(u32::MAX);
        Self { mul, shift }
    }

    /// Nanoseconds in `ticks`.
    #[must_use]
    pub const fn ns(self, ticks: u64) -> u64 {
        let mul = self.mul as u128;
        // A shift to the left may as well come after the product, which has 96 bits.
        saturate64(match self.shift {
            left @ 0..=32 => (ticks as u128 * mul) >> (32 - left),
            left @ 33.. => (ticks as u128 * mul) << (left - 32),
            right => {
                let ticks = ticks.unbounded_shr(right.unsigned_abs() as u32);
                (ticks as u128 * mul) >> 32
            }
        })
    }

    /// The fewest ticks after which [`Scale::ns`] reaches `ns`.
    #[must_use]
    pub const fn ticks(self, ns: u64) -> u64 {
        // (ns << 32) / mul, rounded up, by two divisions of 64 bits: one of 128 takes five times
        // the instructions.
        let mul = self.mul as u64;
        if mul == 0 {
            return u64::MAX;
        }
        let (high, rest) = (ns / mul, (ns % mul) << 32);
        let low = rest.div_ceil(mul);
        // Years of any real TSC fit 64 bits.
        if high < 1 << 27 && -4 <= self.shift && self.shift < 32 {
            // Below 2^60, as are the sums that follow.
            let shifted = (high << 32).wrapping_add(low);
            return if self.shift >= 0 {
                shifted.wrapping_add((1 << self.shift) - 1) >> self.shift
            } else {
                shifted << -self.shift
            };
        }
        let shifted = ((high as u128) << 32).saturating_add(low as u128);
        saturate64(if self.shift >= 0 {
            shifted.div_ceil(1 << self.shift)
        } else {
            shifted.unbounded_shl(self.shift.unsigned_abs() as u32)
        })
    }
}

/// A domain's clock: nanoseconds since its creation.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The host TSC when the domain's system time was zero.
    pub epoch: Tsc,
    /// Ticks to nanoseconds.
    pub scale: Scale,
    /// Seconds since 1970 when the domain's system time was zero.
    pub wall_seconds: u64,
}

impl Clock {
    /// System time at `now`, in nanoseconds.
    #[must_use]
    pub const fn system_time(&self, now: Tsc) -> u64 {
        self.scale.ns(now.since(self.epoch))
    }

    /// The instant at which the domain's system time reaches `ns`.
    #[must_use]
    pub const fn instant(&self, ns: u64) -> Tsc {
        self.epoch.after(self.scale.ticks(ns))
    }

    /// What to add to the host TSC to get the guest's, which starts at zero.
    #[must_use]
    pub const fn tsc_offset(&self) -> u64 {
        self.epoch.0.wrapping_neg()
    }
}

#[cfg(test)]
mod tests {
    use super::Scale;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn one_second_of_ticks_is_one_second() {
        for khz in [
            1_000, 20_000, 999_999, 1_000_000, 2_100_000, 3_500_123, 9_000_000,
        ] {
            let scale = Scale::from_khz(khz);
            let ns = scale.ns(khz * 1000);
            assert!(ns.abs_diff(1_000_000_000) <= 1, "{khz} kHz gives {ns} ns");
        }
    }

    proptest! {
        #[test]
        fn nanoseconds_are_what_the_guest_computes(
            mul in any::<u32>(),
            shift in -63i8..=20,
            ticks in any::<u64>(),
        ) {
            let ticks = u128::from(ticks);
            let shifted = if shift >= 0 { ticks << shift } else { ticks >> -shift };
            let ns = (shifted * u128::from(mul)) >> 32;
            let expected = u64::try_from(ns).unwrap_or(u64::MAX);
            let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
            let scale = Scale { mul, shift };
            prop_assert_eq!(scale.ns(ticks), expected);
        }

        #[test]
        fn a_deadline_is_reached_at_its_tick_and_not_before(
            khz in 1_000u64..10_000_000,
            ns in 0u64..1 << 60,
        ) {
            let scale = Scale::from_khz(khz);
            let ticks = scale.ticks(ns);
            prop_assert!(scale.ns(ticks) >= ns);
            prop_assert!(ticks == 0 || scale.ns(ticks - 1) <= ns);
        }
    }
}
