//! RDMSR, WRMSR and CPUID: carries out what [`crate::policy`] says.

use abi::{Errno, Gfn, PAGE_SIZE};
use vmx::vmcs::field;

use super::{Outcome, ipi};
use crate::bits::low32;
use crate::fault::GuestFault;
use crate::hypercall;
use crate::mm::guest_mem::GuestMemory;
use crate::policy::cpuid::VcpuView;
use crate::policy::msr::{Read, Write, efer};
use crate::time::Tsc;
use crate::vcpu::Running;

/// CR0.PG.
const PAGING: u64 = 1 << 31;
/// Bytes of one stub of the hypercall page.
const STUB_SIZE: usize = 32;
/// The hypercall whose stub must not be called by guests of this kind (`__HYPERVISOR_iret`).
const IRET: usize = 23;

/// RDMSR.
pub fn read(v: &mut Running<'_>) -> Outcome {
    let msr = low32(v.cpu.regs.rcx);
    match value_of(v, msr) {
        Ok(value) => {
            v.cpu.regs.rax = value & 0xffff_ffff;
            v.cpu.regs.rdx = value >> 32;
            Outcome::Done
        }
        Err(fault) => Outcome::Fault(fault),
    }
}

fn value_of(v: &mut Running<'_>, msr: u32) -> Result<u64, GuestFault> {
    match v.domain.msrs.read(&v.cpu.msrs, msr)? {
        Read::Value(value) => Ok(value),
        Read::LocalApic => {
            let now = v.cpu.guest_tsc(Tsc::now());
            v.cpu.lapic.msr_read(msr, now)
        }
        Read::DebugCtl => Ok(v.vmcs.read(field::GUEST_IA32_DEBUGCTL)),
        Read::LastBranch => Ok(v.cpu.ext.last_branch(msr)),
    }
}

/// WRMSR.
#[inline(never)]
pub fn write(v: &mut Running<'_>) -> Outcome {
    let msr = low32(v.cpu.regs.rcx);
    let value = v.cpu.regs.rdx << 32 | v.cpu.regs.rax & 0xffff_ffff;
    set(v, msr, value).into()
}

fn set(v: &mut Running<'_>, msr: u32, value: u64) -> Result<(), GuestFault> {
    match v.domain.msrs.write(&mut v.cpu.msrs, msr, value)? {
        Write::Done => {}
        Write::LocalApic => {
            let now = v.cpu.guest_tsc(Tsc::now());
            let actions = v.cpu.lapic.msr_write(msr, value, now)?;
            ipi::perform(v, actions);
        }
        Write::Efer => {
            let current = v.efer();
            let paging = v.vmcs.read(field::GUEST_CR0) & PAGING != 0;
            let efer = v.domain.msrs.efer(value, current, paging)?;
            v.cpu.efer = efer & !efer::LMA;
            v.vmcs.write(field::GUEST_IA32_EFER, efer);
        }
        Write::Tsc => {
            let offset = value.wrapping_sub(Tsc::now().0);
            v.cpu.set_tsc_offset(offset);
            v.vmcs.write(field::TSC_OFFSET, offset);
            v.domain.set_tsc_offset(v.vcpu, offset);
        }
        Write::DebugCtl(value) => v.vmcs.write(field::GUEST_IA32_DEBUGCTL, value),
        Write::RecordBranches(stack, value) => {
            v.cpu.ext.use_last_branches(stack).ok_or(GuestFault::GP0)?;
            v.vmcs.write(field::GUEST_IA32_DEBUGCTL, value);
        }
        Write::LastBranch(stack) => {
            let written = v.cpu.ext.set_last_branch(stack, msr, value);
            written.ok_or(GuestFault::GP0)?;
        }
        Write::HypercallPage(gfn) => {
            fill_hypercall_page(v, gfn).map_err(|_| GuestFault::GP0)?;
            hypercall::latch_width(v.domain, v.is_64bit_code());
        }
    }
    Ok(())
}

/// Fills a guest page with a stub for each hypercall: `mov $number, %eax; vmcall; ret`.
#[inline(never)]
fn fill_hypercall_page(v: &Running<'_>, gfn: Gfn) -> Result<(), Errno> {
    let mut page = [0xcc; PAGE_SIZE];
    for (number, stub) in page.chunks_exact_mut(STUB_SIZE).enumerate() {
        let code = if number == IRET {
            // UD2.
            [0x0f, 0x0b, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc]
        } else {
            let [low, high, ..] = number.to_le_bytes();
            [0xb8, low, high, 0, 0, 0x0f, 0x01, 0xc1, 0xc3]
        };
        if let Some(start) = stub.first_chunk_mut() {
            *start = code;
        }
    }
    let p2m = v.domain.p2m.read();
    if gfn >= p2m.gfn_end() {
        return Err(Errno::Einval);
    }
    GuestMemory::new(&p2m, &v.cpu.pages).write_gpa(gfn.gpa(), &page)
}

impl Running<'_> {
    /// CPUID.
    #[inline]
    pub fn cpuid(&mut self) -> Outcome {
        if self.cpu.msrs.cpuid_faulting() && self.cpl() != 0 {
            return Outcome::Fault(GuestFault::GP0);
        }
        let leaf = low32(self.cpu.regs.rax);
        let subleaf = low32(self.cpu.regs.rcx);
        let view = VcpuView {
            id: self.vcpu.id,
            xcr0: self.cpu.ext.xcr0(),
            apic_enabled: self.cpu.lapic.is_enabled(),
        };
        let answer = self.domain.cpuid.answer(leaf, subleaf, view, || self.cr4());
        let regs = &mut self.cpu.regs;
        regs.rax = u64::from(answer.eax);
        regs.rbx = u64::from(answer.ebx);
        regs.rcx = u64::from(answer.ecx);
        regs.rdx = u64::from(answer.edx);
        Outcome::Done
    }
}
