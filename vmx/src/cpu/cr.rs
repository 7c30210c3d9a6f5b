//! Control registers. Values are plain integers: nothing is dropped in a read-modify-write.
#![expect(unsafe_code, reason = "control registers")]

use core::arch::asm;

/// CR0.PE: protected mode.
pub const CR0_PE: u64 = 1 << 0;
/// CR0.MP.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM: no x87.
pub const CR0_EM: u64 = 1 << 2;
/// CR0.TS: task switched.
pub const CR0_TS: u64 = 1 << 3;
/// CR0.ET.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE: x87 errors as exceptions.
pub const CR0_NE: u64 = 1 << 5;
/// CR0.WP: write-protect also for the supervisor.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.AM.
pub const CR0_AM: u64 = 1 << 18;
/// CR0.NW.
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG: paging.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.TSD: RDTSC for the supervisor only.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4.DE.
pub const CR4_DE: u64 = 1 << 3;
/// CR4.PSE.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.MCE: machine checks.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.PGE: global pages.
pub const CR4_PGE: u64 = 1 << 7;
/// CR4.PCE: RDPMC for user mode.
pub const CR4_PCE: u64 = 1 << 8;
/// CR4.OSFXSR.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.OSXMMEXCPT.
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR4.UMIP.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4.LA57: five-level paging.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;
/// CR4.FSGSBASE.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4.PCIDE.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// CR4.PKE.
pub const CR4_PKE: u64 = 1 << 22;
/// CR4.CET.
pub const CR4_CET: u64 = 1 << 23;

macro_rules! register {
    ($name:literal, $read:ident, $write:ident) => {
        #[doc = concat!("Reads ", $name, ".")]
        #[inline]
        #[must_use]
        pub fn $read() -> u64 {
            let value: u64;
            // SAFETY: reading a control register has no effect.
            unsafe {
                asm!(
                    concat!("mov {}, ", $name),
                    out(reg) value,
                    options(nomem, nostack, preserves_flags),
                );
            }
            value
        }

        #[doc = concat!("Writes ", $name, ".")]
        ///
        /// # Safety
        /// The value is legal and the running code's mappings and mode stay as they are.
        #[inline]
        pub unsafe fn $write(value: u64) {
            // SAFETY: the caller's promise; memory is a clobber.
            unsafe {
                asm!(
                    concat!("mov ", $name, ", {}"),
                    in(reg) value,
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

register!("cr0", read_cr0, write_cr0);
register!("cr3", read_cr3, write_cr3);
register!("cr4", read_cr4, write_cr4);

/// Reads CR2. VMX does not switch it: the guest's is saved after an exit and loaded before an
/// entry.
#[inline]
#[must_use]
pub fn read_cr2() -> u64 {
    let value: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes CR2, which the host only looks at in its own page-fault handler.
#[inline]
pub fn write_cr2(value: u64) {
    // SAFETY: CR2 has no effect of its own.
    unsafe { asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}
