//! Timing by RDTSC: smallest and median of many rounds, the empty loop's cost taken off.

use crate::{cpu, say};

/// Rounds of one measurement.
const ROUNDS: usize = 257;
/// Rounds before counting, to have everything mapped and warm.
const WARM_UP: usize = 8;

/// What a number of rounds took, in TSC ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The quickest round.
    pub min: u64,
    /// The middle round.
    pub median: u64,
}

/// Times `operation`, without taking the cost of timing off.
fn raw(mut operation: impl FnMut()) -> Sample {
    let mut ticks = [0_u64; ROUNDS];
    for _ in 0..WARM_UP {
        operation();
    }
    for place in &mut ticks {
        let start = cpu::rdtsc();
        operation();
        *place = cpu::rdtsc().wrapping_sub(start);
    }
    ticks.sort_unstable();
    Sample {
        min: ticks[0],
        median: ticks[ROUNDS / 2],
    }
}

/// A clock whose own cost is known.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    overhead: u64,
}

impl Bench {
    /// Times nothing, to know what timing costs.
    #[must_use]
    pub fn calibrate() -> Self {
        let overhead = raw(|| {}).min;
        say!("bench: timing_overhead={overhead}");
        Self { overhead }
    }

    /// Times `operation` and prints `bench: NAME=MEDIAN min=MIN`.
    pub fn measure(self, name: &str, operation: impl FnMut()) -> Sample {
        let Sample { min, median } = raw(operation);
        let sample = Sample {
            min: min.saturating_sub(self.overhead),
            median: median.saturating_sub(self.overhead),
        };
        say!("bench: {name}={} min={}", sample.median, sample.min);
        sample
    }
}
