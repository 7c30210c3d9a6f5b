//! Control registers: which bits the guest changes by itself and which the hypervisor keeps.
//!
//! Under unrestricted guest and EPT the guest owns nearly all of CR0 and CR4. The hypervisor owns
//! what VMX fixes (CR0.NE, CR4.VMXE), what would reach the host (CR0.CD and NW, which VM entry
//! does not load) and every CR4 bit that the guest's CPUID does not offer.

use vmx::exit::CrAccess;
use vmx::vmcs::field;

use super::Outcome;
use crate::fault::GuestFault;
pub use crate::policy::msr::efer;
use crate::vcpu::Running;

const PE: u64 = 1 << 0;
const MP_TO_TS: u64 = 0xe;
const TS: u64 = 1 << 3;
const ET: u64 = 1 << 4;
const NE: u64 = 1 << 5;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
const PG: u64 = 1 << 31;
/// The bits of CR0 that are defined; writes to the others below bit 32 are ignored.
const CR0_DEFINED: u64 = 0xe005_003f;

/// CR4 bits that the rules below look at.
pub mod cr4 {
    /// Physical-address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine checks raise #MC.
    pub const MCE: u64 = 1 << 6;
    /// 57-bit linear addresses.
    pub const LA57: u64 = 1 << 12;
    /// VMX.
    pub const VMXE: u64 = 1 << 13;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// No supervisor access to user pages.
    pub const SMAP: u64 = 1 << 21;
    /// Protection keys for user pages.
    pub const PKE: u64 = 1 << 22;
}

/// "L" of the access rights of CS.
const ACCESS_LONG: u32 = 1 << 13;

/// CR0 bits that the hypervisor owns.
pub const CR0_OWNED: u64 = ET | NE | NW | CD;

/// CR0 as the CPU gets it when the guest sets `guest`.
#[must_use]
pub const fn cr0_real(guest: u64) -> u64 {
    (guest & !(CD | NW)) | NE | ET
}

/// CR4 as the CPU gets it when the guest sets `guest`: VMX operation is on, and a machine check
/// in the guest reaches the hypervisor instead of shutting the CPU down.
#[must_use]
pub const fn cr4_real(guest: u64) -> u64 {
    guest | cr4::VMXE | cr4::MCE
}

/// Handles a control-register access.
#[inline(never)]
pub fn handle(v: &mut Running<'_>, access: CrAccess) -> Outcome {
    let result = match access {
        CrAccess::Write { cr: 0, gpr } => {
            let value = v.gpr(gpr);
            set_cr0(v, value)
        }
        CrAccess::Write { cr: 3, gpr } => {
            let value = v.gpr(gpr);
            v.vmcs.write(field::GUEST_CR3, value);
            Ok(())
        }
        CrAccess::Write { cr: 4, gpr } => {
            let value = v.gpr(gpr);
            set_cr4(v, value)
        }
        CrAccess::Write { cr: 8, gpr } => {
            let value = v.gpr(gpr);
            v.set_cr8(value)
        }
        CrAccess::Read { cr: 3, gpr } => {
            let value = v.vmcs.read(field::GUEST_CR3);
            v.set_gpr(gpr, value);
            Ok(())
        }
        CrAccess::Read { cr: 8, gpr } => {
            let value = v.cr8();
            v.set_gpr(gpr, value);
            Ok(())
        }
        CrAccess::Clts => {
            let value = v.cr0() & !TS;
            set_cr0(v, value)
        }
        CrAccess::Lmsw { source, .. } => {
            // LMSW loads PE, MP, EM and TS, and cannot clear PE.
            let old = v.cr0();
            let loaded = u64::from(source) & (PE | MP_TO_TS);
            set_cr0(v, (old & !MP_TO_TS) | loaded)
        }
        CrAccess::Write { .. } | CrAccess::Read { .. } => Err(GuestFault::Ud),
    };
    result.into()
}

