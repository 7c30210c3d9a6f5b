//! The loop that a pCPU runs for a vCPU: deliver what waits, enter the guest, handle its exit.

use core::sync::atomic::Ordering;

use spin::MutexGuard;
use vmx::cpu::apic::TscDeadline;
use vmx::exit::ExitReason;
use vmx::vmcs::field;
use vmx::{EntryFailure, VmxOn};

use super::{Context, InitialState, RunState, Running, Signals, context, ext_state, runstate};
use crate::bits::low32;
use crate::domain::{Domain, ShutdownReason, VcpuRef, lifecycle};
use crate::evtchn::VcpuSet;
use crate::exit::{self, Next};
use crate::fault::CrashReason;
use crate::leftovers;
use crate::percpu::{NO_DOMAIN, PerCpu};
use crate::sched::{RunQueue, Stop, breaks};
use crate::time::Tsc;

/// [`CpuContext::stop`](super::context::CpuContext::stop) is to be found: a time that is always
/// past.
const STOP_UNKNOWN: Tsc = Tsc(0);

/// Why a vCPU leaves its pCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leave {
    /// Others want the pCPU; the vCPU stays runnable.
    Preempted,
    /// It lets others go first.
    Yielded,
    /// It spins, and lets others go first.
    Spun,
    /// It waits for an event. It was put to sleep before it could be woken.
    Blocked,
    /// The guest stopped it.
    Offline,
    /// Its domain has ended.
    Dead,
}

/// Runs a vCPU until it leaves its pCPU.
pub fn run(cpu: &PerCpu, vmx: &VmxOn, vcpu: &VcpuRef) {
    if !vcpu.transition(RunState::Runnable, RunState::Running) {
        let mut queue = cpu.run_queue.lock();
        queue.stop(vcpu, Stop::Gone, Tsc::now());
        return;
    }
    let domain = vcpu.domain();
    cpu.running_domain
        .store(u32::from(domain.id.0), Ordering::SeqCst);
    let mut context = vcpu.context.lock();
    let leave = match context::prepare(&mut context, cpu, vcpu, vmx) {
        Ok(()) => {
            ext_state::switch_to(cpu, vcpu, &mut context.cpu);
            vcpu.enter_runstate(runstate::Kind::Running, Tsc::now());
            let Context {
                vmcs, cpu: state, ..
            } = &mut *context;
            Running {
                domain,
                vcpu,
                shared: vcpu,
                alone: VcpuSet::one(vcpu.id),
                vmcs: vmcs.load(vmx),
                cpu: state,
                attention: &cpu.attention,
            }
            .run(cpu)
        }
        Err(reason) => {
            domain.crash(&reason);
            Leave::Dead
        }
    };
    cpu.running_domain.store(NO_DOMAIN, Ordering::SeqCst);
    leave_cpu(cpu, vmx, vcpu, context, leave);
}

/// Drops the stale translations of the domain that this pCPU runs, if it is `domain`.
pub fn catch_up_with_flushes(cpu: &PerCpu, domain: &Domain) {
    if cpu.running_domain.load(Ordering::Relaxed) != u32::from(domain.id.0) {
        return;
    }
    let Some(seen) = domain.seen_flush.get(cpu.id as usize) else {
        return;
    };
    let epoch = domain.flush_epoch.load(Ordering::SeqCst);
    if seen.load(Ordering::Relaxed) != epoch {
        context::flush_ept(domain);
        seen.store(epoch, Ordering::SeqCst);
    }
}

/// Takes a vCPU that does not run off the pCPU, so that another one can run it: its VMCS is no
/// longer active here, and none of its state is left in the CPU.
pub fn detach(cpu: &PerCpu, vmx: &VmxOn, vcpu: &VcpuRef) {
    let mut context = vcpu.context.lock();
    ext_state::release(cpu, vcpu, &mut context.cpu);
    context.vmcs.clear(vmx);
}

