//! Parts of integers, where dropping the rest is meant.

/// The low 32 bits.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the rest is what is dropped"
)]
pub const fn low32(value: u64) -> u32 {
    value as u32
}

/// A 128-bit value as 64 bits, the largest one when it does not fit.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the value was just compared with the limit"
)]
pub const fn saturate64(value: u128) -> u64 {
    if value > u64::MAX as u128 {
        u64::MAX
    } else {
        value as u64
    }
}
