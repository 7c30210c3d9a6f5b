//! Exceptions that exit: #DB and #AC, which a guest could otherwise make the CPU raise for ever
//! while it delivers them, and machine checks, which are the host's.

use vmx::cpu::last_branch::DEBUGCTL_LBR;
use vmx::event::{Event, EventKind, VECTOR_DB, VECTOR_MC};
use vmx::exit::ExceptionInfo;
use vmx::vmcs::field;

use super::Outcome;
use crate::platform;
use crate::policy::msr::DEBUGCTL_BTF;
use crate::vcpu::Running;
use crate::vcpu::access::{SHADOW, TRAP_FLAG};

/// The vectors to intercept: #DB (1), #AC (17) and #MC (18).
pub const BITMAP: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// DR6.B0 to B3, which a #DB replaces; it only adds to the other conditions.
const DR6_BREAKPOINTS: u64 = 0xf;
/// DR6.BLD, which is clear when its condition was met.
const DR6_BUS_LOCK: u64 = 1 << 11;
/// DR6.RTM, which is clear when its condition was met; any other #DB sets it.
const DR6_RTM: u64 = 1 << 16;
/// The conditions: B0 to B3, BLD, BD, BS, BT and RTM.
const DR6_CONDITIONS: u64 = 0x1_e80f;
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
        satisfy_entry_checks(v);
        // INT1 leaves the debug registers alone.
        if info.kind == EventKind::HardException {
            v.record_debug(info.qualification);
        }
    }
    v.raise_event(Event {
        vector: info.vector,
        kind: info.kind,
        error: info.error,
        length: info.length,
    });
    Outcome::Again
}

/// A #DB can exit with blocking by STI or MOV SS still in force. A VM entry takes that together
/// with RFLAGS.TF only when a single step is pending (SDM 3C, "Checks on Guest Non-Register
/// State").
fn satisfy_entry_checks(v: &mut Running<'_>) {
    let blocking = v.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE);
    if blocking & SHADOW != 0 && v.vmcs.read(field::GUEST_RFLAGS) & TRAP_FLAG != 0 {
        v.pend_single_step();
    }
}

impl Running<'_> {
    /// Records a #DB's conditions, in the format of an exit qualification, in the debug
    /// registers. The exit came before the processor did so, and injection does not do it
    /// (SDM 3C, "Architectural State Before a VM Exit"; SDM 3B, "Debug Registers").
    pub fn record_debug(&mut self, conditions: u64) {
        self.cpu.ext.update_dr6(|dr6| dr6_after(dr6, conditions));
        let dr7 = self.vmcs.read(field::GUEST_DR7);
        self.vmcs.write(field::GUEST_DR7, dr7 & !DR7_GD);
        let control = self.vmcs.read(field::GUEST_IA32_DEBUGCTL);
        let cleared = control & !(DEBUGCTL_LBR | DEBUGCTL_BTF);
        if cleared != control {
            self.vmcs.write(field::GUEST_IA32_DEBUGCTL, cleared);
        }
    }
}

/// DR6 after a #DB with these conditions.
const fn dr6_after(dr6: u64, conditions: u64) -> u64 {
    const INVERTED: u64 = DR6_BUS_LOCK | DR6_RTM;
    let met = conditions & DR6_CONDITIONS;
    let before = (dr6 & !DR6_BREAKPOINTS) | DR6_RTM;
    (before | (met & !INVERTED)) & !(met & INVERTED)
}

#[cfg(test)]
mod tests {
    use super::dr6_after;

    #[test]
    fn conditions_add_up_but_breakpoints_are_replaced() {
        const RESET: u64 = 0xffff_0ff0;
        assert_eq!(dr6_after(RESET, 1 << 14), 0xffff_4ff0);
        assert_eq!(dr6_after(RESET | 1 << 14 | 0b0011, 0b0100), 0xffff_4ff4);
        assert_eq!(dr6_after(RESET, 0b0001), 0xffff_0ff1);
    }

    #[test]
    fn inverted_conditions_are_cleared() {
        const RESET: u64 = 0xffff_0ff0;
        assert_eq!(dr6_after(RESET, 1 << 16), 0xfffe_0ff0);
        assert_eq!(dr6_after(0xfffe_0ff0, 1 << 14), 0xffff_4ff0);
        assert_eq!(dr6_after(RESET, 1 << 11), 0xffff_07f0);
        assert_eq!(dr6_after(0xffff_07f0, 1 << 14), 0xffff_47f0);
        assert_eq!(dr6_after(RESET, 1 << 12 | 1 << 20), RESET);
    }
}
