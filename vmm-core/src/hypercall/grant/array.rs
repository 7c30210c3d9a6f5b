//! Going through an array of operations without keeping the pCPU for too long.

use abi::Errno;

use super::super::{Args, HypercallOutcome};
use super::Step;
use crate::time::Tsc;

/// How long the operations of one call go on before others have a turn, in TSC ticks: some
/// microseconds. One operation is done in any case.
const TURN: u64 = 12_000;

/// How far a call got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// To its end.
    Done,
    /// The array from this address on is left, and so many operations.
    Left(u64, u32),
    /// It is to be made again as it was.
    Again,
}

/// Goes through up to `most` operations of an array at `at`, each of `size` bytes.
pub(super) fn each(
    at: u64,
    count: u32,
    size: usize,
    most: u32,
    mut operation: impl FnMut(u64) -> Result<(), Errno>,
) -> Step {
    let begun = Tsc::now();
    let mut place = at;
    for done in 0..count {
        if done == most || (done != 0 && Tsc::now().since(begun) > TURN) {
            return Ok(Progress::Left(place, count.saturating_sub(done)));
        }
        operation(place)?;
        // The next operation's own copy refuses an address that does not exist.
        place = place.saturating_add(size as u64);
    }
    Ok(Progress::Done)
}

/// What becomes of the call that was made with `args`.
pub(super) fn outcome(step: Step, args: Args, count: u32) -> HypercallOutcome {
    let [command, at, _, d, e] = args;
    let again = |at, count: u32| HypercallOutcome::Preempted([command, at, count.into(), d, e]);
    match step {
        Ok(Progress::Done) => HypercallOutcome::Done(0),
        Ok(Progress::Left(at, count)) => again(at, count),
        Ok(Progress::Again) => again(at, count),
        Err(errno) => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Progress, each, outcome};
    use crate::hypercall::HypercallOutcome;
    use abi::Errno;

    #[test]
    fn an_array_is_gone_through_in_order_and_once() {
        let (mut at, mut count) = (0x1000, 40);
        let mut seen = std::vec::Vec::new();
        loop {
            let step = each(at, count, 24, 16, |place| {
                seen.push(place);
                Ok(())
            });
            match outcome(step, [1, at, count.into(), 7, 8], count) {
                HypercallOutcome::Preempted([1, next, left, 7, 8]) => {
                    assert!(left < u64::from(count));
                    (at, count) = (next, u32::try_from(left).unwrap());
                }
                HypercallOutcome::Done(0) => break,
                other @ (HypercallOutcome::Done(_)
                | HypercallOutcome::PreemptedThen(..)
                | HypercallOutcome::DoneThen(..)
                | HypercallOutcome::Preempted(_)) => panic!("{other:?}"),
            }
        }
        let expected: std::vec::Vec<u64> = (0..40).map(|index| 0x1000 + index * 24).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_long_operation_gives_way_after_it_is_done() {
        let step = each(0, 3, 8, 32, |_| {
            let begun = crate::time::Tsc::now();
            while crate::time::Tsc::now().since(begun) < 2 * super::TURN {}
            Ok(())
        });
        assert_eq!(step, Ok(Progress::Left(8, 2)));
    }

    #[test]
    fn the_first_error_ends_the_call() {
        let step = each(u64::MAX, 3, 8, 32, |place| {
            if place == u64::MAX {
                Err(Errno::Efault)
            } else {
                Ok(())
            }
        });
        assert_eq!(step, Err(Errno::Efault));
        assert_eq!(
            each(0, 0, 8, 32, |_| Err(Errno::Efault)),
            Ok(Progress::Done)
        );
    }
}
