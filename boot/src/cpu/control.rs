//! Control register bits that the hypervisor wants on every CPU.
//!
//! SDM 3A, "Control Registers". Bits that boot does not know are kept as they are.
#![expect(unsafe_code, reason = "writes control registers")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

const CR0_MP: u64 = 1 << 1;
const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_AM: u64 = 1 << 18;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_MCE: u64 = 1 << 6;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// Sets up the calling CPU: write protection, machine checks, the FPU open for guests' state,
/// and no execution from or access to user pages, of which the hypervisor has none.
pub(crate) fn init() {
    let features = __cpuid(1).ecx;
    let extended = __cpuid_count(7, 0).ebx;
    let mut set = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_MCE;
    for (present, bit) in [
        (features >> 26 & 1, CR4_OSXSAVE),
        (extended >> 7 & 1, CR4_SMEP),
        (extended >> 20 & 1, CR4_SMAP),
    ] {
        if present != 0 {
            set |= bit;
        }
    }
    let (cr0, cr4): (u64, u64);
    // SAFETY: reading control registers changes nothing.
    unsafe {
        asm!("mov {}, cr0", "mov {}, cr4", out(reg) cr0, out(reg) cr4, options(nomem, nostack))
    };
    let cr0 = (cr0 | CR0_MP | CR0_NE | CR0_WP) & !(CR0_EM | CR0_TS | CR0_AM);
    // SAFETY: (1) the CPU reports the features behind the CR4 bits; long mode implies the FXSR
    // and SSE ones; (2) code and constants are mapped as what they are, so write protection and
    // SMEP stop nothing legitimate; there are no user pages.
    unsafe { asm!("mov cr0, {}", "mov cr4, {}", in(reg) cr0, in(reg) cr4 | set, options(nostack)) };
}

/// The address that the last page fault wanted.
pub(crate) fn fault_address() -> u64 {
    let address;
    // SAFETY: reading CR2 changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// Turns interrupts off on this CPU.
pub(crate) fn disable_interrupts() {
    // SAFETY: turning interrupts off delays them and does nothing else.
    unsafe { asm!("cli", options(nomem, nostack)) };
}
