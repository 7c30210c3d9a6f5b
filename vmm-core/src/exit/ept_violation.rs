//! EPT violations: RAM that is touched for the first time, the local APIC's page, and addresses
//! where there is nothing.

use abi::{Gfn, Gpa, Gva, PAGE_SHIFT, PAGE_SIZE};
use vmx::exit::EptViolation;
use vmx::vmcs::field;

use super::{Outcome, ipi};
use crate::emulate::{self, CodeWidth, Segment};
use crate::fault::{CrashReason, GuestFault, InsnBytes};
use crate::mm::guest_mem::{Access, AccessError, GuestMemory};
use crate::mm::p2m::{Fault, Perms};
use crate::time::Tsc;
use crate::vcpu::Running;

/// The offset in a page.
const PAGE_MASK: u64 = PAGE_SIZE as u64 - 1;
/// CR0.PE.
const PROTECTED: u64 = 1;
/// RFLAGS.VM.
const VIRTUAL_8086: u64 = 1 << 17;

/// Handles an EPT violation.
#[inline(never)]
pub fn handle(v: &mut Running<'_>, violation: &EptViolation) -> Outcome {
    let mut wanted = Perms::empty();
    wanted.set(
        Perms::READ,
        violation.read || !(violation.write || violation.exec),
    );
    wanted.set(Perms::WRITE, violation.write);
    wanted.set(Perms::EXEC, violation.exec);
    let found = touch(v, violation.gpa.gfn(), wanted);
    if v.cpu.pending.redeliver.is_some() {
        v.attention.ask_self();
    }
    if matches!(found, Fault::Resolved | Fault::Unfinished) {
        return Outcome::Again;
    }
    let rip = Gva::new(v.vmcs.read(field::GUEST_RIP));
    if violation.exec {
        let gpa = violation.gpa;
        return v.give_up(CrashReason::FetchOutsideMemory { rip, gpa });
    }
    if !violation.gla_is_final || v.cpu.pending.redeliver.is_some() {
        // A page table, descriptor table or stack outside memory: no instruction to emulate.
        let reason = CrashReason::UnsupportedInstruction {
            rip,
            gpa: violation.gpa,
            bytes: InsnBytes::default(),
        };
        return v.give_up(reason);
    }
    emulate_access(v, rip, violation, found == Fault::Hole)
}

/// Asks the domain's memory about an access, until there is an answer or somebody wants the pCPU.
fn touch(v: &mut Running<'_>, gfn: Gfn, wanted: Perms) -> Fault {
    let mut done = 0;
    loop {
        let found = v.domain.p2m.read().fault(gfn, wanted, &mut done);
        if found != Fault::Unfinished || v.is_wanted_elsewhere() {
            return found;
        }
    }
}

/// Emulates the instruction at `rip`; `hole` says that nothing is mapped where its access went.
#[inline(never)]
fn emulate_access(v: &mut Running<'_>, rip: Gva, violation: &EptViolation, hole: bool) -> Outcome {
    let width = code_width(v);
    let mut bytes = [0; InsnBytes::MAX];
    let code_base = if width == CodeWidth::Bits64 {
        0
    } else {
        v.vmcs.read(field::GUEST_CS_BASE)
    };
    let at = rip.raw().wrapping_add(code_base);
    let fetched = match fetch(v, width, Gva::new(at), &mut bytes) {
        Ok(fetched) => fetched,
        Err(fault) => return Outcome::Fault(fault),
    };
    let code = bytes.get(..fetched).unwrap_or(&[]);
    let insn = if fetched == bytes.len() {
        let decoded = v.cpu.decoded.decode(&bytes, rip.raw(), width);
        if let Some(plain) = decoded.plain
            && let Some(outcome) = plain.emulate(&mut Faulting { v, violation, hole }, rip.raw())
        {
            return conclude(v, outcome, rip, violation);
        }
        v.cpu.decoded.decode(&bytes, rip.raw(), width).insn
    } else {
        emulate::decode(code, rip.raw(), width)
    };
    let mut machine = Faulting { v, violation, hole };
    let outcome = emulate::emulate(&mut machine, &insn, code, rip.raw(), width);
    conclude(v, outcome, rip, violation)
}

