//! The runnable vCPUs of one pCPU: who runs, who is next, and when to change.
//!
//! The *context-switch allowance* lets the running vCPU go on until it is that much of its own
//! time ahead of the next one, so that vCPUs with equal claims do not take turns at every tick.
//! A vCPU that wakes warped does not wait for that: it runs at once if its effective virtual time
//! is the least.
//!
//! With an allowance of C, of vCPUs that stay runnable none gets more than C ahead of its fluid
//! share (what it had if all ran at once, each at its part of the speed), and of n none falls
//! more than n - 1 times C behind.

use super::bvt::{self, Account};
use super::heap::{Heap, Seat, Seated};
use alloc::collections::TryReserveError;
use core::num::NonZeroU64;

/// No turn is shorter than the allowance divided by this, unless somebody wakes.
const SHORTEST: u64 = 16;

/// Effective virtual time, then the order of coming.
type Key = (u64, u64);

/// Where a vCPU stands among others.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    evt: u64,
    avt: u64,
}

impl Place {
    /// The place of a vCPU that has been runnable all the time.
    #[must_use]
    pub const fn of(account: &Account) -> Self {
        Self {
            evt: account.evt(),
            avt: account.avt(),
        }
    }
}

/// A runnable vCPU that does not run.
#[derive(Debug)]
pub struct Waiting<T> {
    /// Its actual virtual time.
    pub avt: u64,
    /// The vCPU.
    pub vcpu: T,
}

impl<T: Seated> Seated for Waiting<T> {
    fn seat(&self) -> &Seat {
        self.vcpu.seat()
    }

    fn is(&self, other: &Self) -> bool {
        self.vcpu.is(&other.vcpu)
    }
}

/// The vCPU that runs, as of when its turn began.
#[derive(Clone, Copy, Debug)]
struct Turn {
    avt: u64,
    warped_by: u64,
    warp_left: u64,
    since: u64,
    weight: NonZeroU64,
}

impl Turn {
    fn avt(&self, now: u64) -> u64 {
        let ran = now.saturating_sub(self.since);
        self.avt.saturating_add(ran / self.weight)
    }

    fn evt(&self, now: u64) -> u64 {
        let warped = now.saturating_sub(self.since) < self.warp_left;
        let warped_by = if warped { self.warped_by } else { 0 };
        self.avt(now).saturating_sub(warped_by)
    }
}

/// The runnable vCPUs of a pCPU.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: Heap<Key, Waiting<T>>,
    turn: Option<Turn>,
    /// Scheduler virtual time: never more than the least AVT here, and never going back.
    svt: u64,
    came: u64,
    /// A warped vCPU has woken that is to run at once.
    urgent: bool,
    allowance: u64,
}

impl<T: Seated> Queue<T> {
    /// An empty queue with a context-switch allowance in ticks.
    #[must_use]
    pub const fn new(allowance: u64) -> Self {
        Self {
            waiting: Heap::new(),
            turn: None,
            svt: bvt::beginning(),
            came: 0,
            urgent: false,
            allowance,
        }
    }

    /// Changes the context-switch allowance.
    pub const fn set_allowance(&mut self, ticks: u64) {
        self.allowance = ticks;
    }

    /// Makes room for `vcpus` in all.
    ///
    /// # Errors
    /// When memory is short.
    pub fn reserve(&mut self, vcpus: usize) -> Result<(), TryReserveError> {
        self.waiting.reserve(vcpus)
    }

    /// True when a vCPU waits.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The vCPU that is next.
    #[must_use]
    pub fn first(&self) -> Option<&Waiting<T>> {
        self.waiting.first().map(|(_, waiting)| waiting)
    }

    /// The vCPU that is next among those `wanted`.
    pub fn first_of(&self, wanted: impl Fn(&T) -> bool) -> Option<&Waiting<T>> {
        let first = self.first().filter(|first| wanted(&first.vcpu));
        first.or_else(|| {
            let all = self.waiting.iter().filter(|(_, one)| wanted(&one.vcpu));
            all.min_by_key(|(key, _)| *key).map(|(_, waiting)| waiting)
        })
    }

    /// The virtual time here: the least AVT, as far as looking at the first two tells it. It is
    /// none while nobody is runnable.
    #[must_use]
    pub fn clock(&self, now: u64) -> Option<u64> {
        let running = self.turn.map(|turn| turn.avt(now));
        let first = self.first().map(|first| first.avt);
        running.into_iter().chain(first).min()
    }

