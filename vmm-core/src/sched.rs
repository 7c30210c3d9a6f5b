//! Who runs: each pCPU takes turns among its own vCPUs, a slice at a time.
//!
//! A vCPU stays on its home pCPU. Ready vCPUs wait in order; one that runs alone keeps the pCPU
//! until another becomes ready. Blocked vCPUs that wait for a time are kept here as well, so that
//! one deadline serves the whole pCPU.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use core::sync::atomic::Ordering;

use vmx::VmxOn;
use vmx::cpu::apic::{self, TscDeadline};

use crate::domain::VcpuRef;
use crate::percpu::{self, PerCpu};
use crate::time::{self, Tsc};
use crate::vcpu::RunState;

/// How long a vCPU runs while others wait, in microseconds.
const SLICE_US: u64 = 5_000;

/// A slice, in TSC ticks.
#[must_use]
pub fn slice_ticks() -> u64 {
    time::ticks_from_us(SLICE_US)
}

#[derive(Debug)]
struct Sleeper {
    deadline: Tsc,
    vcpu: VcpuRef,
}

/// The vCPUs of one pCPU that do not run.
#[derive(Debug, Default)]
pub struct RunQueue {
    ready: VecDeque<VcpuRef>,
    /// Sorted by deadline, the earliest last.
    sleepers: Vec<Sleeper>,
}

impl RunQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            sleepers: Vec::new(),
        }
    }

    /// True when a vCPU waits for the pCPU.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Adds a runnable vCPU at the end.
    pub fn push(&mut self, vcpu: VcpuRef) {
        self.ready.push_back(vcpu);
    }

    /// Takes the vCPU whose turn it is.
    pub fn pop(&mut self) -> Option<VcpuRef> {
        self.ready.pop_front()
    }

    /// Notes that a blocked vCPU is to be woken at `deadline`.
    pub fn sleep(&mut self, deadline: Tsc, vcpu: VcpuRef) {
        self.sleepers.retain(|sleeper| !sleeper.vcpu.is(&vcpu));
        if deadline != Tsc::NEVER {
            let at = self
                .sleepers
                .partition_point(|sleeper| sleeper.deadline > deadline);
            self.sleepers.insert(at, Sleeper { deadline, vcpu });
        }
    }

    /// When the first sleeper is due.
    #[must_use]
    pub fn next_deadline(&self) -> Tsc {
        self.sleepers
            .last()
            .map_or(Tsc::NEVER, |sleeper| sleeper.deadline)
    }

    /// Makes the sleepers that are due ready.
    pub fn wake_due(&mut self, now: Tsc) {
        while self.next_deadline() <= now {
            let Some(sleeper) = self.sleepers.pop() else {
                return;
            };
            if sleeper
                .vcpu
                .transition(RunState::Blocked, RunState::Runnable)
            {
                self.ready.push_back(sleeper.vcpu);
            }
        }
    }

    /// Forgets a vCPU that will not run again.
    pub fn forget(&mut self, vcpu: &VcpuRef) {
        self.sleepers.retain(|sleeper| !sleeper.vcpu.is(vcpu));
    }
}

/// Hands a vCPU that has just become runnable to its home pCPU.
pub fn enqueue(vcpu: VcpuRef) {
    let Some(cpu) = percpu::by_id(vcpu.home) else {
        return;
    };
    cpu.run_queue.lock().push(vcpu);
    cpu.reschedule();
}

/// The life of a pCPU in VMX operation: run whoever's turn it is, or wait.
pub fn cpu_loop(vmx: &VmxOn) -> ! {
    let cpu = percpu::current();
    loop {
        cpu.need_resched.store(false, Ordering::SeqCst);
        if cpu.id == 0 {
            crate::start::reap();
            crate::console::poll();
            crate::store::poll();
        }
        match next(cpu) {
            Some(vcpu) => crate::vcpu::run::run(cpu, vmx, &vcpu),
            None => idle(cpu),
        }
    }
}

fn next(cpu: &PerCpu) -> Option<VcpuRef> {
    let mut queue = cpu.run_queue.lock();
    queue.wake_due(Tsc::now());
    queue.pop()
}

/// Waits for an interrupt, or for the first sleeper's time.
fn idle(cpu: &PerCpu) {
    cpu.idle.store(true, Ordering::SeqCst);
    let deadline = cpu.run_queue.lock().next_deadline();
    if !cpu.need_resched.load(Ordering::SeqCst) && deadline > Tsc::now() {
        apic::arm_timer((deadline != Tsc::NEVER).then_some(TscDeadline(deadline.0)));
        vmx::cpu::idle::wait_for_interrupt();
    }
    cpu.idle.store(false, Ordering::SeqCst);
}
