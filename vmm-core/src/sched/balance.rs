//! Which vCPU a pCPU passes on to which other.
//!
//! Each pCPU keeps virtual time of its own; a *shift* for each makes one common time of them. On
//! it the clocks of pCPUs that share their load well advance together, and a vCPU that waits is
//! behind the clock of a pCPU that does more for its own. Once it is behind by its *patience*, in
//! its own time, it moves there, keeping its place in common time: that is what it is owed.
//! Equal vCPUs that cannot be divided among the pCPUs go round in this way.
//!
//! A pCPU may have less to do than others could give it, because of affinities or because a vCPU
//! weighs more than a whole pCPU: its clock then moves apart from the others' for ever. More than
//! the *tolerance* is never due to anybody, so it is forfeited: the shift changes.

use super::bvt::Share;

/// The bounds that balancing keeps, in ticks of the waiting vCPU's own time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// How far a vCPU is behind another pCPU's clock before it moves there.
    pub patience: u64,
    /// How far behind a clock can be and still be owed that.
    pub tolerance: u64,
}

impl Bounds {
    /// The bounds that go with a context-switch allowance.
    #[must_use]
    pub const fn with_allowance(ticks: u64) -> Self {
        Self {
            patience: 2 * ticks,
            tolerance: 8 * ticks,
        }
    }
}

/// The clock of a pCPU that runs something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// The pCPU.
    pub cpu: u32,
    /// Its virtual time, in common time.
    pub time: u64,
}

/// What to do about the vCPU that is next on a pCPU and waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// The pCPU to pass it on to.
    pub target: Option<u32>,
    /// What its present pCPU forfeits: to add to the shift.
    pub forfeit: u64,
}

/// Decides about a vCPU that waits at `avt` (in common time) with the clocks of the pCPUs that it
/// may run on. `forfeit` is told what each of these forfeits.
pub fn decide(
    avt: u64,
    share: &Share,
    bounds: Bounds,
    clocks: impl Iterator<Item = Clock>,
    mut forfeit: impl FnMut(u32, u64),
) -> Decision {
    let tolerance = share.virtual_time(bounds.tolerance);
    let patience = share.virtual_time(bounds.patience).cast_signed();
    let mut furthest: Option<(i64, u32)> = None;
    for clock in clocks {
        let lag = clock.time.wrapping_sub(avt).cast_signed();
        if lag < 0 {
            let excess = lag.unsigned_abs().saturating_sub(tolerance);
            if excess > 0 {
                forfeit(clock.cpu, excess);
            }
        }
        furthest = furthest.max(Some((lag, clock.cpu)));
    }
    let Some((lag, cpu)) = furthest.filter(|(lag, _)| *lag > patience) else {
        return Decision::default();
    };
    Decision {
        target: Some(cpu),
        forfeit: lag.unsigned_abs().saturating_sub(tolerance),
    }
}
