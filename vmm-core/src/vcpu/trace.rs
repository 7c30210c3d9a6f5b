//! The last exits of a vCPU, for a debugger: `tessera exits` in gdb shows them.
//!
//! Only builds with the feature `exit-trace` keep them (`cargo xtask gdb` makes one); others spend
//! no instruction on it.

use alloc::boxed::Box;

use vmx::exit::ExitReason;
use vmx::vmcs::field;

use super::Running;
use crate::time::Tsc;

/// Exits kept.
const LENGTH: usize = 64;

/// What is known of an exit.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "read by a debugger")]
struct TracedExit {
    /// When it came.
    tsc: Tsc,
    /// The exit reason, flags included.
    reason: u32,
    /// The guest's RIP.
    rip: u64,
    /// The guest's RAX: of a hypercall, its number.
    rax: u64,
}

#[derive(Debug)]
struct Ring {
    /// The newest lies before `next`, the oldest at it.
    exits: [TracedExit; LENGTH],
    next: usize,
}

/// The last exits of one vCPU, or nothing.
#[derive(Debug)]
pub struct ExitTrace(Option<Box<Ring>>);

impl ExitTrace {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        let none = TracedExit {
            tsc: Tsc(0),
            reason: 0,
            rip: 0,
            rax: 0,
        };
        Self(cfg!(feature = "exit-trace").then(|| {
            Box::new(Ring {
                exits: [none; LENGTH],
                next: 0,
            })
        }))
    }
}

impl Default for ExitTrace {
    fn default() -> Self {
        Self::new()
    }
}

impl Running<'_> {
    /// Notes an exit that has just come.
    #[inline(always)]
    pub(super) fn trace_exit(&mut self, reason: ExitReason) {
        if cfg!(feature = "exit-trace")
            && let Some(ring) = &mut self.cpu.trace.0
        {
            let exit = TracedExit {
                tsc: Tsc::now(),
                reason: reason.raw(),
                rip: self.vmcs.read(field::GUEST_RIP),
                rax: self.cpu.regs.rax,
            };
            if let Some(slot) = ring.exits.get_mut(ring.next) {
                *slot = exit;
            }
            ring.next = (ring.next + 1) % LENGTH;
        }
    }
}
