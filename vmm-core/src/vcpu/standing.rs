//! Where a vCPU stands: its state, its home and its signals, which all pCPUs change and look at
//! without a lock.
//!
//! * Who takes a vCPU from `Blocked` or `Offline` to `Runnable` puts it into the queue of its home,
//!   nobody else does.
//! * The home changes only while the vCPU is `Runnable` and in no queue, or `Offline`, by the hand
//!   of who has it then.
//! * The pCPU that runs it looks at its signals after it has made it `Running` and before it enters
//!   the guest.
//! * [`Signals::DOWN`] is what the guest wants, and stays until it wants the vCPU up again. The pCPU
//!   that takes the vCPU offline looks once more afterwards, so that the last word counts.
//!
//! So an interrupt to the home of a vCPU that was found `Running` reaches the pCPU that runs it, or
//! the vCPU has left that pCPU since and will look before it enters its guest again.

use core::sync::atomic::AtomicU32;

use super::{RunState, Signals};
use crate::word::Word;

/// Where a vCPU stands.
#[derive(Debug)]
pub(super) struct Standing<W = AtomicU32> {
    state: W,
    home: W,
    signals: W,
}

/// What it takes to give a vCPU notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kick {
    /// It was blocked and is runnable now: the caller queues it.
    Enqueue,
    /// It may be in its guest on this pCPU.
    Interrupt(u32),
    /// It will look by itself.
    Nothing,
}

impl Standing {
    pub(super) const fn new(home: u32) -> Self {
        Self {
            state: AtomicU32::new(RunState::Offline as u32),
            home: AtomicU32::new(home),
            signals: AtomicU32::new(Signals::DOWN.bits()),
        }
    }
}

impl<W: Word<u32>> Standing<W> {
    pub(super) fn state(&self) -> RunState {
        match self.state.get() {
            0 => RunState::Offline,
            1 => RunState::Runnable,
            2 => RunState::Running,
            3 => RunState::Blocked,
            _ => RunState::Dead,
        }
    }

    pub(super) fn transition(&self, from: RunState, to: RunState) -> bool {
        let changed = self.state.change(from as u32, to as u32);
        W::write_then_read();
        changed
    }

    pub(super) fn home(&self) -> u32 {
        self.home.get()
    }

    pub(super) fn set_home(&self, cpu: u32) {
        self.home.set(cpu);
    }

    pub(super) fn set_signals(&self, signals: Signals) {
        self.signals.set_bits(signals.bits());
        W::write_then_read();
    }

    pub(super) fn clear_signals(&self, signals: Signals) {
        self.signals.clear_bits(signals.bits());
        W::write_then_read();
    }

    /// Takes all signals; [`Signals::DOWN`] stays.
    pub(super) fn take_signals(&self) -> Signals {
        Signals::from_bits_retain(self.signals.clear_bits(!Signals::DOWN.bits()))
    }

    #[inline]
    pub(super) fn signals(&self) -> Signals {
        Signals::from_bits_retain(self.signals.get())
    }

    /// The guest wants it up; true when it was offline and is runnable now: the caller queues it.
    pub(super) fn up(&self) -> bool {
        self.clear_signals(Signals::DOWN);
        self.come_up()
    }

    /// Looked at by who has taken it offline: true when the guest has come to want it up meanwhile
    /// and it is runnable now: the caller queues it.
    pub(super) fn come_back(&self) -> bool {
        !self.signals().contains(Signals::DOWN) && self.come_up()
    }

    fn come_up(&self) -> bool {
        self.transition(RunState::Offline, RunState::Runnable)
    }

