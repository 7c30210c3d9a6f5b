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
    sample(|| {
        let start = cpu::rdtsc();
        operation();
        cpu::rdtsc().wrapping_sub(start)
    })
}

/// Collects what `round` says it took.
#[inline(always)]
fn sample(mut round: impl FnMut() -> u64) -> Sample {
    let mut ticks = [0_u64; ROUNDS];
    for _ in 0..WARM_UP {
        round();
    }
    for place in &mut ticks {
        *place = round();
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
        self.say(name, raw(operation))
    }

    /// Times `operation`, with an `undo` after each that does not count.
    pub fn measure_and_undo(
        self,
        name: &str,
        mut operation: impl FnMut(),
        mut undo: impl FnMut(),
    ) -> Sample {
        let taken = sample(|| {
            let start = cpu::rdtsc();
            operation();
            let ticks = cpu::rdtsc().wrapping_sub(start);
            undo();
            ticks
        });
        self.say(name, taken)
    }

    /// Prints what `round` says it took, the cost of two looks at the clock included.
    pub fn collect(self, name: &str, round: impl FnMut() -> u64) -> Sample {
        self.say(name, sample(round))
    }

    fn say(self, name: &str, Sample { min, median }: Sample) -> Sample {
        let sample = Sample {
            min: min.saturating_sub(self.overhead),
            median: median.saturating_sub(self.overhead),
        };
        say!("bench: {name}={} min={}", sample.median, sample.min);
        sample
    }
}