/// A write to CR0 (SDM 3A, "Control Registers"; SDM 2B, "MOV—Move to/from Control Registers").
fn set_cr0(v: &mut Running<'_>, value: u64) -> Result<(), GuestFault> {
    let efer = v.efer();
    let cr4 = v.cr4();
    let old = v.cr0();
    let long_code = v.vmcs.read(field::GUEST_CS_ACCESS_RIGHTS) & ACCESS_LONG != 0;
    check_cr0(value, cr4, efer, long_code)?;
    let value = value & CR0_DEFINED | ET;
    let pages = value & PG != 0;
    let paged = old & PG != 0;
    if pages != paged {
        let active = pages && efer & efer::LME != 0;
        set_long_mode_active(v, active);
    }
    v.vmcs.write(field::GUEST_CR0, cr0_real(value));
    v.vmcs.write(field::CR0_READ_SHADOW, value);
    if pages && cr4 & cr4::PAE != 0 && efer & efer::LME == 0 && old != value {
        load_pdptes(v)?;
    }
    Ok(())
}

/// The checks on a new CR0 value.
fn check_cr0(value: u64, cr4: u64, efer: u64, long_code: bool) -> Result<(), GuestFault> {
    let protected = value & PE != 0;
    let pages = value & PG != 0;
    let long = efer & efer::LME != 0;
    let bad = value >> 32 != 0
        || (pages && !protected)
        || (value & NW != 0 && value & CD == 0)
        || (pages && long && (cr4 & cr4::PAE == 0 || (long_code && efer & efer::LMA == 0)))
        || (!pages && (cr4 & cr4::PCIDE != 0 || (long_code && efer & efer::LMA != 0)));
    if bad { Err(GuestFault::GP0) } else { Ok(()) }
}

/// Enters or leaves IA-32e mode.
fn set_long_mode_active(v: &mut Running<'_>, active: bool) {
    let efer = v.efer();
    let efer = if active {
        efer | efer::LMA
    } else {
        efer & !efer::LMA
    };
    v.vmcs.write(field::GUEST_IA32_EFER, efer);
    v.vmcs.set_long_mode(active);
}

/// A write to CR4.
fn set_cr4(v: &mut Running<'_>, value: u64) -> Result<(), GuestFault> {
    let efer = v.efer();
    let old = v.cr4();
    check_cr4(
        value,
        old,
        efer,
        v.cpu.cr4_allowed,
        v.vmcs.read(field::GUEST_CR3),
    )?;
    v.vmcs.write(field::GUEST_CR4, cr4_real(value));
    v.vmcs.write(field::CR4_READ_SHADOW, value);
    let paging_bits_changed = (old ^ value) & 0xb0 != 0;
    if paging_bits_changed && value & cr4::PAE != 0 && efer & efer::LMA == 0 && v.cr0() & PG != 0 {
        load_pdptes(v)?;
    }
    v.vmcs.flush_vpid();
    Ok(())
}

fn check_cr4(value: u64, old: u64, efer: u64, allowed: u64, cr3: u64) -> Result<(), GuestFault> {
    let long = efer & efer::LMA != 0;
    let sets_pcide = value & cr4::PCIDE != 0 && old & cr4::PCIDE == 0;
    let bad = value & !allowed != 0
        || (long && value & cr4::PAE == 0)
        || (long && (value ^ old) & cr4::LA57 != 0)
        || (sets_pcide && (!long || cr3 & 0xfff != 0));
    if bad { Err(GuestFault::GP0) } else { Ok(()) }
}

/// Loads CR3 in a task switch, which happens outside IA-32e mode only and without paging loads
/// none. False when the tables are no good; CR3 stays as it was then.
pub(super) fn switch_page_tables(v: &mut Running<'_>, cr3: u32) -> bool {
    if v.cr0() & PG == 0 {
        return true;
    }
    let old = v.vmcs.read(field::GUEST_CR3);
    v.vmcs.write(field::GUEST_CR3, u64::from(cr3));
    if v.cr4() & cr4::PAE != 0 && load_pdptes(v).is_err() {
        v.vmcs.write(field::GUEST_CR3, old);
        return false;
    }
    v.vmcs.flush_vpid();
    true
}

