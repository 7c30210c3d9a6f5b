//! The front end's way.
//!
//! ```text
//!             back: InitWait          back: Connected
//!   Waiting ------------------> Offered ----------> Connected
//!      ^                           |                   |
//!      |                           +-- back: Closing, or gone, or enough of it
//!      |  back: Closed             v
//!      +------------------------ Leaving --------------------> Gone
//!         let go of everything              not wanted any more
//! ```
//!
//! What a front end has granted it can take back only when the back end has let go of it, which it
//! says by Closed.

use abi::xenbus::XenbusState;

/// Where a front end is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It holds nothing and waits for the back end to be ready for it.
    Waiting,
    /// It has granted its rings and waits for the back end to take them up.
    Offered,
    /// In use.
    Connected,
    /// It uses nothing any more; the back end may.
    Leaving,
    /// It holds nothing and waits for nothing.
    Gone,
}

/// What a front end does about its back end's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Grant the rings and say so; that is [`Phase::Offered`].
    Offer,
    /// Learn of the device and go to work; that is [`Phase::Connected`].
    Begin,
    /// Say Closed; that is [`Phase::Leaving`].
    Leave,
    /// Take everything back. Then begin anew: [`Phase::Waiting`], or not: [`Phase::Gone`].
    Release,
}

/// What a front end in `phase` does when it finds its back end in state `back`.
#[must_use]
pub const fn step(phase: Phase, back: XenbusState) -> Step {
    use XenbusState::{
        Closed, Closing, Connected, InitWait, Initialised, Initialising, Reconfigured,
        Reconfiguring, Unknown,
    };
    match (phase, back) {
        (Phase::Waiting, InitWait) => Step::Offer,
        (Phase::Offered, Connected) => Step::Begin,
        (Phase::Waiting | Phase::Offered | Phase::Connected, Closing)
        | (Phase::Offered | Phase::Connected, Closed | Unknown) => Step::Leave,
        (Phase::Leaving, Closed | Unknown) => Step::Release,
        (
            Phase::Waiting | Phase::Offered | Phase::Connected | Phase::Leaving | Phase::Gone,
            Unknown | Initialising | InitWait | Initialised | Connected | Closing | Closed
            | Reconfiguring | Reconfigured,
        ) => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, Step, step};
    use crate::xenbus::back;
    use XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising};
    use abi::xenbus::XenbusState;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    /// Both ends, and what they hold.
    #[derive(Debug)]
    struct Pair {
        phase: Phase,
        said: XenbusState,
        granted: bool,
        back: XenbusState,
        mapped: bool,
    }

    impl Pair {
        const fn new() -> Self {
            Self {
                phase: Phase::Waiting,
                said: Initialising,
                granted: false,
                back: InitWait,
                mapped: false,
            }
        }

        fn front_looks(&mut self, offered: XenbusState) {
            (self.phase, self.said) = match step(self.phase, self.back) {
                Step::Stay => return,
                Step::Offer => {
                    assert!(!self.granted, "granted twice");
                    self.granted = true;
                    (Phase::Offered, offered)
                }
                Step::Begin => {
                    assert!(self.mapped, "at work with nobody");
                    (Phase::Connected, Connected)
                }
                Step::Leave => (Phase::Leaving, Closed),
                Step::Release => {
                    assert!(!self.mapped, "taken back from under the back end");
                    self.granted = false;
                    (Phase::Waiting, Initialising)
                }
            };
        }

        fn back_looks(&mut self) {
            match back::step(self.back, self.said) {
                back::Step::Stay => {}
                back::Step::Say(state) => self.back = state,
                back::Step::Connect => {
                    assert!(self.granted, "nothing to map");
                    (self.back, self.mapped) = (Connected, true);
                }
                back::Step::Disconnect(state) => (self.back, self.mapped) = (state, false),
            }
        }

        /// The back end has had enough.
        fn back_gives_up(&mut self) {
            if self.back == Connected {
                (self.back, self.mapped) = (Closing, false);
            }
        }

        fn front_gives_up(&mut self) {
            if matches!(self.phase, Phase::Offered | Phase::Connected) {
                (self.phase, self.said) = (Phase::Leaving, Closed);
            }
        }

        fn settle(&mut self, offered: XenbusState) {
            for _ in 0..8 {
                self.front_looks(offered);
                self.back_looks();
            }
        }
    }

    #[test]
    fn both_kinds_of_devices_connect() {
        for offered in [Initialised, Connected] {
            let mut pair = Pair::new();
            pair.settle(offered);
            assert_eq!((pair.phase, pair.back), (Phase::Connected, Connected));
            pair.back_gives_up();
            pair.front_looks(offered);
            assert_eq!(pair.phase, Phase::Leaving);
            pair.settle(offered);
            assert_eq!((pair.phase, pair.back), (Phase::Connected, Connected));
        }
    }

    proptest! {
        /// Whatever comes between, nothing is taken back that is used, and in the end all is well.
        #[test]
        fn a_connection_comes_back(
            steps in proptest::collection::vec(0u8..4, 0..100),
            is_disk in any::<bool>(),
        ) {
            let offered = if is_disk { Initialised } else { Connected };
            let mut pair = Pair::new();
            for step in steps {
                match step {
                    0 => pair.front_looks(offered),
                    1 => pair.back_looks(),
                    2 => pair.back_gives_up(),
                    _ => pair.front_gives_up(),
                }
                prop_assert!(!pair.mapped || pair.granted);
            }
            pair.settle(offered);
            prop_assert_eq!((pair.phase, pair.back), (Phase::Connected, Connected));
        }
    }
}
