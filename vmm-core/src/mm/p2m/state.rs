//! The states a p2m goes through, as far as it matters to those who remember its pages.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::Gfn;

/// Pages remembered that went away last.
const GONE: usize = 8;
/// No state has this number.
const UNKNOWN: u64 = u64::MAX;

/// The next state's number, among all states of all p2ms.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

fn next_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// The end of a state: which one, and the page that went.
#[derive(Clone, Copy, Debug)]
struct End {
    of: u64,
    gone: Gfn,
}

const NO_END: End = End {
    of: UNKNOWN,
    gone: Gfn::new(0),
};

/// The state a p2m is in. A new one begins whenever a page that was present goes away or loses a
/// permission; the ends of the last few states are known.
#[derive(Debug)]
pub(super) struct State {
    number: u64,
    /// The last ends, in a ring; each follows the one before without a gap.
    ends: [End; GONE],
    /// How many ends there were, whose last `GONE` are in the ring.
    count: usize,
}

impl State {
    /// A first state.
    pub(super) fn new() -> Self {
        Self {
            number: next_number(),
            ends: [NO_END; GONE],
            count: 0,
        }
    }

    /// Its number: no other state of any p2m has it.
    #[inline(always)]
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Begins the next state, in which one guest frame is not what it was.
    #[inline]
    pub(super) fn lose(&mut self, gone: Gfn) {
        let of = core::mem::replace(&mut self.number, next_number());
        self.ends[self.count % GONE] = End { of, gone };
        self.count = self.count.wrapping_add(1);
    }

    /// Begins the next state, in which anything may be other than it was.
    pub(super) fn lose_all(&mut self) {
        *self = Self::new();
    }

    /// Names all guest frames that are not what they were in an earlier state, and perhaps some
    /// more; false when that state is not known any more.
    pub(super) fn gone_since(&self, number: u64, mut forget: impl FnMut(Gfn)) -> bool {
        for back in 1..=GONE {
            let end = self.ends[self.count.wrapping_sub(back) % GONE];
            forget(end.gone);
            if end.of == number {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{GONE, State};
    use abi::Gfn;
    use std::vec::Vec;

    fn gone(state: &State, number: u64) -> Option<Vec<u64>> {
        let mut gone = Vec::new();
        state
            .gone_since(number, |gfn| gone.push(gfn.raw()))
            .then_some(gone)
    }

    #[test]
    fn what_went_since_a_state_is_known_for_the_last_few() {
        let mut state = State::new();
        let mut numbers = Vec::from([state.number()]);
        for gfn in 100..120 {
            state.lose(Gfn::new(gfn));
            numbers.push(state.number());
        }
        for (back, number) in (1..=GONE as u64).zip(numbers.iter().rev().skip(1)) {
            let expected: Vec<u64> = (120 - back..120).rev().collect();
            assert_eq!(gone(&state, *number), Some(expected));
        }
        assert_eq!(gone(&state, numbers[20 - GONE - 1]), None);
        assert_eq!(gone(&state, 0), None);
    }

    #[test]
    fn nothing_is_known_across_a_loss_of_all() {
        let mut state = State::new();
        let before = state.number();
        state.lose(Gfn::new(5));
        state.lose_all();
        assert_eq!(gone(&state, before), None);
        let between = state.number();
        state.lose(Gfn::new(6));
        assert_eq!(gone(&state, before), None);
        assert_eq!(gone(&state, between), Some(Vec::from([6])));
    }

    #[test]
    fn states_of_two_p2ms_are_never_the_same() {
        let (mut one, mut other) = (State::new(), State::new());
        let before = one.number();
        one.lose(Gfn::new(1));
        other.lose(Gfn::new(1));
        assert_ne!(one.number(), other.number());
        assert_eq!(gone(&other, before), None);
    }
}
