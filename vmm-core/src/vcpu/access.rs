//! A running vCPU's registers and memory, as its exit handlers use them.

use abi::{Errno, Gpa, Gva};
use vmx::vmcs::field;

use super::Running;
use crate::exit::cr::{self, cr4, efer};
use crate::exit::{Next, Outcome};
use crate::fault::{CrashReason, GuestFault};
use crate::mm::guest_mem::{Access, AccessError, GuestMemory, Kernel, Linear};
use crate::policy::msr::DEBUGCTL_BTF;

/// Encoding number of RSP.
const RSP: u8 = vmx::RSP;
/// CR0.PG.
const PAGING: u64 = 1 << 31;
/// RFLAGS.AC.
const ALIGNMENT_CHECK: u64 = 1 << 18;
/// RFLAGS.TF.
pub(crate) const TRAP_FLAG: u64 = 1 << 8;
/// Blocking by STI and by MOV SS (SDM 3C, "Guest Non-Register State").
pub(crate) const SHADOW: u32 = 0x3;
/// "BS" of the pending debug exceptions: a single-step trap.
const PENDING_SINGLE_STEP: u64 = 1 << 14;
/// "L" of the access rights of CS.
const ACCESS_LONG: u32 = 1 << 13;
/// The privilege level of a segment, in its access rights.
const ACCESS_DPL: u32 = 3 << 5;
/// "C" of the access rights of CS: code of a conforming segment keeps its caller's level.
const ACCESS_CONFORMING: u32 = 1 << 2;

