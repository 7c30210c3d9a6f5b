//! What a VM exit asks for: one arm for each reason, and what follows from it.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

pub mod cr;
pub mod ept_violation;
pub mod exception;
pub mod idle;
pub mod io;
pub mod ipi;
pub mod msr;
mod task_switch;

use abi::Gva;
use vmx::exit::{Exit, FailedEntry, Plain};
use vmx::vmcs::field;

use crate::fault::{CrashReason, GuestFault};
use crate::vcpu::Running;
use crate::{console, percpu, platform};

/// What the vCPU does after an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Goes on.
    Resume,
    /// Lets another vCPU run first.
    Yield,
    /// Spins: lets another vCPU run first, if possible one of its domain.
    Spin,
    /// Waits for an event.
    Block,
    /// Stops.
    Offline,
    /// Its domain is broken: [`CpuContext::crash`](crate::vcpu::context::CpuContext::crash) says
    /// why.
    Crash,
}

/// How the instruction that caused an exit ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is complete: the guest goes on after it.
    Done,
    /// It is to be executed again, or it was no instruction.
    Again,
    /// It faults.
    Fault(GuestFault),
    /// It is complete, and the vCPU does this next.
    DoneThen(Next),
    /// The vCPU does this, and the instruction is not complete.
    Then(Next),
}

impl From<Result<(), GuestFault>> for Outcome {
    fn from(result: Result<(), GuestFault>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(fault) => Self::Fault(fault),
        }
    }
}

/// Handles one of the frequent exits that have no details.
#[inline(always)]
pub fn handle_plain(v: &mut Running<'_>, exit: Plain) -> Next {
    v.cpu.stats.exited(exit.reason());
    match exit {
        Plain::Vmcall => crate::hypercall::vmcall(v),
        Plain::Cpuid => {
            let outcome = v.cpuid();
            v.finish(outcome)
        }
        Plain::Rdmsr => {
            let outcome = msr::read(v);
            v.finish(outcome)
        }
        Plain::InterruptWindow => {
            v.attention.ask_self();
            Next::Resume
        }
        // The time to stop at has come, as the loop will see.
        Plain::PreemptionTimer => Next::Resume,
        Plain::Hlt => {
            v.recheck_deadlines();
            v.attention.ask_self();
            let outcome = idle::hlt(v);
            v.finish(outcome)
        }
        Plain::Wrmsr => {
            v.recheck_deadlines();
            v.attention.ask_self();
            let outcome = msr::write(v);
            v.finish(outcome)
        }
    }
}

/// Handles any exit.
pub fn handle(v: &mut Running<'_>, exit: Exit) -> Next {
    if let Exit::EptViolation(violation) = &exit {
        let outcome = ept_violation::handle(v, violation);
        return v.finish(outcome);
    }
    v.attention.ask_self();
    if !matches!(exit, Exit::Io(_) | Exit::ExternalInterrupt { .. }) {
        v.recheck_deadlines();
    }
    let outcome = dispatch(v, exit);
    v.finish(outcome)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever is not named here ends the domain with a full account"
)]
fn dispatch(v: &mut Running<'_>, exit: Exit) -> Outcome {
    match exit {
        Exit::Vmcall => Outcome::Then(crate::hypercall::vmcall(v)),
        Exit::Cpuid => v.cpuid(),
        Exit::Rdmsr => msr::read(v),
        Exit::ExternalInterrupt { vector } => host_interrupt(vector),
        Exit::PreemptionTimer => Outcome::Again,
        Exit::InterruptWindow | Exit::NmiWindow => Outcome::Again,
        Exit::EptViolation(violation) => ept_violation::handle(v, &violation),
        Exit::Io(access) => io::handle(v, access),
        Exit::Wrmsr => msr::write(v),
        Exit::Hlt => idle::hlt(v),
        Exit::CrAccess(access) => cr::handle(v, access),
        Exit::Exception(info) => exception::handle(v, info),
        Exit::Nmi => host_nmi(),
        Exit::Xsetbv => cr::xsetbv(v),
        Exit::Pause => Outcome::Then(Next::Spin),
        Exit::Wbinvd | Exit::Invd => Outcome::Done,
        Exit::TripleFault => idle::triple_fault(v),
        Exit::Rdpmc => Outcome::Fault(GuestFault::GP0),
        Exit::VmxInstruction(_)
        | Exit::Invept
        | Exit::Invvpid
        | Exit::Vmfunc
        | Exit::Getsec
        | Exit::Rsm
        | Exit::Mwait(_)
        | Exit::Monitor
        | Exit::Encls
        | Exit::Enclv
        | Exit::Pconfig
        | Exit::Loadiwkey
        | Exit::Seamcall
        | Exit::Tdcall => Outcome::Fault(GuestFault::Ud),
        Exit::EptMisconfiguration { gpa } => v.give_up(CrashReason::EptMisconfiguration { gpa }),
        Exit::TaskSwitch(switch) => task_switch::handle(v, switch),
        Exit::EntryFailure(failure) => invalid_guest_state(v, failure),
        other => unexpected(v, other),
    }
}

/// An interrupt for the host ended the guest's turn.
#[inline(never)]
fn host_interrupt(vector: Option<u8>) -> Outcome {
    match vector {
        Some(vector) => {
            platform::interrupt(vector);
            follow_up();
        }
        // The exit left it pending: let it in.
        None => interrupt_window(),
    }
    Outcome::Again
}

/// Takes the host's interrupts that are pending. The caller holds no lock.
pub fn interrupt_window() {
    vmx::cpu::idle::interrupt_window();
    follow_up();
}

/// Does what an interrupt's handler has left to do.
fn follow_up() {
    if percpu::current().id == 0 {
        console::poll();
    }
}

/// An NMI for the host ended the guest's turn.
fn host_nmi() -> Outcome {
    platform::nmi();
    Outcome::Again
}

/// VM entry refused the guest state.
#[inline(never)]
fn invalid_guest_state(v: &mut Running<'_>, failure: FailedEntry) -> Outcome {
    let rip = Gva::new(v.vmcs.read(field::GUEST_RIP));
    log::error!(
        "{}: vcpu{}: VM entry failed: {failure:?}",
        v.domain.name,
        v.vcpu.id
    );
    let qualification = v.vmcs.read(field::EXIT_QUALIFICATION);
    v.give_up(CrashReason::InvalidGuestState { rip, qualification })
}

/// An exit that the controls in use do not ask for.
#[inline(never)]
fn unexpected(v: &mut Running<'_>, exit: Exit) -> Outcome {
    let rip = Gva::new(v.vmcs.read(field::GUEST_RIP));
    log::error!("{}: vcpu{}: {exit:?}", v.domain.name, v.vcpu.id);
    let qualification = v.vmcs.read(field::EXIT_QUALIFICATION);
    let reason = (v.vmcs.read(field::EXIT_REASON) & 0xffff) as u16;
    v.give_up(CrashReason::UnexpectedExit {
        reason,
        qualification,
        rip,
    })
}
