//! A limit on how much is sent in how much time.

use core::num::NonZeroU64;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// A token bucket: bytes at a steady rate, and so many at once after a pause.
///
/// Kept as the time at which the bucket will be full again: that takes no rounding with it from
/// one packet to the next, and what a packet takes off depends on nothing but its size.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Bytes a second.
    rate: NonZeroU64,
    /// How long filling an empty bucket takes, in nanoseconds.
    depth: u64,
    /// When it will be full, in nanoseconds.
    full_at: u64,
}

impl Bucket {
    /// A full bucket: `rate` bytes a second, `burst` bytes at once. A rate of 0 counts as 1.
    #[must_use]
    pub fn new(rate: u64, burst: u64) -> Self {
        let rate = NonZeroU64::new(rate).unwrap_or(NonZeroU64::MIN);
        Self {
            rate,
            depth: time(burst, rate),
            full_at: 0,
        }
    }

    /// Takes `bytes` out at the time `now`, in nanoseconds. False when so many are not there:
    /// nothing is taken then. A clock that goes back fills nothing.
    #[must_use]
    pub fn take(&mut self, now: u64, bytes: u32) -> bool {
        let full_at = self
            .full_at
            .max(now)
            .saturating_add(time(bytes.into(), self.rate));
        let there = full_at.saturating_sub(now) <= self.depth;
        if there {
            self.full_at = full_at;
        }
        there
    }
}

/// Nanoseconds that `bytes` take, rounded up.
fn time(bytes: u64, rate: NonZeroU64) -> u64 {
    let rounded_up = |bytes: u64| {
        let seconds = bytes / rate;
        seconds.saturating_add((bytes % rate != 0).into())
    };
    match bytes.checked_mul(SECOND) {
        Some(bytes) => rounded_up(bytes),
        None => rounded_up(bytes).saturating_mul(SECOND),
    }
}
