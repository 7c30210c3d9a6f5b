//! What VM entry and exit leave alone and the hypervisor never uses: x87, SSE and AVX registers,
//! the SYSCALL MSRs, debug registers, last-branch records, CR2.
//!
//! It stays in the CPU while the same vCPU comes and goes, and is exchanged only when another
//! vCPU gets the pCPU. The hypervisor itself is built without SSE, so no exit has to save any
//! of it.
#![expect(unsafe_code, reason = "loads a guest's registers into the CPU")]

use heapless::Vec;
use vmx::cpu::dr::DebugRegs;
use vmx::cpu::last_branch::Stack;
use vmx::cpu::{cr, fpu, msr};

use super::context::CpuContext;
use super::last_branch::LastBranches;
use crate::domain::VcpuRef;
use crate::machine;
use crate::percpu::PerCpu;

/// XCR0 after a reset: x87 alone.
const XCR0_RESET: u64 = 1;
/// The most MSRs that are exchanged with a vCPU.
const MAX_MSRS: usize = 8;

/// A vCPU's registers can be in the CPU; on a host, where tests run, they never are.
pub(super) const LOADABLE: bool = cfg!(target_os = "none");

/// A vCPU's state outside the VMCS, as of when it last left its pCPU.
#[derive(Debug)]
pub struct ExtState {
    area: fpu::XsaveArea,
    /// XCR0 as the guest set it.
    xcr0: u64,
    /// MSRs that the guest reaches without an exit and no VMCS field holds, with their values.
    msrs: Vec<(u32, u64), MAX_MSRS>,
    debug: DebugRegs,
    /// Of a vCPU that has used any.
    last_branches: Option<LastBranches>,
    cr2: u64,
}

impl ExtState {
    /// The state after a reset, with the MSRs to exchange; `None` when memory is short.
    #[must_use]
    pub fn new(msrs: impl Iterator<Item = u32>) -> Option<Self> {
        Some(Self {
            area: fpu::XsaveArea::new()?,
            xcr0: XCR0_RESET,
            msrs: msrs.map(|msr| (msr, 0)).collect(),
            debug: DebugRegs::RESET,
            last_branches: None,
            cr2: 0,
        })
    }

    /// XCR0 as the guest set it.
    #[must_use]
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Sets XCR0, checked before, for the vCPU whose state is loaded.
    pub fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
        if LOADABLE {
            fpu::xsetbv(value);
        }
    }

    /// Sets CR2, for the vCPU whose state is loaded.
    pub fn set_cr2(&mut self, value: u64) {
        if LOADABLE {
            cr::write_cr2(value);
        } else {
            self.cr2 = value;
        }
    }

    /// CR2, of the vCPU whose state is loaded.
    #[must_use]
    pub fn cr2(&self) -> u64 {
        if LOADABLE { cr::read_cr2() } else { self.cr2 }
    }

    /// DR6, of the vCPU whose state is loaded.
    #[must_use]
    pub fn dr6(&self) -> u64 {
        self.debug_registers().dr6
    }

    /// PKRU, of the vCPU whose state is loaded; 0, which denies nothing, where there is none.
    #[must_use]
    pub fn pkru(&self) -> u32 {
        if LOADABLE { fpu::pkru() } else { 0 }
    }

    /// Changes DR6, for the vCPU whose state is loaded.
    pub fn update_dr6(&mut self, change: impl FnOnce(u64) -> u64) {
        let mut debug = self.debug_registers();
        debug.dr6 = change(debug.dr6);
        self.set_debug_registers(debug);
    }

    /// Gives the vCPU whose state is loaded last-branch records, if it has none yet; `None` when
    /// memory is short. From then on they are exchanged like the rest.
    pub fn use_last_branches(&mut self, stack: &'static Stack) -> Option<()> {
        if self.last_branches.is_none() {
            let new = LastBranches::new(stack)?;
            if LOADABLE {
                // What another vCPU has left is none of this one's business.
                new.load();
            }
            self.last_branches = Some(new);
        }
        Some(())
    }

    /// A register of the last-branch records, of the vCPU whose state is loaded.
    #[must_use]
    pub fn last_branch(&self, msr: u32) -> u64 {
        let records = self.last_branches.as_ref();
        records.map_or(0, |records| records.read(msr))
    }

    /// Writes such a register; `None` when memory is short or the CPU does not take the value.
    pub fn set_last_branch(&mut self, stack: &'static Stack, msr: u32, value: u64) -> Option<()> {
        self.use_last_branches(stack)?;
        self.last_branches.as_mut()?.write(msr, value)
    }

    fn debug_registers(&self) -> DebugRegs {
        if LOADABLE {
            DebugRegs::save()
        } else {
            self.debug
        }
    }

    fn set_debug_registers(&mut self, debug: DebugRegs) {
        if LOADABLE {
            debug.load();
        } else {
            self.debug = debug;
        }
    }

    /// Back to the values of INIT, which leaves x87 to AVX alone (SDM 3A, "IA-32 Processor
    /// States Following Power-up, Reset, or INIT"), for the vCPU whose state is loaded.
    pub fn init(&mut self) {
        self.set_debug_registers(DebugRegs::RESET);
        self.set_cr2(0);
    }

    fn save(&mut self) {
        self.area.save_guest();
        for (msr, value) in &mut self.msrs {
            // SAFETY: the guest is offered the MSR, so the CPU has it.
            *value = unsafe { msr::read(*msr) };
        }
        self.debug = DebugRegs::save();
        if let Some(records) = &mut self.last_branches {
            records.save();
        }
        self.cr2 = cr::read_cr2();
    }

    fn load(&self) {
        self.area.restore_guest(self.xcr0);
        for (msr, value) in &self.msrs {
            // SAFETY: the CPU has the MSR, the hypervisor does not use it, and its value came
            // from the guest's own accesses, which the CPU checked.
            unsafe { msr::write(*msr, *value) };
        }
        self.debug.load();
        if let Some(records) = &self.last_branches {
            records.load();
        }
        cr::write_cr2(self.cr2);
    }
}

/// Has the pCPU hold this vCPU's state, saving that of the vCPU it held before.
pub fn switch_to(cpu: &PerCpu, vcpu: &VcpuRef, state: &mut CpuContext) {
    let mut loaded = cpu.loaded.lock();
    if loaded.as_ref().is_some_and(|holder| holder.is(vcpu)) {
        return;
    }
    if let Some(holder) = loaded.take() {
        holder.context.lock().cpu.ext.save();
    }
    machine::get().mitigations.on_vcpu_switch();
    state.ext.load();
    *loaded = Some(vcpu.clone());
}

/// Saves this vCPU's state if the pCPU still holds it, so that another pCPU can load it.
pub fn release(cpu: &PerCpu, vcpu: &VcpuRef, state: &mut CpuContext) {
    let mut loaded = cpu.loaded.lock();
    if loaded.as_ref().is_some_and(|holder| holder.is(vcpu)) {
        state.ext.save();
        *loaded = None;
    }
}

/// Drops the state of a vCPU that will not run again.
pub fn forget(cpu: &PerCpu, vcpu: &VcpuRef) {
    let mut loaded = cpu.loaded.lock();
    if loaded.as_ref().is_some_and(|holder| holder.is(vcpu)) {
        *loaded = None;
    }
}