/// Loads the four PDPTEs of PAE paging from where CR3 points, as the CPU does when it executes
/// the instruction itself (SDM 3A, "PDPTE Registers"): all or none.
fn load_pdptes(v: &mut Running<'_>) -> Result<(), GuestFault> {
    let table = v.vmcs.read(field::GUEST_CR3) & 0xffff_ffe0;
    let mut bytes = [0u8; 32];
    v.read_gpa(abi::Gpa::new(table), &mut bytes)
        .map_err(|_| GuestFault::GP0)?;
    let mut entries = [0u64; 4];
    for (chunk, entry) in bytes.as_chunks::<8>().0.iter().zip(&mut entries) {
        *entry = u64::from_le_bytes(*chunk);
    }
    let phys_bits = v.domain.cpuid.phys_bits();
    if !entries.iter().all(|entry| is_good_pdpte(*entry, phys_bits)) {
        return Err(GuestFault::GP0);
    }
    let fields = [
        field::GUEST_PDPTE0,
        field::GUEST_PDPTE1,
        field::GUEST_PDPTE2,
        field::GUEST_PDPTE3,
    ];
    for (entry, field) in entries.into_iter().zip(fields) {
        v.vmcs.write(field, entry);
    }
    Ok(())
}

/// A VM entry refuses a present PDPTE with reserved bits.
fn is_good_pdpte(entry: u64, phys_bits: u8) -> bool {
    const RESERVED_LOW: u64 = 0x1e6;
    let beyond = u64::MAX.checked_shl(phys_bits.into()).unwrap_or(0);
    entry & 1 == 0 || entry & (beyond | RESERVED_LOW) == 0
}

/// XSETBV (SDM 2D, "XSETBV—Set Extended Control Register").
#[inline(never)]
pub fn xsetbv(v: &mut Running<'_>) -> Outcome {
    let regs = &v.cpu.regs;
    let index = regs.rcx & 0xffff_ffff;
    let value = (regs.rdx << 32) | (regs.rax & 0xffff_ffff);
    if index != 0 || v.cpl() != 0 || !v.domain.cpuid.is_valid_xcr0(value) {
        return Outcome::Fault(GuestFault::GP0);
    }
    v.cpu.ext.set_xcr0(value);
    Outcome::Done
}

#[cfg(test)]
mod tests {
    use super::{
        CD, GuestFault, NE, NW, PE, PG, check_cr0, check_cr4, cr0_real, cr4, efer, is_good_pdpte,
    };

    #[test]
    fn linux_may_clear_ne_while_it_turns_paging_on() {
        let value = PG | PE;
        assert_eq!(check_cr0(value, cr4::PAE, efer::LME, false), Ok(()));
        assert_eq!(cr0_real(value) & NE, NE);
    }

    #[test]
    fn the_cache_stays_on_whatever_the_guest_says() {
        assert_eq!(cr0_real(CD | NW | PE) & (CD | NW), 0);
    }

    #[test]
    fn paging_has_its_conditions() {
        let gp = Err(GuestFault::GP0);
        assert_eq!(check_cr0(PG, 0, 0, false), gp, "paging needs protection");
        assert_eq!(
            check_cr0(PG | PE, 0, efer::LME, false),
            gp,
            "long mode needs PAE"
        );
        assert_eq!(check_cr0(NW, 0, 0, false), gp, "NW needs CD");
        assert_eq!(
            check_cr0(PE, cr4::PAE, efer::LMA | efer::LME, true),
            gp,
            "64-bit code"
        );
        assert_eq!(check_cr0(1 << 32 | PE, 0, 0, false), gp, "reserved bits");
    }

    #[test]
    fn cr4_bits_that_are_not_offered_fault() {
        let gp = Err(GuestFault::GP0);
        assert_eq!(check_cr4(cr4::VMXE, 0, 0, cr4::PAE, 0), gp);
        assert_eq!(check_cr4(cr4::PAE, 0, 0, cr4::PAE, 0), Ok(()));
        assert_eq!(check_cr4(0, cr4::PAE, efer::LMA, cr4::PAE, 0), gp);
    }

    #[test]
    fn only_present_pdptes_are_looked_at() {
        assert!(is_good_pdpte(u64::MAX - 1, 39));
        assert!(is_good_pdpte(0x7f_ffff_f001, 39));
        assert!(!is_good_pdpte(0x80_0000_0001, 39));
        assert!(!is_good_pdpte(3, 39), "not writable: reserved");
        assert!(!is_good_pdpte(1 << 63 | 1, 52));
    }
}
