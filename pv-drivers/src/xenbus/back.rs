//! The back end's way.
//!
//! ```text
//!            front: Initialising            front: Initialised, Connected
//! Closed ------------------------> InitWait -----------------------------> Connected
//!   ^                                 |  ^ front: Initialising (it started anew)  |
//!   |  front: Closed, or gone         |  +----------------------------------------+
//!   +---------------------------------+                                           |
//!   +------------------ Closing <---------------- front: Closing, or an error ----+
//! ```
//!
//! The front end may say anything at any time; whatever the sequence, a back end connects only from
//! InitWait and holds nothing of the front end's in InitWait and Closed.

use abi::xenbus::XenbusState;

/// What a back end does about its front end's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Say this state.
    Say(XenbusState),
    /// Connect and say so, or say Closing if that fails.
    Connect,
    /// Let go of the front end's pages and port, if there are any, and say this state.
    Disconnect(XenbusState),
}

/// What a back end in state `own` does when it finds its front end in state `front`.
#[must_use]
pub const fn step(own: XenbusState, front: XenbusState) -> Step {
    use XenbusState::{
        Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured,
        Reconfiguring, Unknown,
    };
    match (front, own) {
        (Initialising, InitWait) => Step::Stay,
        (Initialising, _) => Step::Disconnect(InitWait),
        (Initialised | Connected, InitWait) => Step::Connect,
        (Closing, Connected | InitWait) => Step::Say(Closing),
        (Closed | Unknown, Closed) => Step::Stay,
        (Closed | Unknown, _) => Step::Disconnect(Closed),
        (Initialised | Connected | Closing | InitWait | Reconfiguring | Reconfigured, _) => {
            Step::Stay
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, step};
    use XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};
    use abi::xenbus::XenbusState;
    use proptest::prelude::{any, prop_assert, proptest};

    /// A back end: its state, and whether it holds what is the front end's.
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Back(XenbusState, bool);

    impl Back {
        fn sees(&mut self, front: XenbusState, works: bool) {
            match step(self.0, front) {
                Step::Stay => {}
                Step::Say(state) => self.0 = state,
                Step::Connect => {
                    assert!(!self.1, "connected twice");
                    *self = if works {
                        Self(Connected, true)
                    } else {
                        Self(Closing, false)
                    };
                }
                Step::Disconnect(state) => *self = Self(state, false),
            }
        }

        fn after(states: &[XenbusState]) -> Self {
            let mut back = Self(InitWait, false);
            for state in states {
                back.sees(*state, true);
            }
            back
        }
    }

    #[test]
    fn a_front_end_comes_goes_and_comes_back() {
        let vbd = [Initialising, Initialised, Connected];
        let vif = [Initialising, Connected];
        assert_eq!(Back::after(&vbd), Back(Connected, true));
        assert_eq!(Back::after(&vif), Back(Connected, true));
        let closed = [&vbd[..], &[Closing]].concat();
        assert_eq!(Back::after(&closed), Back(Closing, true));
        let closed = [&closed[..], &[Closed]].concat();
        assert_eq!(Back::after(&closed), Back(Closed, false));
        let again = [&closed[..], &vbd].concat();
        assert_eq!(Back::after(&again), Back(Connected, true));
        // A kernel that starts another one without a word.
        assert_eq!(
            Back::after(&[Connected, Initialising]),
            Back(InitWait, false)
        );
        assert_eq!(Back::after(&[Connected, Unknown]), Back(Closed, false));
    }

    #[test]
    fn states_are_written_as_they_are_read() {
        for raw in b'0'..=b'8' {
            let state = XenbusState::parse(&[raw]);
            assert_eq!(state.text().as_bytes(), [raw]);
        }
        for bad in [&b""[..], b"9", b"04", b"4 ", b"-1"] {
            assert_eq!(XenbusState::parse(bad), Unknown);
        }
    }

    proptest! {
        #[test]
        fn no_sequence_connects_twice_or_leaves_something_held(
            states in proptest::collection::vec((0u8..10, any::<bool>()), 0..200),
        ) {
            let mut back = Back(InitWait, false);
            for (raw, works) in states {
                let front = XenbusState::parse(&[b'0' + raw]);
                back.sees(front, works);
                match back.0 {
                    Connected => prop_assert!(back.1),
                    InitWait | Closed => prop_assert!(!back.1),
                    Closing => {}
                    other => prop_assert!(false, "a back end is never {other:?}"),
                }
                // Nothing can keep it from a new start.
                let mut fresh = back;
                fresh.sees(Closed, true);
                fresh.sees(Initialising, true);
                fresh.sees(Initialised, true);
                prop_assert!(fresh == Back(Connected, true));
            }
        }
    }
}
