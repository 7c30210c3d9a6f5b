//! Moves vCPUs between pCPUs.
//!
//! A vCPU leaves a pCPU by that pCPU's own hand and in one way only: while it waits in the pCPU's
//! queue, the pCPU takes it out, clears its VMCS, saves what it still holds of its registers,
//! gives it its new home and puts it into the queue there. So a VMCS is never active on one CPU
//! while another wants it, and no pCPU waits for another. Until it is in the new queue it is
//! runnable and nobody's, so that nobody else can put it into one ([`VcpuRef::kick`] does so with
//! blocked vCPUs only).
//!
//! An idle pCPU cannot take a vCPU, but it [asks](Offers).

use core::sync::atomic::{AtomicU64, Ordering};

use vmx::VmxOn;

use super::allowance;
use super::balance::{self, Bounds, Clock};
use super::offers::{Offers, bit};
use super::queue::Place;
use crate::domain::VcpuRef;
use crate::percpu::{self, PerCpu};
use crate::time::Tsc;
use crate::vcpu::run;

/// pCPUs that run vCPUs, by bit; their number is below 64 (`percpu::MAX_CPUS`).
static UP: AtomicU64 = AtomicU64::new(0);
static OFFERS: Offers = Offers::new();

/// The calling pCPU runs vCPUs from now on.
pub(super) fn join(cpu: &PerCpu) {
    UP.fetch_or(bit(cpu.id), Ordering::SeqCst);
}

/// The pCPUs beside this one that run vCPUs.
pub(super) fn others(cpu: u32) -> u64 {
    UP.load(Ordering::Relaxed) & !bit(cpu)
}

/// True when an idle pCPU could run the vCPU.
pub(super) fn is_wanted(vcpu: &VcpuRef) -> bool {
    OFFERS.idle() & vcpu.affinity & !bit(vcpu.home()) != 0
}

/// The calling pCPU has nothing to run, and asks one that has more than it can run.
pub(super) fn become_idle(cpu: &PerCpu) {
    let waiting = OFFERS.become_idle(cpu.id);
    if waiting != 0
        && let Some(other) = percpu::by_id(waiting.trailing_zeros())
    {
        other.reschedule();
    }
}

/// The calling pCPU looks for something to run.
pub(super) fn become_busy(cpu: &PerCpu) {
    OFFERS.become_busy(cpu.id);
}

/// Gives a vCPU that is on no pCPU a home for when it runs next: an idle pCPU, if there is one.
pub fn settle(vcpu: &VcpuRef) {
    let idle = OFFERS.idle() & vcpu.affinity;
    if idle != 0 && idle & bit(vcpu.home()) == 0 {
        vcpu.set_home(idle.trailing_zeros());
    }
}

/// Passes on vCPUs that wait here and have a better place elsewhere. The calling pCPU has no
/// VMCS in use.
pub(super) fn pass_on(cpu: &PerCpu, vmx: &VmxOn, now: Tsc) {
    let others = others(cpu.id);
    if others != 0 && cpu.run_queue.lock().offers() {
        pass_to_idle(cpu, vmx, others, now);
        balance(cpu, vmx, others, now);
    }
}

/// Says whether a vCPU waits on a pCPU that may run elsewhere.
pub(super) fn announce(cpu: u32, offers: bool) {
    OFFERS.announce(cpu, offers);
}

fn pass_to_idle(cpu: &PerCpu, vmx: &VmxOn, others: u64, now: Tsc) {
    loop {
        let idle = OFFERS.idle() & others;
        if idle == 0 {
            return;
        }
        let wanted = |vcpu: &VcpuRef| vcpu.affinity & idle != 0;
        let Some(vcpu) = cpu.run_queue.lock().ready.pop_of(wanted) else {
            return;
        };
        let target = (idle & vcpu.affinity).trailing_zeros();
        // One is enough for it.
        OFFERS.become_busy(target);
        move_to(cpu, vmx, vcpu, target, now);
    }
}

/// Moves the next vCPU that waits, if others get more for their weight elsewhere.
fn balance(cpu: &PerCpu, vmx: &VmxOn, others: u64, now: Tsc) {
    let (vcpu, avt) = {
        let mut queue = cpu.run_queue.lock();
        if queue.next_balance > now {
            return;
        }
        queue.next_balance = now.after(allowance());
        let shift = queue.shift;
        let may_leave = |vcpu: &VcpuRef| vcpu.affinity & others != 0;
        let Some(first) = queue.ready.first_of(may_leave) else {
            return;
        };
        (first.vcpu.clone(), first.avt.wrapping_add(shift))
    };
    let share = *vcpu.account.lock().share();
    let clocks = percpu::cpus().filter_map(|other| {
        let allowed = others & vcpu.affinity & bit(other.id) != 0;
        let queue = allowed.then(|| other.run_queue.lock())?;
        let time = queue.ready.clock(now.0)?.wrapping_add(queue.shift);
        Some(Clock {
            cpu: other.id,
            time,
        })
    });
    let bounds = Bounds::with_allowance(allowance());
    let decision = balance::decide(avt, &share, bounds, clocks, forfeit);
    forfeit(cpu.id, decision.forfeit);
    if let Some(target) = decision.target {
        let found = cpu.run_queue.lock().ready.pop_of(|other| other.is(&vcpu));
        if let Some(vcpu) = found {
            move_to(cpu, vmx, vcpu, target, now);
        }
    }
}

fn forfeit(cpu: u32, ticks: u64) {
    if ticks != 0
        && let Some(cpu) = percpu::by_id(cpu)
    {
        let mut queue = cpu.run_queue.lock();
        queue.shift = queue.shift.wrapping_add(ticks);
    }
}

/// Moves a vCPU that was taken out of this pCPU's queue to another pCPU.
fn move_to(cpu: &PerCpu, vmx: &VmxOn, vcpu: VcpuRef, target: u32, now: Tsc) {
    let Some(other) = percpu::by_id(target) else {
        return;
    };
    run::detach(cpu, vmx, &vcpu);
    let shift = cpu.run_queue.lock().shift;
    vcpu.set_home(target);
    {
        let mut account = vcpu.account.lock();
        let common = account.avt().wrapping_add(shift);
        let mut queue = other.run_queue.lock();
        if queue.ready.clock(now.0).is_none() {
            // Where nobody runs, time has stood still.
            queue.shift = common.wrapping_sub(queue.ready.svt(now.0));
        }
        account.move_to(common.wrapping_sub(queue.shift));
        let place = Place::of(&account);
        drop(account);
        queue.ready.insert(place, vcpu);
    }
    other.reschedule();
}
