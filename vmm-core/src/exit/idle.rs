//! HLT and triple faults: how a vCPU waits, and how it stops.

use vmx::vmcs::field;

use super::{Next, Outcome};
use crate::domain::ShutdownReason;
use crate::vcpu::Running;

/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// HLT. With interrupts enabled the vCPU waits for one. With interrupts disabled nothing but an
/// NMI could wake it, and a PVH guest says so that this CPU is done with: it goes offline, and
/// with the last one the domain has powered off.
pub fn hlt(v: &mut Running<'_>) -> Outcome {
    if v.vmcs.read(field::GUEST_RFLAGS) & INTERRUPT_FLAG != 0 {
        return Outcome::DoneThen(Next::Block);
    }
    Outcome::DoneThen(Next::Offline)
}

/// A triple fault ends the domain for the reason that it chose beforehand
/// (`HVM_PARAM_TRIPLE_FAULT_REASON`), which at first is a reboot.
#[inline(never)]
pub fn triple_fault(v: &mut Running<'_>) -> Outcome {
    let rip = v.vmcs.read(field::GUEST_RIP);
    log::error!(
        "{}: vcpu{}: triple fault at rip {rip:#x}",
        v.domain.name,
        v.vcpu.id
    );
    v.log_account();
    let chosen = v
        .domain
        .params
        .lock()
        .get(abi::hvm::param::TRIPLE_FAULT_REASON);
    let reason = u32::try_from(chosen.unwrap_or(1)).unwrap_or(1);
    v.domain.shut_down(ShutdownReason::from_raw(reason));
    Outcome::Then(Next::Offline)
}
