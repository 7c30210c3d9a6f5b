//! A guest whose exits a test makes up.
#![expect(clippy::expect_used, clippy::panic, reason = "tests, on a host")]

use alloc::sync::Arc;

use abi::{DomId, Gpa, VcpuId};
use vmx::GuestRegs;
use vmx::exit::{Exit, Plain};
use vmx::vmcs::field;

use super::TestMachine;
use crate::domain::{Domain, ShutdownReason, VcpuRef, build, lifecycle};
use crate::evtchn::VcpuSet;
use crate::exit::{self, Next};
use crate::mm::guest_mem::GuestMemory;
use crate::mm::p2m::PageCache;
use crate::percpu;
use crate::start;
use crate::vcpu::{InitialState, RunState, Running, initial, refs};

/// Where a guest's instructions are.
pub const CODE: u64 = 0x2000;
/// Where its stack is.
pub const STACK: u64 = 0x4000;
/// The tables that map the first 2 MiB to themselves.
const TABLES: [u64; 3] = [0x5000, 0x6000, 0x7000];
/// Times that a call is repeated.
const PATIENCE: u32 = 100_000;

/// Long mode and its code segment, as a 64-bit kernel has them.
const CODE64: u16 = 0xa9b;
const PROTECTED_PAGED: u64 = 1 << 31 | 1 << 16 | 1 << 5 | 0x11;
const PAE: u64 = 1 << 5;
const LONG: u64 = 1 << 8 | 1 << 10;

/// A domain, and what its guest does.
#[derive(Debug)]
pub struct Guest<'m> {
    machine: &'m TestMachine,
    /// The domain.
    pub domain: Arc<Domain>,
}

impl<'m> Guest<'m> {
    /// A guest with an id that no other has; all of its vCPUs run, the first in 64-bit code, the
    /// others in 32-bit code without paging.
    ///
    /// # Errors
    /// As [`build::create`].
    pub fn new(machine: &'m TestMachine, id: u16) -> Result<Self, build::CreateError> {
        Self::described(machine, 0, id)
    }

    /// The same with a disk and a network interface, whose address is that in
    /// [`MACS`](super::MACS) at `number`.
    ///
    /// # Errors
    /// As [`build::create`].
    pub fn with_devices(
        machine: &'m TestMachine,
        number: usize,
        id: u16,
    ) -> Result<Self, build::CreateError> {
        Self::described(machine, 1 + number, id)
    }

    fn described(
        machine: &'m TestMachine,
        number: usize,
        id: u16,
    ) -> Result<Self, build::CreateError> {
        let domain = build::create_as(number, DomId(id), &mut machine.breaks())?;
        let guest = Self { machine, domain };
        // It waits for its turn.
        guest.take_from_queue();
        for vcpu in refs(&guest.domain) {
            let state = if vcpu.id.0 == 0 {
                guest.make_tables();
                long_mode()
            } else {
                InitialState::pvh(0x2000, 0)
            };
            vcpu.start(state);
            guest.take_from_queue();
            guest.prepare(&vcpu);
        }
        Ok(guest)
    }

    fn make_tables(&self) {
        let [top, middle, bottom] = TABLES;
        for (table, entry) in [(top, middle | 3), (middle, bottom | 3), (bottom, 0x83)] {
            self.write(table, &entry.to_le_bytes());
        }
    }

    fn prepare(&self, vcpu: &VcpuRef) {
        vcpu.context.lock().cpu.info.clone_from(&vcpu.info.lock());
        self.on(vcpu.id.0, |_| Next::Resume);
    }

    /// Takes vCPUs that have become ready, as a pCPU that lets all of them run at once would.
    fn take_from_queue(&self) {
        loop {
            let next = percpu::current().run_queue.lock().ready.pop();
            let Some(vcpu) = next else { return };
            vcpu.transition(RunState::Runnable, RunState::Running);
        }
    }