    /// Scheduler virtual time.
    pub fn svt(&mut self, now: u64) -> u64 {
        self.svt = self.svt.max(self.clock(now).unwrap_or(0));
        self.svt
    }

    /// The place of a vCPU that has slept.
    pub fn wake(&mut self, account: &mut Account, now: u64) -> Place {
        account.wake(self.svt(now), now);
        let at_once = |turn: &Turn| account.warped_by() > 0 && account.evt() < turn.evt(now);
        self.urgent |= self.turn.as_ref().is_some_and(at_once);
        Place::of(account)
    }

    /// The place of a vCPU that lets the one that is next go first.
    #[must_use]
    pub fn behind_first(&self, account: &Account) -> Place {
        let first = self.waiting.first().map_or(0, |((evt, _), _)| *evt);
        Place {
            evt: account.evt().max(first),
            ..Place::of(account)
        }
    }

    /// The place of a vCPU that waits for what one of those `wanted` does: behind the one of them
    /// that is next, and all before it, if that one is no more than the allowance ahead; else as
    /// [`Queue::behind_first`].
    #[must_use]
    pub fn behind(&self, account: &Account, wanted: impl Fn(&T) -> bool) -> Place {
        let wanted = self.waiting.iter().filter(|(_, one)| wanted(&one.vcpu));
        let next = wanted.map(|((evt, _), _)| *evt).min();
        let weight = NonZeroU64::from(account.share().weight);
        let limit = account.evt().saturating_add(self.allowance / weight);
        match next.filter(|&evt| evt <= limit) {
            Some(evt) => Place {
                evt: account.evt().max(evt),
                ..Place::of(account)
            },
            None => self.behind_first(account),
        }
    }

    /// Adds a vCPU; true when it is next.
    pub fn insert(&mut self, Place { evt, avt }: Place, vcpu: T) -> bool {
        self.came = self.came.wrapping_add(1);
        self.waiting.insert((evt, self.came), Waiting { avt, vcpu })
    }

    /// Takes the vCPU whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        self.urgent = false;
        self.waiting.pop().map(|(_, waiting)| waiting.vcpu)
    }

    /// Takes the vCPU that is next among those `wanted`.
    pub fn pop_of(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let taken = self.waiting.pop_of(|waiting| wanted(&waiting.vcpu));
        taken.map(|(_, waiting)| waiting.vcpu)
    }

    /// The turn of a vCPU begins.
    pub fn begin(&mut self, account: &Account, now: u64) {
        self.turn = Some(Turn {
            avt: account.avt(),
            warped_by: account.warped_by(),
            warp_left: account.warp_left(),
            since: now,
            weight: account.share().weight.into(),
        });
    }

    /// Its turn ends, and is charged.
    pub fn end(&mut self, account: &mut Account, now: u64) {
        self.svt(now);
        if let Some(turn) = self.turn.take() {
            account.charge(now.saturating_sub(turn.since), now);
        }
    }

    /// True when the next vCPU is to run now in place of the one that does.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        let over = |next: u64, turn: Turn| turn.evt(now) >= self.limit(next, turn);
        self.urgent || self.with_both(over)
    }

    /// True when the running vCPU may let the next one go first: that is, when the next one is at
    /// most the allowance ahead of it.
    #[must_use]
    pub fn may_yield(&self, now: u64) -> bool {
        self.with_both(|next, turn| next <= self.limit(turn.evt(now), turn))
    }

    /// When to look at [`Queue::is_over`] again, in TSC ticks; never while nobody waits.
    #[must_use]
    pub fn until(&self, now: u64) -> u64 {
        let Some((turn, next)) = self.turn.zip(self.waiting.first()) else {
            return u64::MAX;
        };
        let ((next, _), _) = *next;
        let ahead = self.limit(next, turn).saturating_sub(turn.evt(now));
        let end_of_warp = turn.since.saturating_add(turn.warp_left);
        let ticks = ahead.saturating_mul(turn.weight.get());
        let ticks = if now < end_of_warp {
            ticks.min(end_of_warp - now)
        } else {
            ticks
        };
        now.saturating_add(ticks.max(self.allowance / SHORTEST))
    }

    fn with_both(&self, decide: impl Fn(u64, Turn) -> bool) -> bool {
        match (self.turn, self.waiting.first()) {
            (Some(turn), Some(((next, _), _))) => decide(*next, turn),
            _ => false,
        }
    }

    /// How far the running vCPU may get with another at `evt`.
    fn limit(&self, evt: u64, turn: Turn) -> u64 {
        evt.saturating_add(self.allowance / turn.weight)
    }
}
