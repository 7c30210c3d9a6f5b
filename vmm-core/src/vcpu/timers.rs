//! A vCPU's timers: the Xen one-shot and periodic timers and the end of a poll.
//!
//! The virtual local APIC keeps its own deadline; [`Timers::next`] does not include it.

use crate::time::Tsc;

/// The shortest period of the periodic timer, in nanoseconds (`VCPUOP_set_periodic_timer`).
pub const MIN_PERIOD_NS: u64 = 1_000_000;

/// The deadlines of one vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// When VIRQ_TIMER is due once, or never.
    pub singleshot: Tsc,
    /// When VIRQ_TIMER is due next by the periodic timer, or never.
    pub periodic: Tsc,
    /// The periodic timer's period, in ticks.
    pub period: u64,
    /// When a poll gives up, or never.
    pub poll: Tsc,
}

/// What [`Timers::expire`] found due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    /// VIRQ_TIMER is to be raised.
    pub virq_timer: bool,
    /// A poll has run out of time.
    pub poll: bool,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            singleshot: Tsc::NEVER,
            periodic: Tsc::NEVER,
            period: 0,
            poll: Tsc::NEVER,
        }
    }
}

impl Timers {
    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Tsc {
        self.singleshot.min(self.periodic).min(self.poll)
    }

    /// Takes what is due at `now`. Missed periods are not made up for.
    pub fn expire(&mut self, now: Tsc) -> Expired {
        let mut expired = Expired::default();
        if self.singleshot <= now {
            self.singleshot = Tsc::NEVER;
            expired.virq_timer = true;
        }
        if self.periodic <= now {
            let missed = now.since(self.periodic) / self.period.max(1);
            self.periodic = self
                .periodic
                .after(missed.saturating_add(1).saturating_mul(self.period));
            expired.virq_timer = true;
        }
        if self.poll <= now {
            self.poll = Tsc::NEVER;
            expired.poll = true;
        }
        expired
    }

    /// Starts the periodic timer with a period of `ticks`.
    pub fn start_periodic(&mut self, now: Tsc, ticks: u64) {
        self.period = ticks.max(1);
        self.periodic = now.after(self.period);
    }

    /// Stops the periodic timer.
    pub fn stop_periodic(&mut self) {
        self.periodic = Tsc::NEVER;
    }
}

#[cfg(test)]
mod tests {
    use super::{Expired, Timers};
    use crate::time::Tsc;

    #[test]
    fn nothing_is_due_at_first() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(), Tsc::NEVER);
        assert_eq!(timers.expire(Tsc(u64::MAX - 1)), Expired::default());
    }

    #[test]
    fn a_one_shot_fires_once() {
        let mut timers = Timers {
            singleshot: Tsc(100),
            ..Timers::default()
        };
        assert!(!timers.expire(Tsc(99)).virq_timer);
        assert!(timers.expire(Tsc(100)).virq_timer);
        assert!(!timers.expire(Tsc(101)).virq_timer);
    }

    #[test]
    fn missed_periods_give_one_event() {
        let mut timers = Timers::default();
        timers.start_periodic(Tsc(0), 10);
        assert!(timers.expire(Tsc(35)).virq_timer);
        assert_eq!(timers.next(), Tsc(40));
        assert!(!timers.expire(Tsc(39)).virq_timer);
    }
}
