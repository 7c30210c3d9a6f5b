//! The local APIC of this CPU: x2APIC where the CPU has it, else xAPIC through a mapping of its
//! page. SDM 3A, "Advanced Programmable Interrupt Controller (APIC)".
//!
//! Every CPU calls [`init`] once; all of them are in the same mode then.
#![expect(unsafe_code, reason = "APIC registers: MSRs, or a memory-mapped page")]

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

pub use super::tsc::TscDeadline;
use super::{cpuid, msr, tsc};

/// The timer's vector.
pub const TIMER_VECTOR: u8 = 0xf0;
/// The spurious-interrupt vector.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// `IA32_APIC_BASE`: APIC enabled.
const BASE_ENABLE: u64 = 1 << 11;
/// `IA32_APIC_BASE`: x2APIC mode.
const BASE_X2APIC: u64 = 1 << 10;

/// An APIC register, by its x2APIC number; its xAPIC offset is 16 times that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reg {
    Id = 0x02,
    Tpr = 0x08,
    Eoi = 0x0b,
    SpuriousVector = 0x0f,
    Icr = 0x30,
    IcrHigh = 0x31,
    LvtTimer = 0x32,
    LvtThermal = 0x33,
    LvtPerformance = 0x34,
    LvtLint0 = 0x35,
    LvtLint1 = 0x36,
    LvtError = 0x37,
    InitialCount = 0x38,
    CurrentCount = 0x39,
    DivideConfiguration = 0x3e,
}

const SOFTWARE_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const LVT_NMI: u32 = 4 << 8;
const LVT_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0xb;

const ICR_NMI: u32 = 4 << 8;
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_ALL_BUT_SELF: u32 = 3 << 18;

/// How the registers are reached: 0 not yet, [`X2APIC`], else the address of the xAPIC page.
static ACCESS: AtomicU64 = AtomicU64::new(0);
const X2APIC: u64 = 1;

/// APIC-timer ticks per TSC tick, times 2^32; 0 when the timer has the TSC-deadline mode.
static TIMER_SCALE: AtomicU64 = AtomicU64::new(0);

/// The APIC cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicError {
    /// The CPU has no x2APIC mode, and the xAPIC page is not mapped.
    NoMapping,
}

impl fmt::Display for ApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this CPU has no x2APIC, and its APIC page is not mapped")
    }
}

/// Turns this CPU's APIC on: all local sources masked but the timer (unarmed) and LINT1 as NMI.
///
/// The first call on a machine without TSC-deadline timer measures the timer against the TSC.
///
/// # Errors
/// When there is no way to reach the APIC.
///
/// # Safety
/// `mmio_base_virt` is the address of an uncached mapping of the APIC page (at the address
/// `IA32_APIC_BASE` tells), which stays; all CPUs pass the same.
pub unsafe fn init(mmio_base_virt: Option<u64>) -> Result<(), ApicError> {
    let base = msr::read_known(msr::Known::ApicBase);
    let access = match mmio_base_virt {
        // An APIC that firmware left in x2APIC mode cannot go back.
        _ if cpuid::has_x2apic() || base & BASE_X2APIC != 0 => X2APIC,
        Some(address) => address,
        None => return Err(ApicError::NoMapping),
    };
    let mode = if access == X2APIC { BASE_X2APIC } else { 0 };
    // The modes are entered one after the other: off to xAPIC to x2APIC.
    // SAFETY: enables the APIC at the address it has.
    unsafe { msr::write(msr::IA32_APIC_BASE, base | BASE_ENABLE) };
    // SAFETY: as above; x2APIC mode only where it exists.
    unsafe { msr::write(msr::IA32_APIC_BASE, base | BASE_ENABLE | mode) };
    ACCESS.store(access, Ordering::Relaxed);

    write(Reg::Tpr, 0);
    write(
        Reg::SpuriousVector,
        SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR),
    );
    for source in [
        Reg::LvtLint0,
        Reg::LvtError,
        Reg::LvtThermal,
        Reg::LvtPerformance,
    ] {
        write(source, LVT_MASKED);
    }
    write(Reg::LvtLint1, LVT_NMI);
    init_timer();
    Ok(())
}

fn init_timer() {
    if cpuid::has_tsc_deadline() {
        write(Reg::LvtTimer, u32::from(TIMER_VECTOR) | LVT_TSC_DEADLINE);
        fence();
        return;
    }
    write(Reg::DivideConfiguration, DIVIDE_BY_1);
    if TIMER_SCALE.load(Ordering::Relaxed) == 0 {
        TIMER_SCALE.store(measure_timer(), Ordering::Relaxed);
    }
    write(Reg::InitialCount, 0);
    write(Reg::LvtTimer, u32::from(TIMER_VECTOR));
}

/// Lets the timer run for a while, masked; a fraction of a millisecond is precise enough for a
/// timer that is armed anew for every deadline.
fn measure_timer() -> u64 {
    const TSC_TICKS: u64 = 200_000;
    write(Reg::LvtTimer, LVT_MASKED);
    let start = tsc::rdtsc();
    write(Reg::InitialCount, u32::MAX);
    let mut elapsed = 0;
    while elapsed < TSC_TICKS {
        elapsed = tsc::rdtsc().wrapping_sub(start);
    }
    timer_scale(u32::MAX - read(Reg::CurrentCount), elapsed)
}

/// Timer ticks per TSC tick, times 2^32; at least 1.
fn timer_scale(timer_ticks: u32, tsc_ticks: u64) -> u64 {
    ((u64::from(timer_ticks) << 32) / tsc_ticks.max(1)).max(1)
}