    pub(super) fn kick(&self) -> Kick {
        if self.transition(RunState::Blocked, RunState::Runnable) {
            Kick::Enqueue
        } else if self.state() == RunState::Running {
            Kick::Interrupt(self.home())
        } else {
            Kick::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kick, Standing};
    use crate::vcpu::{RunState, Signals};
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    fn running_on_0() -> Arc<Standing<AtomicU32>> {
        Arc::new(Standing {
            state: AtomicU32::new(RunState::Running as u32),
            home: AtomicU32::new(0),
            signals: AtomicU32::new(0),
        })
    }

    fn goes_offline_and_comes_back(vcpu: &Standing<AtomicU32>) -> bool {
        assert!(vcpu.transition(RunState::Running, RunState::Offline));
        vcpu.come_back()
    }

    fn kicker(vcpu: &Arc<Standing<AtomicU32>>) -> thread::JoinHandle<Kick> {
        let vcpu = Arc::clone(vcpu);
        thread::spawn(move || {
            vcpu.set_signals(Signals::POLL_DONE);
            vcpu.kick()
        })
    }

    #[test]
    fn a_vcpu_that_blocks_is_woken_or_does_not_sleep() {
        loom::model(|| {
            let vcpu = running_on_0();
            let kicker = kicker(&vcpu);
            vcpu.transition(RunState::Running, RunState::Blocked);
            let stays =
                !vcpu.signals().is_empty() && vcpu.transition(RunState::Blocked, RunState::Running);
            let kick = kicker.join().unwrap();
            if stays {
                assert_ne!(kick, Kick::Enqueue);
                assert_eq!(vcpu.state(), RunState::Running);
            } else {
                assert_eq!(kick, Kick::Enqueue);
                assert_eq!(vcpu.state(), RunState::Runnable);
            }
        });
    }

    #[test]
    fn a_vcpu_that_moves_sees_the_signal_or_is_interrupted_where_it_is() {
        loom::model(|| {
            let vcpu = running_on_0();
            let kicker = kicker(&vcpu);
            let mut seen = false;
            for home in [1, 2] {
                vcpu.transition(RunState::Running, RunState::Runnable);
                vcpu.set_home(home);
                vcpu.transition(RunState::Runnable, RunState::Running);
                seen |= !vcpu.take_signals().is_empty();
            }
            let kick = kicker.join().unwrap();
            assert!(seen || kick == Kick::Interrupt(2), "{kick:?}");
        });
    }

    #[test]
    fn a_vcpu_that_is_wanted_up_before_it_went_down_comes_back_once() {
        loom::model(|| {
            let vcpu = running_on_0();
            vcpu.set_signals(Signals::DOWN);
            let other = Arc::clone(&vcpu);
            let up = thread::spawn(move || other.up());
            let goes = vcpu.take_signals().contains(Signals::DOWN);
            let back = goes && goes_offline_and_comes_back(&vcpu);
            let up = up.join().unwrap();
            assert!(!(up && back), "queued twice");
            let state = if goes {
                RunState::Runnable
            } else {
                RunState::Running
            };
            assert_eq!((up || back, vcpu.state()), (goes, state));
        });
    }

    #[test]
    fn the_last_word_on_up_or_down_counts() {
        loom::model(|| {
            let vcpu = running_on_0();
            vcpu.set_signals(Signals::DOWN);
            let other = Arc::clone(&vcpu);
            let guest = thread::spawn(move || {
                let up = other.up();
                other.set_signals(Signals::DOWN);
                up
            });
            let goes = vcpu.take_signals().contains(Signals::DOWN);
            let back = goes && goes_offline_and_comes_back(&vcpu);
            let up = guest.join().unwrap();
            // Wherever it is, it is to go, or has gone.
            assert!(vcpu.signals().contains(Signals::DOWN));
            let stays = goes && !up && !back;
            assert_eq!(vcpu.state() == RunState::Offline, stays);
        });
    }

    #[test]
    fn two_that_wake_a_vcpu_queue_it_once() {
        loom::model(|| {
            let vcpu = running_on_0();
            vcpu.transition(RunState::Running, RunState::Blocked);
            let kickers = [kicker(&vcpu), kicker(&vcpu)];
            let kicks = kickers.map(|kicker| kicker.join().unwrap());
            let queued = kicks.iter().filter(|kick| **kick == Kick::Enqueue);
            assert_eq!(queued.count(), 1);
        });
    }
}