    /// True as long as its domain has not ended.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.domain.life.ending().is_none()
    }

    /// Writes its memory; false where that is not all RAM.
    pub fn write(&self, at: u64, bytes: &[u8]) -> bool {
        let p2m = self.domain.p2m.read();
        let pages = PageCache::new();
        let memory = GuestMemory::new(&p2m, &pages);
        memory.write_gpa(Gpa::new(at), bytes).is_ok()
    }

    /// Reads its memory; false where that is not all RAM.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> bool {
        let p2m = self.domain.p2m.read();
        let pages = PageCache::new();
        let memory = GuestMemory::new(&p2m, &pages);
        memory.read_gpa(Gpa::new(at), bytes).is_ok()
    }

    /// Has a vCPU make a hypercall, again and again until it is complete; `None` when the vCPU
    /// does not run or the call ended its domain. The first vCPU calls from 64-bit code.
    ///
    /// # Panics
    /// When the call goes on for ever.
    pub fn hypercall(&self, vcpu: u32, number: u64, args: [u64; 5]) -> Option<u64> {
        const LENGTH: u32 = 3;
        let wide = vcpu == 0;
        self.on(vcpu, |v| {
            v.vmcs.write(field::GUEST_RIP, CODE);
            v.vmcs
                .set_exit_field(field::VM_EXIT_INSTRUCTION_LENGTH, LENGTH);
            let regs = &mut v.cpu.regs;
            regs.rax = number;
            if wide {
                [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8] = args;
            } else {
                [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi] = args;
            }
            Next::Resume
        })?;
        for _ in 0..PATIENCE {
            let (rip, result) = self.on_with(vcpu, |v| {
                let next = exit::handle_plain(v, Plain::Vmcall);
                (next, (v.vmcs.read(field::GUEST_RIP), v.cpu.regs.rax))
            })?;
            if rip != CODE {
                return Some(result);
            }
        }
        panic!("hypercall {number} {args:x?} has no end");
    }

    /// Has a vCPU exit for another reason, with these registers, at the instruction at [`CODE`].
    /// `None` as for [`Guest::hypercall`].
    pub fn exit(&self, vcpu: u32, regs: &GuestRegs, exit: Exit) -> Option<()> {
        self.on(vcpu, |v| {
            v.cpu.regs = *regs;
            v.vmcs.write(field::GUEST_RIP, CODE);
            v.vmcs.write(field::GUEST_RSP, STACK);
            v.vmcs.set_exit_field(field::VM_EXIT_INSTRUCTION_LENGTH, 2);
            exit::handle(v, exit)
        })
    }

    fn on(&self, vcpu: u32, act: impl FnOnce(&mut Running<'_>) -> Next) -> Option<()> {
        self.on_with(vcpu, |v| (act(v), ()))
    }

    /// Lets a running vCPU do something; then it does what others have asked of it.
    fn on_with<T>(&self, vcpu: u32, act: impl FnOnce(&mut Running<'_>) -> (Next, T)) -> Option<T> {
        let vcpu = VcpuRef::new(&self.domain, VcpuId(vcpu))?;
        if !self.lives() || vcpu.state() != RunState::Running {
            return None;
        }
        let mut guard = vcpu.context.lock();
        let context = &mut *guard;
        let mut running = Running {
            domain: &self.domain,
            vcpu: &vcpu,
            shared: &vcpu,
            alone: VcpuSet::one(vcpu.id),
            vmcs: context.vmcs.load(&self.machine.vmx),
            cpu: &mut context.cpu,
            attention: &percpu::current().attention,
        };
        let (next, result) = act(&mut running);
        if next == Next::Crash
            && let Some(reason) = running.cpu.crash.take()
        {
            self.domain.crash(&reason);
        }
        running.cpu.triple_fault = false;
        let stops = running.settle() || next == Next::Offline;
        drop(running);
        drop(guard);
        if stops && self.lives() {
            vcpu.go_offline();
        }
        self.take_from_queue();
        Some(result)
    }

    /// Ends the domain and frees what it has.
    ///
    /// # Panics
    /// When a vCPU does not leave.
    pub fn end(self) {
        self.domain.shut_down(ShutdownReason::Poweroff);
        self.take_from_queue();
        for vcpu in refs(&self.domain) {
            vcpu.context.lock().vmcs.clear(&self.machine.vmx);
            if vcpu.transition(RunState::Running, RunState::Dead) {
                lifecycle::vcpu_left(&self.domain);
            }
        }
        drop(self.domain);
        let ended = lifecycle::take_ended();
        start::free(
            ended.expect("all vCPUs have left"),
            &mut self.machine.breaks(),
        );
    }
}

/// A 64-bit kernel, with its tables at [`TABLES`].
fn long_mode() -> InitialState {
    let state = InitialState::pvh(0x2000, 0);
    InitialState {
        cr0: PROTECTED_PAGED,
        cr3: TABLES[0],
        cr4: PAE,
        efer: LONG,
        cs: initial::flat(CODE64),
        ..state
    }
}
