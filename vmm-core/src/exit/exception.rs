//! Exceptions that exit: #DB and #AC, which a guest could otherwise make the CPU raise for ever
//! while it delivers them, and machine checks, which are the host's.

use vmx::event::{Event, VECTOR_DB, VECTOR_MC};
use vmx::exit::ExceptionInfo;
use vmx::vmcs::field;

use super::Outcome;
use crate::platform;
use crate::vcpu::Running;

/// The vectors to intercept: #DB (1), #AC (17) and #MC (18).
pub const BITMAP: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// DR6 bits that a #DB clears before it sets the conditions that were met: RTM is inverted.
const DR6_CONDITIONS: u64 = 0xf;
/// DR7.GD, which a #DB clears.
const DR7_GD: u64 = 1 << 13;

/// Handles an intercepted exception: the guest gets it back as if there had been no exit.
#[inline(never)]
pub fn handle(v: &mut Running<'_>, info: ExceptionInfo) -> Outcome {
    if info.vector == VECTOR_MC {
        platform::machine_check();
        return Outcome::Again;
    }
    if info.vector == VECTOR_DB {
        // The exit came before DR6, DR7 and DEBUGCTL were touched (SDM 3C, "Architectural State
        // Before a VM Exit").
        v.cpu.ext.merge_dr6(info.qualification, DR6_CONDITIONS);
        let dr7 = v.vmcs.read(field::GUEST_DR7);
        v.vmcs.write(field::GUEST_DR7, dr7 & !DR7_GD);
    }
    v.cpu.pending.exception = Some(Event {
        vector: info.vector,
        kind: info.kind,
        error: info.error,
        length: info.length,
    });
    Outcome::Again
}