#[inline(always)]
fn conclude(
    v: &mut Running<'_>,
    outcome: emulate::Outcome,
    rip: Gva,
    violation: &EptViolation,
) -> Outcome {
    match outcome {
        emulate::Outcome::Done { next_rip } => {
            v.advance_to(next_rip);
            Outcome::Again
        }
        emulate::Outcome::Repeat => Outcome::Again,
        emulate::Outcome::Fault(fault) => Outcome::Fault(fault),
        emulate::Outcome::Unsupported(bytes) => {
            let gpa = violation.gpa;
            v.give_up(CrashReason::UnsupportedInstruction { rip, gpa, bytes })
        }
    }
}

/// Copies an instruction's bytes, up to the end of its page and as far beyond as the next page
/// can be fetched from.
fn fetch(
    v: &Running<'_>,
    width: CodeWidth,
    at: Gva,
    bytes: &mut [u8; InsnBytes::MAX],
) -> Result<usize, GuestFault> {
    if width == CodeWidth::Bits64 && v.read_straight(at, bytes, Access::EXECUTE) {
        return Ok(bytes.len());
    }
    let room = PAGE_SIZE.saturating_sub(at.page_offset());
    let here = room.min(bytes.len());
    let (first, second) = bytes.split_at_mut(here);
    v.read_linear(at, first, Access::EXECUTE)?;
    if second.is_empty() {
        return Ok(here);
    }
    let next = Gva::new(at.raw().wrapping_add(here as u64));
    match v.read_linear(next, second, Access::EXECUTE) {
        Ok(()) => Ok(here.saturating_add(second.len())),
        // The instruction may well end before.
        Err(_) => Ok(here),
    }
}

/// The width of the code that runs, by registers that a nested hypervisor reads for nothing.
fn code_width(v: &Running<'_>) -> CodeWidth {
    let access_rights = v.vmcs.read(field::GUEST_CS_ACCESS_RIGHTS);
    let cs = vmx::Segment {
        access_rights,
        ..vmx::Segment::default()
    };
    let protected = v.vmcs.read(field::GUEST_CR0) & PROTECTED != 0;
    if !protected || v.vmcs.read(field::GUEST_RFLAGS) & VIRTUAL_8086 != 0 {
        CodeWidth::Bits16
    } else if cs.is_long() {
        CodeWidth::Bits64
    } else if cs.is_default_32() {
        CodeWidth::Bits32
    } else {
        CodeWidth::Bits16
    }
}

/// A vCPU whose access has caused an EPT violation, as the machine that carries the access out.
struct Faulting<'a, 'v> {
    v: &'a mut Running<'v>,
    violation: &'a EptViolation,
    /// Nothing is mapped where the access went.
    hole: bool,
}

impl emulate::Machine for Faulting<'_, '_> {
    fn gpr(&mut self, number: u8) -> u64 {
        self.v.gpr(number)
    }

    fn set_gpr(&mut self, number: u8, value: u64) {
        self.v.set_gpr(number, value);
    }

    fn rflags(&mut self) -> u64 {
        self.v.vmcs.read(field::GUEST_RFLAGS)
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.v.vmcs.write(field::GUEST_RFLAGS, rflags);
    }

    fn segment_base(&mut self, segment: Segment) -> u64 {
        self.v.vmcs.read(match segment {
            Segment::Es => field::GUEST_ES_BASE,
            Segment::Cs => field::GUEST_CS_BASE,
            Segment::Ss => field::GUEST_SS_BASE,
            Segment::Ds => field::GUEST_DS_BASE,
            Segment::Fs => field::GUEST_FS_BASE,
            Segment::Gs => field::GUEST_GS_BASE,
        })
    }

    #[inline]
    fn translate(&mut self, address: Gva, access: emulate::Access) -> Result<Gpa, GuestFault> {
        match self.translated(address, access) {
            Some(gpa) => Ok(gpa),
            None => self.translate_anew(address, access),
        }
    }

