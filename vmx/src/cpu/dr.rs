//! Debug registers. VMX switches DR7; the rest is swapped by software.
#![expect(unsafe_code, reason = "debug registers")]

use core::arch::asm;

/// The debug registers a VM exit leaves as the guest had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRegs {
    /// DR0 to DR3: breakpoint addresses.
    pub addresses: [u64; 4],
    /// DR6: status.
    pub dr6: u64,
}

impl DebugRegs {
    /// The values after reset.
    pub const RESET: Self = Self {
        addresses: [0; 4],
        dr6: 0xffff_0ff0,
    };

    /// Reads them. DR7 is clear in the host (a VM exit sets it to 0x400), so they have no effect
    /// here.
    #[must_use]
    pub fn save() -> Self {
        let (dr0, dr1, dr2, dr3, dr6): (u64, u64, u64, u64, u64);
        // SAFETY: DR7.GD is clear in the host; reading has no effect.
        unsafe {
            asm!(
                "mov {dr0}, dr0",
                "mov {dr1}, dr1",
                "mov {dr2}, dr2",
                "mov {dr3}, dr3",
                "mov {dr6}, dr6",
                dr0 = out(reg) dr0,
                dr1 = out(reg) dr1,
                dr2 = out(reg) dr2,
                dr3 = out(reg) dr3,
                dr6 = out(reg) dr6,
                options(nomem, nostack, preserves_flags),
            );
        }
        Self {
            addresses: [dr0, dr1, dr2, dr3],
            dr6,
        }
    }

    /// Writes them. The reserved bits of DR6 are put right, as a VM entry does not look at it
    /// and a MOV with bits 63:32 set faults.
    pub fn load(&self) {
        let [dr0, dr1, dr2, dr3] = self.addresses;
        // SAFETY: DR7 enables no breakpoint in the host; DR6 gets no bit above 31.
        unsafe {
            asm!(
                "mov dr0, {dr0}",
                "mov dr1, {dr1}",
                "mov dr2, {dr2}",
                "mov dr3, {dr3}",
                "mov dr6, {dr6}",
                dr0 = in(reg) dr0,
                dr1 = in(reg) dr1,
                dr2 = in(reg) dr2,
                dr3 = in(reg) dr3,
                dr6 = in(reg) self.dr6 & 0xffff_ffff,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}

/// Clears DR7: no breakpoint is enabled. For a CPU that has just started.
pub fn disable_breakpoints() {
    // SAFETY: turns breakpoints off.
    unsafe { asm!("mov dr7, {}", in(reg) 0x400_u64, options(nomem, nostack, preserves_flags)) };
}
