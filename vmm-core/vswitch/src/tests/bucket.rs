//! Rate limits.

use proptest::prelude::{any, prop_assert, proptest};
use std::vec::Vec;

use crate::Bucket;

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_burst_passes_and_then_the_rate() {
    let mut bucket = Bucket::new(1_000_000, 3000);
    let now = 5 * SECOND;
    assert!(bucket.take(now, 1500) && bucket.take(now, 1500));
    assert!(!bucket.take(now, 1));
    // A byte takes a microsecond.
    assert!(!bucket.take(now + 99_999, 100));
    assert!(bucket.take(now + 100_000, 100));
    assert!(!bucket.take(now + 100_000, 1));
    // After a long pause there is a burst again and no more.
    let later = now + 3600 * SECOND;
    assert!(bucket.take(later, 3000) && !bucket.take(later, 1));
}

#[test]
fn what_is_refused_takes_nothing() {
    let mut bucket = Bucket::new(1000, 100);
    assert!(!bucket.take(0, 101));
    assert!(bucket.take(0, 100));
}

#[test]
fn no_numbers_break_it() {
    let mut bucket = Bucket::new(0, u64::MAX);
    assert!(bucket.take(u64::MAX, u32::MAX));
    let mut bucket = Bucket::new(u64::MAX, 0);
    assert!(!bucket.take(0, u32::MAX));
    assert!(bucket.take(0, 0));
}

proptest! {
    /// Over any stretch of time no more passes than the burst and the rate times that stretch.
    #[test]
    fn it_holds_over_any_stretch(
        rate in 1_u64..1_000_000_000,
        burst in 0_u64..200_000,
        asked in proptest::collection::vec((0_u64..50_000_000, any::<u16>()), 1..60),
    ) {
        let mut bucket = Bucket::new(rate, burst);
        let mut now = 0;
        let mut passed: Vec<(u64, u64)> = Vec::new();
        for (pause, bytes) in asked {
            now += pause;
            if bucket.take(now, bytes.into()) {
                passed.push((now, bytes.into()));
            }
        }
        for from in 0..passed.len() {
            let mut sum = 0_u128;
            for &(at, bytes) in &passed[from..] {
                sum += u128::from(bytes);
                let time = u128::from(at - passed[from].0);
                // The last rounding of the depth is worth a nanosecond of the rate.
                let most = u128::from(burst) + (time + 1) * u128::from(rate) / 1_000_000_000 + 1;
                prop_assert!(sum <= most, "{sum} of {most}");
            }
        }
    }
}