    fn read(&mut self, gpa: Gpa, bytes: &mut [u8]) {
        if let Some(offset) = self.apic_offset(gpa) {
            let now = self.v.cpu.guest_tsc(Tsc::now());
            let value = self
                .v
                .cpu
                .lapic
                .mmio_read(offset, bytes.len(), now)
                .to_le_bytes();
            for (byte, value) in bytes.iter_mut().zip(value) {
                *byte = value;
            }
        } else if self.is_known_hole(gpa) || self.v.read_gpa(gpa, bytes).is_err() {
            bytes.fill(0xff);
        }
    }

    fn is_wanted_elsewhere(&mut self) -> bool {
        self.v.is_wanted_elsewhere()
    }

    fn write(&mut self, gpa: Gpa, bytes: &[u8]) {
        if let Some(offset) = self.apic_offset(gpa) {
            let mut value = [0; 8];
            for (slot, byte) in value.iter_mut().zip(bytes) {
                *slot = *byte;
            }
            let now = self.v.cpu.guest_tsc(Tsc::now());
            let value = u64::from_le_bytes(value);
            // It may have let an interrupt through, or changed the timer.
            self.v.attention.ask_self();
            self.v.recheck_deadlines();
            let actions = self.v.cpu.lapic.mmio_write(offset, bytes.len(), value, now);
            ipi::perform(self.v, actions);
        } else {
            let p2m = self.v.domain.p2m.read();
            // A write to nowhere is lost.
            let _ = GuestMemory::new(&p2m, &self.v.cpu.pages).write_gpa(gpa, bytes);
        }
    }
}

impl Faulting<'_, '_> {
    /// Follows the guest's page tables.
    #[cold]
    #[inline(never)]
    fn translate_anew(&self, address: Gva, access: emulate::Access) -> Result<Gpa, GuestFault> {
        let p2m = self.v.domain.p2m.read();
        let access = match access {
            emulate::Access::Read => Access::READ,
            emulate::Access::Write => Access::WRITE,
        };
        match self.v.instruction_linear().translate(
            &GuestMemory::new(&p2m, &self.v.cpu.pages),
            address,
            access,
        ) {
            Ok(gpa) => Ok(gpa),
            Err(AccessError::Fault(fault)) => Err(fault),
            // A page table lies where there is no memory.
            Err(AccessError::NotMemory(_)) => Err(GuestFault::GP0),
        }
    }

    /// The translation that the processor has just made, if it is the one asked for.
    fn translated(&self, address: Gva, access: emulate::Access) -> Option<Gpa> {
        let gla = self.violation.gla?;
        let same = gla.raw() >> PAGE_SHIFT == address.raw() >> PAGE_SHIFT;
        let allowed = access == emulate::Access::Read || self.violation.write;
        let page = self.violation.gpa.raw() & !PAGE_MASK;
        (same && allowed).then(|| Gpa::new(page | address.raw() & PAGE_MASK))
    }

    /// True when the access went here and found nothing mapped.
    fn is_known_hole(&self, gpa: Gpa) -> bool {
        self.hole && self.violation.gpa.gfn() == gpa.gfn()
    }

    /// Where in the local APIC's page an address is, if it is there.
    #[inline]
    fn apic_offset(&self, gpa: Gpa) -> Option<u64> {
        let base = self.v.cpu.lapic.mmio_base()?;
        let page = Gpa::new(base).gfn();
        (gpa.gfn() == page && self.is_hole(page)).then_some(gpa.page_offset() as u64)
    }

    /// True when nothing is mapped at a guest frame.
    #[inline]
    fn is_hole(&self, gfn: Gfn) -> bool {
        if self.violation.gpa.gfn() == gfn {
            self.hole
        } else {
            self.is_hole_elsewhere(gfn)
        }
    }

    #[cold]
    #[inline(never)]
    fn is_hole_elsewhere(&self, gfn: Gfn) -> bool {
        self.v.domain.p2m.read().lookup(gfn).is_none()
    }
}
