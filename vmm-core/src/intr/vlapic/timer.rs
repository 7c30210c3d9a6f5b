//! The APIC timer as a deadline in guest TSC ticks.
//!
//! SDM 3A, "APIC Timer". Nothing runs here: the owner asks for the deadline, arms what it has, and
//! calls [`Timer::expire`] when the time has come.

/// The rate of the counter before its divider. CPUID leaf 0x15 tells it to the guest.
pub const TIMER_KHZ: u32 = 25_000;

/// A periodic timer fires at most this often: 20 microseconds, as a part of a millisecond.
const SHORTEST_PERIOD_PER_MS: u64 = 50;

/// The timer's mode, from its LVT entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
}

/// The timer of one local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Timer {
    tsc_khz: u32,
    mode: Mode,
    initial: u32,
    divide: u32,
    deadline: Option<u64>,
}

impl Timer {
    pub(super) fn new(tsc_khz: u32) -> Self {
        Self {
            tsc_khz,
            mode: Mode::OneShot,
            initial: 0,
            divide: 0,
            deadline: None,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.tsc_khz);
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Changes the mode; to or from TSC-deadline mode it also disarms the timer.
    pub(super) fn set_mode(&mut self, mode: Mode) {
        if (self.mode == Mode::TscDeadline) != (mode == Mode::TscDeadline) {
            self.deadline = None;
            self.initial = 0;
        }
        self.mode = mode;
    }

    /// IA32_TSC_DEADLINE: 0 when the timer is not armed.
    pub(super) fn tsc_deadline(&self) -> u64 {
        match self.mode {
            Mode::TscDeadline => self.deadline.unwrap_or(0),
            Mode::OneShot | Mode::Periodic => 0,
        }
    }

    /// A write to IA32_TSC_DEADLINE, ignored outside that mode; 0 disarms.
    pub(super) fn set_tsc_deadline(&mut self, tsc: u64) {
        if self.mode == Mode::TscDeadline {
            self.deadline = (tsc != 0).then_some(tsc);
        }
    }

    pub(super) fn initial_count(&self) -> u32 {
        self.initial
    }

    /// A write to the initial-count register, ignored in TSC-deadline mode; 0 stops the timer.
    pub(super) fn set_initial_count(&mut self, count: u32, now: u64) {
        if self.mode != Mode::TscDeadline {
            self.initial = count;
            self.deadline = (count != 0).then(|| now.saturating_add(self.tsc_ticks(count)));
        }
    }

    /// The current-count register: what is left of the count, rounded up.
    pub(super) fn current_count(&self, now: u64) -> u32 {
        let left = match (self.mode, self.deadline) {
            (Mode::OneShot | Mode::Periodic, Some(deadline)) => deadline.saturating_sub(now),
            (Mode::TscDeadline, _) | (_, None) => return 0,
        };
        let scaled = u128::from(left).saturating_mul(u128::from(TIMER_KHZ)) >> self.shift();
        let khz = u128::from(self.tsc_khz.max(1));
        u32::try_from(scaled.div_ceil(khz)).unwrap_or(u32::MAX)
    }

    pub(super) fn divide_configuration(&self) -> u32 {
        self.divide
    }

    /// Changes the divider; a running count goes on from where it is, at the new rate.
    pub(super) fn set_divide_configuration(&mut self, divide: u32, now: u64) {
        let left = self.current_count(now);
        self.divide = divide & 0b1011;
        if self.mode != Mode::TscDeadline && self.deadline.is_some() {
            self.deadline = Some(now.saturating_add(self.tsc_ticks(left)));
        }
    }

    /// True when the deadline has passed; a periodic timer is set for the next one, without
    /// making up for periods that were missed.
    pub(super) fn expire(&mut self, now: u64) -> bool {
        let Some(deadline) = self.deadline.filter(|&deadline| deadline <= now) else {
            return false;
        };
        self.deadline = match self.mode {
            Mode::OneShot | Mode::TscDeadline => None,
            Mode::Periodic => self.next_period(deadline, now),
        };
        true
    }

    fn next_period(&self, deadline: u64, now: u64) -> Option<u64> {
        let shortest = u64::from(self.tsc_khz)
            .checked_div(SHORTEST_PERIOD_PER_MS)
            .unwrap_or(1);
        let period = self.tsc_ticks(self.initial).max(shortest).max(1);
        let late = now
            .saturating_sub(deadline)
            .checked_rem(period)
            .unwrap_or(0);
        Some(now.saturating_add(period.saturating_sub(late)))
    }

    /// How long `count` takes.
    fn tsc_ticks(&self, count: u32) -> u64 {
        let ticks = u128::from(count).saturating_mul(u128::from(self.tsc_khz)) << self.shift();
        let ticks = ticks.checked_div(u128::from(TIMER_KHZ)).unwrap_or(0);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// log2 of the divider (SDM 3A, "Divide Configuration Register"): bits 0, 1 and 3.
    fn shift(&self) -> u32 {
        let encoded = (self.divide & 3) | ((self.divide >> 1) & 4);
        encoded.wrapping_add(1) & 7
    }
}
