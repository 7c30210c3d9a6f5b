//! The state a VM exit loads: this CPU's own, as it is now.
#![expect(
    unsafe_code,
    reason = "reads the GDT entry of the loaded task register"
)]

use core::ptr;

use invariant::invariant;
use x86::dtables::{DescriptorTablePointer, sgdt, sidt};

use crate::cpu::{cr, msr};

/// Everything a VM exit loads except RIP and RSP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CS selector.
    pub cs: u16,
    /// SS selector.
    pub ss: u16,
    /// TR selector.
    pub tr: u16,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// TR base.
    pub tr_base: u64,
    /// GDTR base (its limit becomes 0xffff at every exit).
    pub gdtr_base: u64,
    /// IDTR base (its limit becomes 0xffff at every exit).
    pub idtr_base: u64,
    /// `IA32_EFER`.
    pub efer: u64,
    /// `IA32_PAT`.
    pub pat: u64,
}

impl HostState {
    /// Reads the state of this CPU.
    ///
    /// DS, ES, FS and GS become null at a VM exit, which 64-bit code does not notice; the bases
    /// of FS and GS are kept.
    ///
    /// # Safety
    /// This CPU's GDT, IDT and TSS are loaded for good, and CR3 and IA32_GS_BASE hold what
    /// hypervisor code needs.
    ///
    /// # Panics
    /// When no TSS is loaded: a VM entry would fail.
    #[must_use]
    pub unsafe fn capture() -> Self {
        let mut gdtr = DescriptorTablePointer::<u64>::default();
        // SAFETY: stores to the local.
        unsafe { sgdt(&mut gdtr) };
        let mut idtr = DescriptorTablePointer::<u64>::default();
        // SAFETY: stores to the local.
        unsafe { sidt(&mut idtr) };
        let [cs, ss, tr] = selectors();
        invariant!(
            tr != 0 && cs != 0,
            "a VM exit needs a code segment and a TSS"
        );
        let entry = gdtr
            .base
            .cast::<u8>()
            .wrapping_add(usize::from(tr & !7))
            .cast::<[u64; 2]>();
        // SAFETY: TR was loaded from this 16-byte entry of the GDT, which stays.
        let descriptor = unsafe { ptr::read_unaligned(entry) };
        Self {
            cr0: cr::read_cr0(),
            cr3: cr::read_cr3(),
            cr4: cr::read_cr4(),
            cs,
            ss,
            tr,
            fs_base: msr::read_known(msr::Known::FsBase),
            gs_base: msr::read_known(msr::Known::GsBase),
            tr_base: system_segment_base(descriptor),
            gdtr_base: gdtr.base as u64,
            idtr_base: idtr.base as u64,
            efer: msr::read_known(msr::Known::Efer),
            pat: msr::read_known(msr::Known::Pat),
        }
    }
}

fn selectors() -> [u16; 3] {
    let (cs, ss, tr): (u16, u16, u16);
    // SAFETY: reads three registers.
    unsafe {
        core::arch::asm!(
            "mov {cs:x}, cs",
            "mov {ss:x}, ss",
            "str {tr:x}",
            cs = out(reg) cs,
            ss = out(reg) ss,
            tr = out(reg) tr,
            options(nomem, nostack, preserves_flags),
        );
    }
    [cs, ss, tr]
}

/// The base address in a 16-byte system-segment descriptor: SDM 3A, "TSS Descriptor in 64-bit
/// mode".
const fn system_segment_base([low, high]: [u64; 2]) -> u64 {
    (low >> 16 & 0x00ff_ffff) | (low >> 56 << 24) | (high & 0xffff_ffff) << 32
}

#[cfg(test)]
mod tests {
    use super::system_segment_base;

    #[test]
    fn the_tss_base_is_put_together() {
        let base = 0xffff_ffff_8123_4567_u64;
        let low = 0x67 | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        assert_eq!(system_segment_base([low, base >> 32]), base);
    }
}
