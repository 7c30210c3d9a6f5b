//! Long work of the hypervisor's own on a pCPU, building a domain or freeing one, goes in steps.
//! Between two of them it gives way ([`Breaks::give_way`]): vCPUs get the pCPU for a break.
//!
//! There is a break as soon as somebody wants the pCPU at once, and otherwise when the work has
//! gone on for a while. It lasts a multiple of the time worked, so that neither guests nor the work
//! can starve the other. Turns of vCPUs are ordinary calls, so all of this happens on the pCPU's
//! one stack:
//!
//! ```text
//! work, work, work, [ vCPU's turn, vCPU's turn ], work, work, [ vCPU's turn ], ...
//! ```
//!
//! Only the boot pCPU has such work.

use core::sync::atomic::{AtomicU64, Ordering};

use vmx::VmxOn;

use crate::percpu::PerCpu;
use crate::time::Tsc;
use crate::{exit, leftovers};

/// How often the work looks whether somebody wants the pCPU, in TSC ticks; a step may be longer.
const LOOK: u64 = 1 << 12;
/// How long it goes on while vCPUs merely wait for their turn, in TSC ticks.
const STRETCH: u64 = 1 << 19;
/// The least length of a break, in TSC ticks, so that switching to and fro costs little of it.
const LEAST_BREAK: u64 = 1 << 17;
/// How much longer than the work before it a break is.
const BREAK_FACTOR: u64 = 3;

/// When the break ends that the boot pCPU is in, or never.
static END: AtomicU64 = AtomicU64::new(Tsc::NEVER.0);

/// When the boot pCPU goes on with its work: never unless that is having a break.
#[must_use]
pub fn end() -> Tsc {
    Tsc(END.load(Ordering::Relaxed))
}

/// True in a break.
#[must_use]
pub fn is_on() -> bool {
    end() != Tsc::NEVER
}

/// A pCPU at long work.
#[derive(Debug)]
pub struct Breaks<'a> {
    cpu: &'a PerCpu,
    vmx: &'a VmxOn,
    /// When it last looked whether anybody wants the pCPU.
    looked: Tsc,
    /// When the last break ended.
    rested: Tsc,
}

impl<'a> Breaks<'a> {
    /// Work begins on the calling pCPU, which runs vCPUs in its breaks.
    pub(crate) fn new(cpu: &'a PerCpu, vmx: &'a VmxOn) -> Self {
        let now = Tsc::now();
        Self {
            cpu,
            vmx,
            looked: now,
            rested: now,
        }
    }

    /// Has a break if one is due. To be called often; the caller holds no lock.
    #[inline]
    pub fn give_way(&mut self) {
        let now = Tsc::now();
        // On a host no vCPU has turns.
        if cfg!(target_os = "none") && now.since(self.looked) >= LOOK {
            self.look(now);
        }
    }

    #[cold]
    fn look(&mut self, now: Tsc) {
        self.looked = now;
        exit::interrupt_window();
        let worked = now.since(self.rested);
        if worked >= STRETCH || self.is_urgent(now) {
            let length = worked.saturating_mul(BREAK_FACTOR).max(LEAST_BREAK);
            self.rest(now.after(length));
        }
    }

    /// True when somebody is to run at once.
    fn is_urgent(&self, now: Tsc) -> bool {
        self.cpu.need_resched.load(Ordering::SeqCst)
            || self.cpu.run_queue.lock().is_urgent(now)
            || leftovers::due() <= now
    }

    /// Has a break, until `end` or until no vCPU is left to run.
    fn rest(&mut self, end: Tsc) {
        END.store(end.0, Ordering::Relaxed);
        loop {
            self.cpu.need_resched.store(false, Ordering::SeqCst);
            if Tsc::now() >= end || !super::turn(self.cpu, self.vmx) {
                break;
            }
        }
        END.store(Tsc::NEVER.0, Ordering::Relaxed);
        let now = Tsc::now();
        (self.looked, self.rested) = (now, now);
    }
}