impl Running<'_> {
    /// A general-purpose register by its encoding number.
    #[must_use]
    pub fn gpr(&self, number: u8) -> u64 {
        if number == RSP {
            return self.vmcs.read(field::GUEST_RSP);
        }
        self.cpu.regs.gpr(number).unwrap_or(0)
    }

    /// Writes a general-purpose register by its encoding number.
    pub fn set_gpr(&mut self, number: u8, value: u64) {
        if number == RSP {
            self.vmcs.write(field::GUEST_RSP, value);
        } else {
            let _ = self.cpu.regs.set_gpr(number, value);
        }
    }

    /// CR0 as the guest sees it.
    #[must_use]
    pub fn cr0(&self) -> u64 {
        let real = self.vmcs.read(field::GUEST_CR0);
        let shadow = self.vmcs.read(field::CR0_READ_SHADOW);
        (real & !cr::CR0_OWNED) | (shadow & cr::CR0_OWNED)
    }

    /// CR4 as the guest sees it.
    #[must_use]
    pub fn cr4(&self) -> u64 {
        let real = self.vmcs.read(field::GUEST_CR4);
        let shadow = self.vmcs.read(field::CR4_READ_SHADOW);
        let owned = !self.cpu.cr4_allowed;
        (real & !owned) | (shadow & owned)
    }

    /// The privilege level the guest runs at.
    #[must_use]
    pub fn cpl(&self) -> u8 {
        (self.vmcs.read(field::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3) as u8
    }

    /// True while the guest runs 64-bit code.
    #[must_use]
    pub fn is_64bit_code(&self) -> bool {
        // CS.L counts only in IA-32e mode, outside which it is never set by a loader that
        // follows the manual; 64-bit callers are told apart with no further VMREAD.
        self.vmcs.read(field::GUEST_CS_ACCESS_RIGHTS) & ACCESS_LONG != 0
    }

    /// True for 64-bit code at privilege level 0, false for most other code: that of a conforming
    /// segment, whose level the segment does not tell, is among it.
    ///
    /// The level of other code is that of its segment (SDM 3A, "Privilege Level Checking When
    /// Transferring Program Control Between Code Segments").
    #[inline(always)]
    #[must_use]
    pub fn is_64bit_supervisor(&self) -> bool {
        let rights = self.vmcs.read(field::GUEST_CS_ACCESS_RIGHTS);
        rights & (ACCESS_LONG | ACCESS_DPL | ACCESS_CONFORMING) == ACCESS_LONG
    }

    /// IA32_EFER. The CPU keeps LMA equal to LME while paging is on, so that the VMCS, where a
    /// nested hypervisor would pay for the read, need not be asked.
    #[must_use]
    pub fn efer(&self) -> u64 {
        self.efer_under(self.vmcs.read(field::GUEST_CR0))
    }

    /// IA32_EFER while CR0 has this value.
    const fn efer_under(&self, cr0: u64) -> u64 {
        let active = cr0 & PAGING != 0;
        let long = self.cpu.efer & efer::LME != 0;
        self.cpu.efer | if active && long { efer::LMA } else { 0 }
    }

    /// How a guest in 64-bit mode translates linear addresses now, at supervisor level, as far as
    /// not only [`Running::supervisor_linear`] can tell.
    #[inline(always)]
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        Kernel {
            cr3: self.vmcs.read(field::GUEST_CR3),
            cr4: self.vmcs.read(field::GUEST_CR4),
            efer: self.cpu.efer,
        }
    }

    /// How the guest translates linear addresses now, at supervisor level: that is how hypercalls
    /// find their arguments, held to SMAP and protection keys like the guest's own kernel.
    #[must_use]
    pub fn supervisor_linear(&self) -> Linear {
        self.linear(0)
    }

    /// How the instruction at hand has its addresses translated.
    #[must_use]
    pub fn instruction_linear(&self) -> Linear {
        self.linear(self.cpl())
    }

    /// The bits that translation looks at are the guest's own, so the registers themselves serve
    /// and their read shadows need not be asked.
    fn linear(&self, cpl: u8) -> Linear {
        let cr0 = self.vmcs.read(field::GUEST_CR0);
        let cr3 = self.vmcs.read(field::GUEST_CR3);
        let cr4 = self.vmcs.read(field::GUEST_CR4);
        let linear = Linear::new(cr0, cr3, cr4, self.efer_under(cr0), cpl);
        if cr4 & (cr4::SMAP | cr4::PKE) == 0 {
            return linear;
        }
        let smap_off = self.vmcs.read(field::GUEST_RFLAGS) & ALIGNMENT_CHECK != 0;
        let keys = if cr4 & cr4::PKE == 0 {
            0
        } else {
            self.cpu.ext.pkru()
        };
        linear.with_smap(smap_off).with_protection_keys(keys)
    }

    /// Reads guest-physical memory.
    ///
    /// # Errors
    /// [`Errno::Efault`] when it is not all RAM.
    pub fn read_gpa(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        let p2m = self.domain.p2m.read();
        GuestMemory::new(&p2m, &self.cpu.pages).read_gpa(gpa, bytes)
    }

    /// Reads memory as the 64-bit instruction at hand would, if that is a kernel's and there is
    /// nothing to it; else false, and nothing is read.
    #[inline]
    pub fn read_straight(&self, at: Gva, bytes: &mut [u8], access: Access) -> bool {
        if !self.is_64bit_supervisor() {
            return false;
        }
        self.cpu.pages.look_anew();
        let p2m = self.domain.p2m.read();
        let memory = GuestMemory::new(&p2m, &self.cpu.pages);
        let found = memory.kernel_window(at, bytes.len(), access, || self.kernel());
        if let Some((page, offset)) = found {
            page.read(offset, bytes);
        }
        found.is_some()
    }

    /// Writes memory as the instruction at hand would, at the guest's own privilege. What goes
    /// to no memory is lost.
    ///
    /// # Errors
    /// The fault to raise.
    pub fn write_linear(&self, at: Gva, bytes: &[u8]) -> Result<(), GuestFault> {
        let p2m = self.domain.p2m.read();
        let linear = self.instruction_linear();
        match GuestMemory::new(&p2m, &self.cpu.pages).write_linear(&linear, at, bytes) {
            Ok(()) | Err(AccessError::NotMemory(_)) => Ok(()),
            Err(AccessError::Fault(fault)) => Err(fault),
        }
    }

    /// Reads memory as the instruction at hand would, at the guest's own privilege. Where there
    /// is no memory, all ones are read.
    ///
    /// # Errors
    /// The fault to raise.
    pub fn read_linear(&self, at: Gva, bytes: &mut [u8], access: Access) -> Result<(), GuestFault> {
        let p2m = self.domain.p2m.read();
        let linear = self.instruction_linear();
        match GuestMemory::new(&p2m, &self.cpu.pages).read_linear(&linear, at, bytes, access) {
            Ok(()) => Ok(()),
            Err(AccessError::NotMemory(_)) => {
                bytes.fill(0xff);
                Ok(())
            }
            Err(AccessError::Fault(fault)) => Err(fault),
        }
    }

    /// Ends the domain for this reason.
    #[cold]
    pub fn give_up(&mut self, reason: CrashReason) -> Outcome {
        self.cpu.crash = Some(reason);
        Outcome::Then(Next::Crash)
    }

    /// Completes or faults the instruction that exited, and says what the vCPU does next.
    #[inline]
    pub fn finish(&mut self, outcome: Outcome) -> Next {
        match outcome {
            Outcome::Done => {
                self.advance();
                Next::Resume
            }
            Outcome::Again => Next::Resume,
            Outcome::Fault(fault) => {
                self.raise(fault);
                Next::Resume
            }
            Outcome::DoneThen(next) => {
                self.advance();
                next
            }
            Outcome::Then(next) => next,
        }
    }

    /// Moves RIP past the instruction that exited, as if it had executed: the interrupt shadow
    /// of an STI or MOV SS before it ends, and a single step traps.
    #[inline(always)]
    pub fn advance(&mut self) {
        let length = self.vmcs.read_extended(field::VM_EXIT_INSTRUCTION_LENGTH);
        let rip = self.vmcs.read(field::GUEST_RIP);
        let mut next = rip.wrapping_add(length);
        if (rip ^ next) >> 32 != 0 {
            next = self.within_width(next);
        }
        self.complete_at(next);
    }

    /// Like [`Running::advance`], to a place known already, which is within the code's width.
    #[inline]
    pub fn advance_to(&mut self, rip: u64) {
        self.complete_at(rip);
    }

    /// Outside 64-bit mode the instruction pointer wraps at 32 bits.
    #[inline(never)]
    fn within_width(&self, rip: u64) -> u64 {
        if self.is_64bit_code() {
            rip
        } else {
            rip & 0xffff_ffff
        }
    }

    #[inline(always)]
    fn complete_at(&mut self, rip: u64) {
        self.vmcs.write(field::GUEST_RIP, rip);
        let state = self.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE);
        if state & SHADOW != 0 {
            self.end_shadow(state);
        }
        if self.vmcs.read(field::GUEST_RFLAGS) & TRAP_FLAG != 0 {
            self.pend_single_step();
        }
    }

    #[cold]
    #[inline(never)]
    fn end_shadow(&mut self, state: u32) {
        self.vmcs
            .write(field::GUEST_INTERRUPTIBILITY_STATE, state & !SHADOW);
    }

    /// Has a single step trap before the guest's next instruction, with RFLAGS.TF set; unless
    /// IA32_DEBUGCTL.BTF leaves that to branches, which no instruction is that exits (SDM 3B,
    /// "Single-Stepping on Branches").
    #[cold]
    #[inline(never)]
    pub fn pend_single_step(&mut self) {
        if self.vmcs.read(field::GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF != 0 {
            return;
        }
        let pending = self.vmcs.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
        self.vmcs.write(
            field::GUEST_PENDING_DEBUG_EXCEPTIONS,
            pending | PENDING_SINGLE_STEP,
        );
    }

    /// The CR8 that the guest sees: its local APIC's task priority.
    #[must_use]
    pub fn cr8(&self) -> u64 {
        self.cpu.lapic.cr8()
    }

    /// A write to CR8.
    ///
    /// # Errors
    /// #GP for values above 15.
    pub fn set_cr8(&mut self, value: u64) -> Result<(), GuestFault> {
        if value > 15 {
            return Err(GuestFault::GP0);
        }
        self.cpu.lapic.set_cr8(value);
        Ok(())
    }
}