fn leave_cpu(
    cpu: &PerCpu,
    vmx: &VmxOn,
    vcpu: &VcpuRef,
    mut context: MutexGuard<'_, Context>,
    leave: Leave,
) {
    let now = Tsc::now();
    let stop = match leave {
        Leave::Blocked => return,
        Leave::Preempted => Stop::Preempted,
        Leave::Yielded => Stop::Yielded,
        Leave::Spun => Stop::Spun,
        Leave::Offline => {
            vcpu.enter_runstate(runstate::Kind::Offline, now);
            cpu.run_queue.lock().stop(vcpu, Stop::Gone, now);
            drop(context);
            detach(cpu, vmx, vcpu);
            vcpu.go_offline();
            return;
        }
        Leave::Dead => {
            cpu.run_queue.lock().stop(vcpu, Stop::Gone, now);
            context.vmcs.clear(vmx);
            drop(context);
            ext_state::forget(cpu, vcpu);
            if vcpu.transition(RunState::Running, RunState::Dead) {
                lifecycle::vcpu_left(vcpu.domain());
            }
            return;
        }
    };
    vcpu.enter_runstate(runstate::Kind::Runnable, now);
    if vcpu.transition(RunState::Running, RunState::Runnable) {
        cpu.run_queue.lock().stop(vcpu, stop, now);
    }
}

/// A vCPU's turn on its pCPU.
#[derive(Debug)]
struct Turn {
    /// When the scheduler is to look whether the turn is over, or a sleeper is due: none falls
    /// asleep here in the meantime.
    until: Tsc,
    /// When the pCPU has other work to do.
    work: Tsc,
}

impl Turn {
    fn begin(cpu: &PerCpu, now: Tsc) -> Self {
        let mut turn = Self {
            until: Tsc::NEVER,
            work: work_due(cpu),
        };
        turn.go_on(&cpu.run_queue.lock(), now);
        turn
    }

    /// Finds how long it goes on.
    fn go_on(&mut self, queue: &RunQueue, now: Tsc) {
        let until = queue.until(now).min(queue.next_deadline());
        self.until = until.min(self.work);
    }

    fn is_over(&self, queue: &RunQueue, now: Tsc) -> bool {
        self.work <= now || queue.is_over(now)
    }
}

/// True when the vCPU that runs on a pCPU may let others go first.
fn may_yield(cpu: &PerCpu) -> bool {
    cpu.run_queue.lock().ready.may_yield(Tsc::now().0)
}

/// When a pCPU has a round of [`leftovers`] to do, or long work to go on with.
fn work_due(cpu: &PerCpu) -> Tsc {
    if cpu.id == 0 {
        leftovers::due().min(breaks::end())
    } else {
        Tsc::NEVER
    }
}