/// Timer ticks for a number of TSC ticks: at least 1, as 0 would disarm.
fn timer_count(tsc_ticks: u64, scale: u64) -> u32 {
    let ticks = (u128::from(tsc_ticks) * u128::from(scale)) >> 32;
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

/// Arms the timer for a TSC value, or disarms it. It fires at once when the deadline is past; it
/// may fire early when the deadline is farther off than a one-shot timer counts.
pub fn arm_timer(deadline: Option<TscDeadline>) {
    match (TIMER_SCALE.load(Ordering::Relaxed), deadline) {
        (0, deadline) => {
            // 0 disarms, so a deadline of 0 becomes another one that is past.
            let value = deadline.map_or(0, |at| at.0.max(1));
            // SAFETY: TSC-deadline mode, which `init` found; its vector has a handler.
            unsafe { msr::write(msr::IA32_TSC_DEADLINE, value) };
        }
        (_, None) => write(Reg::InitialCount, 0),
        (scale, Some(at)) => {
            let ticks = at.0.saturating_sub(tsc::rdtsc());
            write(Reg::InitialCount, timer_count(ticks, scale));
        }
    }
}

/// This CPU's APIC ID.
#[must_use]
pub fn id() -> u32 {
    let id = read(Reg::Id);
    if is_x2apic() { id } else { id >> 24 }
}

/// True in x2APIC mode.
#[must_use]
pub fn is_x2apic() -> bool {
    ACCESS.load(Ordering::Relaxed) == X2APIC
}

/// Ends the interrupt in service.
#[inline]
pub fn eoi() {
    write(Reg::Eoi, 0);
}

/// Sends an interrupt to one CPU.
pub fn send_ipi(apic_id: u32, vector: u8) {
    send(apic_id, ICR_ASSERT | u32::from(vector));
}

/// Sends an NMI to all other CPUs.
pub fn send_nmi_all_but_self() {
    send(0, ICR_ASSERT | ICR_NMI | ICR_ALL_BUT_SELF);
}

/// Sends INIT to one CPU.
///
/// # Safety
/// Nothing runs on that CPU that is still needed.
pub unsafe fn send_init(apic_id: u32) {
    send(apic_id, ICR_ASSERT | ICR_INIT);
}

/// Sends a start-up IPI: a CPU that INIT left waiting starts in real mode at `page * 4096`.
///
/// # Safety
/// That page holds start-up code.
pub unsafe fn send_startup(apic_id: u32, page: u8) {
    send(apic_id, ICR_ASSERT | ICR_STARTUP | u32::from(page));
}

fn send(apic_id: u32, command: u32) {
    if is_x2apic() {
        // A WRMSR to an x2APIC register does not wait for earlier stores: SDM 3A, "MSR Access in
        // x2APIC Mode".
        fence();
        let value = u64::from(apic_id) << 32 | u64::from(command);
        // SAFETY: x2APIC mode is on; `command` is one of those above.
        unsafe { msr::write(number(Reg::Icr), value) };
    } else {
        wait_until_sent();
        write(Reg::IcrHigh, apic_id << 24);
        write(Reg::Icr, command);
        wait_until_sent();
    }
}

fn wait_until_sent() {
    while read(Reg::Icr) & ICR_PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Makes earlier stores visible before the next MSR write.
fn fence() {
    // SAFETY: orders memory accesses only.
    unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
}

/// The MSR of a register in x2APIC mode.
const fn number(reg: Reg) -> u32 {
    0x800 + reg as u32
}

fn register(page: u64, reg: Reg) -> *mut u32 {
    // A page's address has room for the offset.
    core::ptr::with_exposed_provenance_mut((page | (reg as u64) << 4).try_into().unwrap_or(0))
}

fn read(reg: Reg) -> u32 {
    match ACCESS.load(Ordering::Relaxed) {
        X2APIC => {
            // SAFETY: x2APIC mode is on, so the register's MSR exists.
            let [a, b, c, d, ..] = unsafe { msr::read(number(reg)) }.to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        }
        0 => 0,
        // SAFETY: `init`'s caller mapped the page.
        page => unsafe { register(page, reg).read_volatile() },
    }
}

fn write(reg: Reg, value: u32) {
    match ACCESS.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on; the values are those this module writes.
        X2APIC => unsafe { msr::write(number(reg), u64::from(value)) },
        0 => {}
        // SAFETY: `init`'s caller mapped the page.
        page => unsafe { register(page, reg).write_volatile(value) },
    }
}

#[cfg(test)]
mod tests {
    use super::{Reg, number, register, timer_count, timer_scale};
    use proptest::prelude::{any, proptest};

    #[test]
    fn registers_are_where_the_manual_says() {
        assert_eq!(number(Reg::Icr), 0x830);
        assert_eq!(number(Reg::LvtTimer), 0x832);
        assert_eq!(register(0xfee0_0000, Reg::Eoi).addr(), 0xfee0_00b0);
        assert_eq!(
            register(0xfee0_0000, Reg::DivideConfiguration).addr(),
            0xfee0_03e0
        );
    }

    #[test]
    fn the_timer_follows_the_tsc() {
        let half = timer_scale(100_000, 200_000);
        assert_eq!(timer_count(1_000_000, half), 500_000);
        assert_eq!(timer_count(0, half), 1);
        assert_eq!(timer_count(u64::MAX, half), u32::MAX);
        assert_eq!(timer_scale(0, 0), 1);
    }

    proptest! {
        #[test]
        fn a_one_shot_count_is_never_zero(ticks in any::<u64>(), scale in 1u64..) {
            assert!(timer_count(ticks, scale) > 0);
        }
    }
}
