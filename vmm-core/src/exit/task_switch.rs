//! Task switches: VMX leaves them whole to the hypervisor ([`crate::task`] does the work).

use abi::Gva;
use vmx::event::EventKind;
use vmx::exit::{TaskSource, TaskSwitch};
use vmx::vmcs::{SegmentName, field};

use super::{Outcome, cr};
use crate::bits::low32;
use crate::fault::GuestFault;
use crate::mm::guest_mem::{Access, AccessError, GuestMemory, Linear};
use crate::task::{self, Begun, Cause, Request, State};
use crate::vcpu::Running;
use crate::vcpu::access::SHADOW;

/// The segment registers in the order of [`task::Selectors`].
const SEGMENTS: [SegmentName; 6] = [
    SegmentName::Es,
    SegmentName::Cs,
    SegmentName::Ss,
    SegmentName::Ds,
    SegmentName::Fs,
    SegmentName::Gs,
];
/// CR0.TS, which every switch sets.
const TASK_SWITCHED: u64 = 1 << 3;
/// DR7.L0 to L3 and LE, which every switch clears.
const DR7_LOCAL: u64 = 0x155;
/// DR6.BT.
const DR6_TASK: u64 = 1 << 15;
/// Blocking by NMI.
const NMI_BLOCKED: u32 = 1 << 3;

/// Handles a task switch.
#[inline(never)]
pub(super) fn handle(v: &mut Running<'_>, exit: TaskSwitch) -> Outcome {
    let request = request(v, exit);
    let mut state = load_state(v);
    let begun = match task::switch(&mut TaskMemory(v), &mut state, &request) {
        Ok(begun) => begun,
        Err(fault) => return Outcome::Fault(fault),
    };
    store_state(v, &state);
    let event = v.cpu.pending.redeliver.take();
    let nmi = event.is_some_and(|event| event.kind == EventKind::Nmi);
    let blocking = v.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE);
    let blocking = match request.cause {
        Cause::Iret => blocking & !(SHADOW | NMI_BLOCKED),
        Cause::Event { .. } if nmi => blocking & !SHADOW | NMI_BLOCKED,
        Cause::Call | Cause::Jmp | Cause::Event { .. } => blocking & !SHADOW,
    };
    v.vmcs.write(field::GUEST_INTERRUPTIBILITY_STATE, blocking);
    v.vmcs.write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    match begun {
        Begun::Clean => Outcome::Again,
        Begun::Trap => Outcome::Fault(GuestFault::Db { dr6: DR6_TASK }),
        Begun::Fault(fault) => Outcome::Fault(fault),
    }
}

/// What is asked for, from the exit and the event that it cut short.
fn request(v: &Running<'_>, exit: TaskSwitch) -> Request {
    let event = v.cpu.pending.redeliver;
    let asked_for = |kind| matches!(kind, EventKind::SoftInt | EventKind::SoftException);
    let (cause, by_instruction) = match exit.source {
        TaskSource::Call => (Cause::Call, true),
        TaskSource::Jmp => (Cause::Jmp, true),
        TaskSource::Iret => (Cause::Iret, true),
        TaskSource::Gate => {
            let cause = Cause::Event {
                external: !event.is_some_and(|event| asked_for(event.kind)),
                error: event.and_then(|event| event.error),
            };
            (cause, event.is_some_and(|event| event.kind.is_software()))
        }
    };
    let rip = v.vmcs.read(field::GUEST_RIP);
    let length = if by_instruction {
        u64::from(v.vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH))
    } else {
        0
    };
    Request {
        selector: exit.selector,
        cause,
        return_eip: low32(rip.wrapping_add(length)),
    }
}

fn load_state(v: &Running<'_>) -> State {
    State {
        eip: low32(v.vmcs.read(field::GUEST_RIP)),
        eflags: low32(v.vmcs.read(field::GUEST_RFLAGS)),
        general: [0, 1, 2, 3, 4, 5, 6, 7].map(|number| low32(v.gpr(number))),
        segments: SEGMENTS.map(|name| v.vmcs.segment(name)),
        ldtr: v.vmcs.segment(SegmentName::Ldtr),
        tr: v.vmcs.segment(SegmentName::Tr),
        gdt_base: low32(v.vmcs.read(field::GUEST_GDTR_BASE)),
        gdt_limit: v.vmcs.read(field::GUEST_GDTR_LIMIT),
    }
}

