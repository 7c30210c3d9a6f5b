//! The vCPUs of one pCPU that do not run: those that wait for it, and those that wait for a time.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::heap::{Heap, Seat, Seated};
use super::pass;
use super::queue::{Place, Queue};
use crate::domain::VcpuRef;
use crate::percpu;
use crate::time::Tsc;
use crate::vcpu::{RunState, runstate};

/// How a vCPU's turn ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Another one's turn has come.
    Preempted,
    /// It lets others go first.
    Yielded,
    /// It spins, for a lock that another vCPU of its domain may have.
    Spun,
    /// It waits for an event, at most until the time given.
    Asleep(Tsc),
    /// It is no longer the scheduler's.
    Gone,
}

/// The vCPUs of one pCPU that do not run.
#[derive(Debug)]
pub struct RunQueue {
    cpu: u32,
    /// Those that wait for the pCPU.
    pub ready: Queue<VcpuRef>,
    /// Blocked ones that are to wake at a time.
    sleepers: Heap<Tsc, VcpuRef>,
    /// What to add to virtual time here for common time; see [`super::balance`].
    pub(super) shift: u64,
    /// When balancing is due.
    pub(super) next_balance: Tsc,
    /// One that has slept is next, and nobody's turn has begun since it woke.
    woke: bool,
}

impl Seated for VcpuRef {
    fn seat(&self) -> &Seat {
        &self.seat
    }

    fn is(&self, other: &Self) -> bool {
        Self::is(self, other)
    }
}

impl RunQueue {
    /// The empty queue of a pCPU.
    #[must_use]
    pub const fn new(cpu: u32) -> Self {
        Self {
            cpu,
            ready: Queue::new(0),
            sleepers: Heap::new(),
            shift: 0,
            next_balance: Tsc(0),
            woke: false,
        }
    }

    /// Adds a vCPU that has slept; true when it is next.
    pub(super) fn wake(&mut self, vcpu: VcpuRef, now: Tsc) -> bool {
        self.sleepers.remove(&vcpu);
        let place = self.ready.wake(&mut vcpu.account.lock(), now.0);
        let first = self.ready.insert(place, vcpu);
        self.woke |= first;
        first
    }

    /// Makes the sleepers that are due ready.
    pub fn wake_due(&mut self, now: Tsc) {
        while self.next_deadline() <= now {
            let Some((due, vcpu)) = self.sleepers.pop() else {
                return;
            };
            if vcpu.transition(RunState::Blocked, RunState::Runnable) {
                // It has waited since then.
                vcpu.enter_runstate(runstate::Kind::Runnable, due);
                self.wake(vcpu, now);
            }
        }
    }

    /// When the first sleeper is due.
    #[must_use]
    pub fn next_deadline(&self) -> Tsc {
        self.sleepers.first().map_or(Tsc::NEVER, |(at, _)| *at)
    }

    /// True when one that has slept is to run at once: it is due, or is next since it woke. The turn in
    /// which it woke may have ended for another reason at the same time.
    pub(super) fn is_urgent(&self, now: Tsc) -> bool {
        self.woke || self.next_deadline() <= now
    }

    /// Takes the vCPU whose turn it is, and begins its turn.
    pub(super) fn begin_next(&mut self, now: Tsc) -> Option<VcpuRef> {
        self.wake_due(now);
        self.woke = false;
        let vcpu = self.ready.pop()?;
        self.ready.begin(&vcpu.account.lock(), now.0);
        Some(vcpu)
    }

    /// Ends the turn of the vCPU that runs.
    pub fn stop(&mut self, vcpu: &VcpuRef, how: Stop, now: Tsc) {
        let mut account = vcpu.account.lock();
        self.ready.end(&mut account, now.0);
        match how {
            Stop::Preempted => {
                self.ready.insert(Place::of(&account), vcpu.clone());
            }
            Stop::Yielded => {
                let place = self.ready.behind_first(&account);
                self.ready.insert(place, vcpu.clone());
            }
            Stop::Spun => {
                let sibling = |other: &VcpuRef| Arc::ptr_eq(other.domain(), vcpu.domain());
                let place = self.ready.behind(&account, sibling);
                self.ready.insert(place, vcpu.clone());
            }
            Stop::Asleep(deadline) => {
                account.sleep(now.0);
                if deadline != Tsc::NEVER {
                    self.sleepers.insert(deadline, vcpu.clone());
                }
            }
            Stop::Gone => account.sleep(now.0),
        }
    }

    /// Goes on with the turn of a vCPU that was about to sleep when something came for it.
    pub fn resume(&mut self, vcpu: &VcpuRef, now: Tsc) {
        self.sleepers.remove(vcpu);
        let mut account = vcpu.account.lock();
        self.ready.wake(&mut account, now.0);
        self.ready.begin(&account, now.0);
    }

    /// True when the vCPU that runs is to leave the pCPU: another's turn has come, or one that
    /// waits may have a better place elsewhere.
    #[must_use]
    pub fn is_over(&self, now: Tsc) -> bool {
        self.ready.is_over(now.0)
            || (self.offers()
                && (self.next_balance <= now || self.ready.first_of(pass::is_wanted).is_some()))
    }

    /// True when a vCPU waits here that may run elsewhere. Others get to know it.
    pub(super) fn offers(&self) -> bool {
        let others = pass::others(self.cpu);
        let may_leave = |vcpu: &VcpuRef| vcpu.affinity & others != 0;
        let offers = others != 0 && self.ready.first_of(may_leave).is_some();
        pass::announce(self.cpu, offers);
        offers
    }

    /// When to look at [`RunQueue::is_over`] again.
    #[must_use]
    pub fn until(&self, now: Tsc) -> Tsc {
        let turn = Tsc(self.ready.until(now.0));
        if turn != Tsc::NEVER && pass::others(self.cpu) != 0 {
            turn.min(self.next_balance)
        } else {
            turn
        }
    }

    fn reserve(&mut self, vcpus: usize) -> bool {
        self.ready.reserve(vcpus).is_ok() && self.sleepers.reserve(vcpus).is_ok()
    }
}

/// vCPUs that there are.
static ADMITTED: AtomicUsize = AtomicUsize::new(0);

/// Makes room for so many more vCPUs on every pCPU, so that queueing them never allocates; false
/// when memory is short. [`dismiss`] undoes it.
#[must_use]
pub fn admit(vcpus: usize) -> bool {
    let all = ADMITTED.fetch_add(vcpus, Ordering::SeqCst) + vcpus;
    let room = percpu::cpus().all(|cpu| cpu.run_queue.lock().reserve(all));
    if !room {
        dismiss(vcpus);
    }
    room
}

/// So many vCPUs are gone.
pub fn dismiss(vcpus: usize) {
    ADMITTED.fetch_sub(vcpus, Ordering::SeqCst);
}