impl Running<'_> {
    /// The vCPU's turn on its pCPU.
    fn run(mut self, cpu: &PerCpu) -> Leave {
        let leave = self.go_round(cpu);
        let vmcs = &self.vmcs;
        self.cpu.stats.handled(|| vmcs.counters());
        leave
    }

    /// The loop proper. Most exits take the straight way through it.
    #[inline(always)]
    fn go_round(&mut self, cpu: &PerCpu) -> Leave {
        let mut turn = Turn::begin(cpu, Tsc::now());
        self.end_poll();
        self.recheck_deadlines();
        // Others may have set the local APIC's timer meanwhile.
        self.cpu.armed = Tsc(0);
        let mut now = match self.look(cpu, &mut turn, Tsc::now()) {
            Ok(now) => now,
            Err(leave) => return leave,
        };
        loop {
            self.set_out(now, self.cpu.stop);
            let next = self.enter();
            if next != Next::Resume
                && let Some(leave) = self.act(cpu, next)
            {
                return leave;
            }
            now = Tsc::now();
            if self.cpu.stop <= now || self.must_look() {
                match self.pause(cpu, &mut turn, now) {
                    Ok(later) => now = later,
                    Err(leave) => return leave,
                }
            }
        }
    }

    /// Notes that a deadline may have changed: before the next VM entry the first one is found
    /// anew.
    #[inline(always)]
    pub fn recheck_deadlines(&mut self) {
        self.cpu.stop = STOP_UNKNOWN;
    }

    /// True when something other than time keeps the vCPU from going straight back into its
    /// guest.
    #[inline(always)]
    fn must_look(&self) -> bool {
        // The guest may set the flag by itself, so nobody else could tell.
        self.attention.is_asked() || self.has_upcall()
    }

    /// For between two steps of a long exit: lets the host's interrupts in, and says whether the
    /// exit is to end before it is done, because somebody wants the pCPU or the vCPU. The guest
    /// then comes back to what is left.
    pub fn is_wanted_elsewhere(&mut self) -> bool {
        exit::interrupt_window();
        self.cpu.stats.looked();
        self.attention.is_asked() || self.cpu.stop <= Tsc::now()
    }

    /// Something keeps the vCPU from going straight back: often no more than a timer that it has
    /// just set, or an upcall.
    #[cold]
    #[inline(never)]
    fn pause(&mut self, cpu: &PerCpu, turn: &mut Turn, now: Tsc) -> Result<Tsc, Leave> {
        if self.cpu.stop == STOP_UNKNOWN {
            self.find_stop(turn, now);
        }
        if self.cpu.stop <= now || self.attention.is_asked() {
            return self.look(cpu, turn, now);
        }
        if self.has_upcall() {
            self.inject();
        }
        Ok(now)
    }

    /// Looks for all that has to be done before the guest may go on and does it; answers with the
    /// time then.
    #[cold]
    #[inline(never)]
    fn look(&mut self, cpu: &PerCpu, turn: &mut Turn, now: Tsc) -> Result<Tsc, Leave> {
        self.attention.take();
        if self.cpu.triple_fault {
            exit::idle::triple_fault(self);
            return Err(Leave::Offline);
        }
        if self.shared.is_signalled()
            && let Some(leave) = self.serve_signals()
        {
            return Err(leave);
        }
        if cpu.need_resched.load(Ordering::Relaxed)
            && let Some(leave) = self.reschedule(cpu, turn, now)
        {
            return Err(leave);
        }
        if self.cpu.stop == STOP_UNKNOWN {
            self.find_stop(turn, now);
        }
        if self.cpu.stop <= now
            && let Some(leave) = self.stop_is_due(cpu, turn, now)
        {
            return Err(leave);
        }
        catch_up_with_flushes(cpu, self.domain);
        self.inject();
        let now = Tsc::now();
        self.cpu.stop = self.cpu.stop.max(now);
        Ok(now)
    }

    /// Enters the guest and handles its exit.
    #[inline(always)]
    fn enter(&mut self) -> Next {
        let vmcs = &self.vmcs;
        self.cpu.stats.handled(|| vmcs.counters());
        let reason = match self.vmcs.run(&mut self.cpu.regs) {
            Ok(reason) => reason,
            Err(failure) => return self.refused(failure),
        };
        self.trace_exit(reason);
        match reason.plain() {
            Some(plain) => exit::handle_plain(self, plain),
            None => self.exit_with_details(reason),
        }
    }

    #[cold]
    #[inline(never)]
    fn exit_with_details(&mut self, reason: ExitReason) -> Next {
        let decoded = self.vmcs.details(reason);
        self.cpu.stats.exited(decoded.reason);
        self.cpu.pending.redeliver = decoded.redeliver;
        if decoded.nmi_unblocking_due_to_iret {
            self.block_nmis();
        }
        exit::handle(self, decoded.exit)
    }

    /// Does what an exit ended with, other than going on.
    #[cold]
    #[inline(never)]
    fn act(&mut self, cpu: &PerCpu, next: Next) -> Option<Leave> {
        match next {
            Next::Resume => None,
            Next::Yield => may_yield(cpu).then_some(Leave::Yielded),
            Next::Spin => may_yield(cpu).then_some(Leave::Spun),
            Next::Block => {
                let leave = self.block(cpu);
                if leave.is_none() {
                    self.end_poll();
                }
                leave
            }
            Next::Offline => {
                self.vcpu.set_signals(Signals::DOWN);
                Some(Leave::Offline)
            }
            Next::Crash => {
                if let Some(reason) = self.cpu.crash.take() {
                    self.domain.crash(&reason);
                }
                self.log_account();
                Some(Leave::Dead)
            }
        }
    }

    /// The VM entry did not happen.
    #[cold]
    fn refused(&mut self, failure: EntryFailure) -> Next {
        let error = failure.error().map_or(0, |error| error.0);
        self.cpu.crash = Some(CrashReason::VmEntryFailed { error });
        Next::Crash
    }

    /// Somebody has become ready on this pCPU, or it has other work.
    #[cold]
    fn reschedule(&mut self, cpu: &PerCpu, turn: &mut Turn, now: Tsc) -> Option<Leave> {
        cpu.need_resched.store(false, Ordering::SeqCst);
        // In a break the one that ended waits for the work that is having it.
        if cpu.id == 0 && lifecycle::has_ended() && !breaks::is_on() {
            cpu.need_resched.store(true, Ordering::SeqCst);
            return Some(Leave::Preempted);
        }
        turn.work = work_due(cpu);
        let queue = cpu.run_queue.lock();
        if turn.is_over(&queue, now) {
            return Some(Leave::Preempted);
        }
        turn.go_on(&queue, now);
        drop(queue);
        self.recheck_deadlines();
        None
    }

    /// The time to stop at has come: a timer's, a sleeper's, or the scheduler's.
    ///
    /// What is due is dealt with once. With a period shorter than this takes, something is due
    /// again at once; the guest gets its turn in between all the same, so that a guest's timers
    /// never keep the pCPU in root mode.
    #[inline(never)]
    fn stop_is_due(&mut self, cpu: &PerCpu, turn: &mut Turn, now: Tsc) -> Option<Leave> {
        self.expire_timers(now);
        let over = {
            let mut queue = cpu.run_queue.lock();
            queue.wake_due(now);
            turn.go_on(&queue, now);
            turn.is_over(&queue, now)
        };
        self.find_stop(turn, now);
        // The events just raised are looked at in a moment.
        self.attention.take();
        if cpu.need_resched.load(Ordering::Relaxed) {
            self.attention.ask_self();
        }
        // A watchdog may just have ended the domain.
        if self.vcpu.is_signalled()
            && let Some(leave) = self.serve_signals()
        {
            return Some(leave);
        }
        over.then_some(Leave::Preempted)
    }

    /// Finds when the guest must be left at the latest. What the timer cannot count to is cut off.
    #[inline(always)]
    fn find_stop(&mut self, turn: &Turn, now: Tsc) {
        let reach = now.after(self.cpu.timer_reach);
        self.cpu.stop = self.own_deadline().min(turn.until).min(reach);
    }

    /// When something of the vCPU's own, or of its domain, is due.
    fn own_deadline(&self) -> Tsc {
        let timers = self.cpu.timers.next().min(self.cpu.lapic_deadline());
        timers.min(self.domain.watchdogs.earliest())
    }

    /// Raises what the vCPU's own timers have due.
    pub fn expire_timers(&mut self, now: Tsc) {
        if self.domain.watchdogs.earliest() <= now {
            self.domain.shut_down(ShutdownReason::Watchdog);
        }
        let expired = self.cpu.timers.expire(now);
        if expired.virq_timer {
            let mut events = self.domain.evtchn.lock();
            let wake = events.raise_virq(self.shared.id, abi::event_channel::virq::TIMER);
            drop(events);
            self.wake(wake);
        }
        self.cpu.expire_lapic_timer(now);
    }

    /// Does what comes right before VM entry: makes sure the guest is left by `until`, which is not
    /// past, by the VMX-preemption timer, which costs no exit to set.
    #[inline(always)]
    fn set_out(&mut self, now: Tsc, until: Tsc) {
        if self.cpu.plain_entry {
            self.arm_timer(now, until);
        } else {
            self.set_out_otherwise(now, until);
        }
    }

    /// The same on CPUs that leak, or have no such timer but the local APIC's.
    #[cold]
    #[inline(never)]
    fn set_out_otherwise(&mut self, now: Tsc, until: Tsc) {
        if self.cpu.has_preemption_timer {
            self.arm_timer(now, until);
        } else if self.cpu.armed != until {
            self.cpu.armed = until;
            vmx::cpu::apic::arm_timer((until != Tsc::NEVER).then_some(TscDeadline(until.0)));
        }
        self.cpu.mitigations.before_entry();
    }

    #[inline(always)]
    fn arm_timer(&mut self, now: Tsc, until: Tsc) {
        // Never before `until`, and with one tick for the guest at least. What the timer does not
        // reach is cut off by `find_stop`.
        let ticks = until.0.wrapping_sub(now.0) >> (self.cpu.preemption_timer_shift & 63);
        self.vmcs.write(
            field::VMX_PREEMPTION_TIMER_VALUE,
            low32(ticks).wrapping_add(1),
        );
    }

    /// An IRET that had ended NMI blocking is to run again: it ends the blocking then.
    fn block_nmis(&mut self) {
        const BLOCKING_BY_NMI: u32 = 1 << 3;
        let state = self.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE);
        self.vmcs
            .write(field::GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_NMI);
    }

    /// Ends the poll that the vCPU has slept in, whatever woke it.
    fn end_poll(&mut self) {
        if core::mem::take(&mut self.cpu.polling) {
            self.cpu.timers.poll = Tsc::NEVER;
            self.domain.evtchn.lock().stop_poll(self.vcpu.id);
        }
    }

    /// Does what others have asked of the vCPU, on a host that runs no guest; true when it stops.
    #[cfg(feature = "testing")]
    pub(crate) fn settle(&mut self) -> bool {
        self.end_poll();
        self.serve_signals().is_some()
    }

    fn serve_signals(&mut self) -> Option<Leave> {
        let signals = self.vcpu.take_signals();
        if signals.contains(Signals::DIE) {
            return Some(Leave::Dead);
        }
        if signals.contains(Signals::INFO_MOVED) {
            self.cpu.info.clone_from(&self.vcpu.info.lock());
        }
        if signals.contains(Signals::TIMERS) {
            self.set_period(self.vcpu.period.load(Ordering::SeqCst));
        }
        if signals.contains(Signals::INIT) {
            self.cpu.init_reset();
        }
        if signals.contains(Signals::START) {
            let initial = self.vcpu.initial.lock().take();
            if let Some(state) = initial {
                self.start_with(&state);
            }
        }
        signals.contains(Signals::DOWN).then_some(Leave::Offline)
    }

    /// Starts the periodic timer with a period in nanoseconds, or stops it with 0.
    pub fn set_period(&mut self, ns: u64) {
        if ns == 0 {
            self.cpu.timers.stop_periodic();
        } else {
            let ticks = self.domain.clock.scale.ticks(ns);
            self.cpu.timers.start_periodic(Tsc::now(), ticks);
        }
        self.recheck_deadlines();
    }

    /// Blocks, unless something already waits for the vCPU.
    fn block(&mut self, cpu: &PerCpu) -> Option<Leave> {
        if let Some(info) = &self.cpu.info {
            info.clear_upcall_mask();
        }
        let deadline = self.own_deadline();
        let now = Tsc::now();
        if self.wakes() || deadline <= now {
            return None;
        }
        // All that sleeping takes comes first, since from its own word on the vCPU may be woken.
        self.vcpu.enter_runstate(runstate::Kind::Blocked, now);
        let stop = Stop::Asleep(deadline);
        cpu.run_queue.lock().stop(self.vcpu, stop, now);
        self.vcpu.transition(RunState::Running, RunState::Blocked);
        if self.wakes() && self.vcpu.transition(RunState::Blocked, RunState::Running) {
            let now = Tsc::now();
            cpu.run_queue.lock().resume(self.vcpu, now);
            self.vcpu.enter_runstate(runstate::Kind::Running, now);
            return None;
        }
        Some(Leave::Blocked)
    }

    /// True when something waits that ends a HLT, a block or a poll.
    fn wakes(&mut self) -> bool {
        self.vcpu.is_signalled()
            || self.has_upcall()
            || self.cpu.pending.nmi
            || self.vcpu.inbox.nmi_pending()
            || self.cpu.lapic.pending_vector().is_some()
    }

    /// Loads the registers that the vCPU starts with.
    fn start_with(&mut self, state: &InitialState) {
        context::load_initial(self, state);
    }
}