fn store_state(v: &mut Running<'_>, state: &State) {
    v.vmcs.write(field::GUEST_RIP, u64::from(state.eip));
    v.vmcs.write(field::GUEST_RFLAGS, u64::from(state.eflags));
    for (number, value) in (0..).zip(state.general) {
        v.set_gpr(number, u64::from(value));
    }
    for (name, segment) in SEGMENTS.into_iter().zip(state.segments) {
        v.vmcs.set_segment(name, segment);
    }
    v.vmcs.set_segment(SegmentName::Ldtr, state.ldtr);
    v.vmcs.set_segment(SegmentName::Tr, state.tr);
    let cr0 = v.vmcs.read(field::GUEST_CR0);
    v.vmcs.write(field::GUEST_CR0, cr0 | TASK_SWITCHED);
    let dr7 = v.vmcs.read(field::GUEST_DR7);
    v.vmcs.write(field::GUEST_DR7, dr7 & !DR7_LOCAL);
}

/// The guest's memory, as its processor accesses it in the middle of a switch.
struct TaskMemory<'a, 'b>(&'a mut Running<'b>);

impl TaskMemory<'_, '_> {
    fn linear(&self, cpl: u8, ac: bool) -> Linear {
        let read = |f| self.0.vmcs.read(f);
        let (cr0, cr3, cr4) = (
            read(field::GUEST_CR0),
            read(field::GUEST_CR3),
            read(field::GUEST_CR4),
        );
        Linear::new(cr0, cr3, cr4, self.0.efer(), cpl).with_smap(ac)
    }

    /// Accesses to the system's own tables are at supervisor level, and EFLAGS.AC does not lift
    /// SMAP for them.
    fn system(&self) -> Linear {
        self.linear(0, false)
    }

    fn write_as(&self, linear: &Linear, at: u32, bytes: &[u8]) -> Result<(), GuestFault> {
        let p2m = self.0.domain.p2m.read();
        let written = GuestMemory::new(&p2m, &self.0.cpu.pages).write_linear(
            linear,
            Gva::new(at.into()),
            bytes,
        );
        or_nowhere(written).map(drop)
    }
}

/// What goes to no memory is lost.
fn or_nowhere<T>(result: Result<T, AccessError>) -> Result<Option<T>, GuestFault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(AccessError::NotMemory(_)) => Ok(None),
        Err(AccessError::Fault(fault)) => Err(fault),
    }
}

impl task::Memory for TaskMemory<'_, '_> {
    fn read(&self, at: u32, bytes: &mut [u8]) -> Result<(), GuestFault> {
        let p2m = self.0.domain.p2m.read();
        let at = Gva::new(at.into());
        let read = GuestMemory::new(&p2m, &self.0.cpu.pages).read_linear(
            &self.system(),
            at,
            bytes,
            Access::READ,
        );
        if or_nowhere(read)?.is_none() {
            bytes.fill(0xff);
        }
        Ok(())
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), GuestFault> {
        self.write_as(&self.system(), at, bytes)
    }

    fn check_write(&self, at: u32, length: usize) -> Result<(), GuestFault> {
        let p2m = self.0.domain.p2m.read();
        let memory = GuestMemory::new(&p2m, &self.0.cpu.pages);
        let last = u32::try_from(length.saturating_sub(1)).unwrap_or(0);
        for at in [at, at.wrapping_add(last)] {
            let at = Gva::new(at.into());
            or_nowhere(self.system().translate(&memory, at, Access::WRITE))?;
        }
        Ok(())
    }

    fn push(&mut self, at: u32, bytes: &[u8], cpl: u8, ac: bool) -> Result<(), GuestFault> {
        self.write_as(&self.linear(cpl, ac), at, bytes)
    }

    fn load_cr3(&mut self, cr3: u32) -> bool {
        cr::switch_page_tables(self.0, cr3)
    }
}
