//! Who runs, where and for how long: borrowed virtual time.
//!
//! * [`bvt`]: what each vCPU has had, and what that entitles it to.
//! * [`queue`]: the runnable vCPUs of one pCPU, by effective virtual time (over [`heap`]).
//! * [`balance`]: which vCPU a pCPU passes on to which other.
//! * `run_queue`: a pCPU's vCPUs that do not run, in [`PerCpu::run_queue`] (found through
//!   `percpu::CPUS`): `ready` are those that wait for the pCPU, `sleepers` those that wait for a
//!   time.
//! * `pass`: moves vCPUs between pCPUs.
//! * [`breaks`]: how long work of the hypervisor's own lets vCPUs run.
//!
//! Those before the last three know nothing of the machine, and run on the host in a simulation
//! that compares shares with the ideal.

pub mod balance;
pub mod breaks;
pub mod bvt;
pub mod heap;
mod offers;
mod pass;
pub mod queue;
mod run_queue;
#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;

use vmx::VmxOn;
use vmx::cpu::apic::{self, TscDeadline};

use crate::domain::VcpuRef;
use crate::leftovers;
use crate::percpu::{self, PerCpu};
use crate::time::{self, Tsc};
use crate::vcpu::runstate;

pub use breaks::Breaks;
pub use pass::settle;
pub use run_queue::{RunQueue, Stop, admit, dismiss};

/// The context-switch allowance, in microseconds.
const ALLOWANCE_US: u64 = 5_000;

/// The context-switch allowance, in TSC ticks.
fn allowance() -> u64 {
    time::ticks_from_us(ALLOWANCE_US)
}

/// Hands a vCPU that has just become runnable to its home pCPU. The caller has made it runnable,
/// so nobody else does.
pub fn enqueue(vcpu: VcpuRef) {
    let Some(cpu) = percpu::by_id(vcpu.home()) else {
        return;
    };
    let now = Tsc::now();
    vcpu.enter_runstate(runstate::Kind::Runnable, now);
    let elsewhere = pass::is_wanted(&vcpu);
    let first = cpu.run_queue.lock().wake(vcpu, now);
    if first || elsewhere {
        cpu.reschedule();
    }
}

/// Makes the calling pCPU one that runs vCPUs, if only in the breaks of other work at first.
pub fn join(vmx: &VmxOn) -> Breaks<'_> {
    let cpu = percpu::current();
    cpu.run_queue.lock().ready.set_allowance(allowance());
    pass::join(cpu);
    Breaks::new(cpu, vmx)
}

/// The life of a pCPU that has joined: run whoever's turn it is, or wait.
pub fn cpu_loop(vmx: &VmxOn) -> ! {
    let cpu = percpu::current();
    loop {
        cpu.need_resched.store(false, Ordering::SeqCst);
        if cpu.id == 0 {
            crate::start::reap(&mut Breaks::new(cpu, vmx));
        }
        if !turn(cpu, vmx) {
            idle(cpu);
        }
    }
}

/// Gives the vCPU that is next its turn; false when there is none.
fn turn(cpu: &PerCpu, vmx: &VmxOn) -> bool {
    if cpu.id == 0 {
        crate::console::poll();
        crate::network::serve_arrived();
        if leftovers::due() <= Tsc::now() {
            leftovers::serve();
        }
    }
    let now = Tsc::now();
    let next = cpu.run_queue.lock().begin_next(now);
    pass::pass_on(cpu, vmx, now);
    let Some(vcpu) = next else {
        return false;
    };
    crate::vcpu::run::run(cpu, vmx, &vcpu);
    true
}

/// Does what is left over, or waits for an interrupt or for the first sleeper's time.
fn idle(cpu: &PerCpu) {
    pass::become_idle(cpu);
    if cpu.id == 0 && leftovers::any() {
        leftovers::serve();
    } else {
        wait(cpu);
    }
    pass::become_busy(cpu);
}

fn wait(cpu: &PerCpu) {
    let mut deadline = cpu.run_queue.lock().next_deadline();
    if cpu.id == 0 {
        deadline = deadline.min(leftovers::due());
    }
    if !cpu.need_resched.load(Ordering::SeqCst) && deadline > Tsc::now() {
        apic::arm_timer((deadline != Tsc::NEVER).then_some(TscDeadline(deadline.0)));
        vmx::cpu::idle::wait_for_interrupt();
    }
}
