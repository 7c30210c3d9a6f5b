//! Clocks: how fast the TSC runs, and what time it is.
//!
//! The ACPI power management timer is the reference, since its rate is fixed and it needs no
//! programming; where there is none, channel 2 of the programmable interval timer is.
#![expect(unsafe_code, reason = "names ports")]

use boot::clock::{self, CmosTime};
use vmx::cpu::tsc;

use crate::port::Port;

/// The power management timer's rate.
const PM_TIMER_HZ: u64 = 3_579_545;
/// The interval timer's rate.
const PIT_HZ: u64 = 1_193_182;
/// How long the measurement takes: 5 ms.
const PM_TICKS: u32 = 17_898;
const PIT_TICKS: u32 = 5_966;
/// The interval timer's counter runs for 55 ms; a virtual machine may lose so much at once.
const PIT_ATTEMPTS: u32 = 8;
/// Port reads after which a clock that does not move counts as dead.
const PATIENCE: u32 = 1_000_000;

// SAFETY: the interval timer counts and drives the speaker.
const PIT_CHANNEL2: Port = unsafe { Port::new(0x42) };
// SAFETY: see `PIT_CHANNEL2`.
const PIT_COMMAND: Port = unsafe { Port::new(0x43) };
// SAFETY: the system control port's low bits gate the timer and the speaker.
const SYSTEM_CONTROL: Port = unsafe { Port::new(0x61) };
// SAFETY: the CMOS clock's index; the registers behind it are battery-backed bytes.
const CMOS_INDEX: Port = unsafe { Port::new(0x70) };
// SAFETY: see `CMOS_INDEX`.
const CMOS_DATA: Port = unsafe { Port::new(0x71) };

/// What was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rates {
    /// TSC ticks per millisecond.
    pub(crate) tsc_khz: u64,
    /// The reference.
    pub(crate) reference: &'static str,
}

/// Measures the TSC against the best reference there is.
pub(crate) fn measure(pm_timer: Option<u16>) -> Option<Rates> {
    let by_pm_timer = pm_timer.and_then(|number| {
        // SAFETY: the FADT says this is the power management timer, which can only be read.
        against_pm_timer(unsafe { Port::new(number) })
    });
    by_pm_timer.or_else(against_pit)
}

/// A reading of a reference clock and the TSC at that moment.
#[derive(Clone, Copy)]
struct Stamp {
    reference: u32,
    tsc: u64,
    /// How long the reading took; anything may have come between on a machine that is itself
    /// virtual.
    width: u64,
}

impl Stamp {
    /// The narrowest of a few readings.
    fn take(read: &impl Fn() -> u32) -> Self {
        let one = || {
            let before = tsc::rdtsc();
            let reference = read();
            let width = tsc::rdtsc() - before;
            let tsc = before + width / 2;
            Self {
                reference,
                tsc,
                width,
            }
        };
        let first = one();
        (0..3).map(|_| one()).fold(
            first,
            |best, next| if next.width < best.width { next } else { best },
        )
    }
}

fn against_pm_timer(timer: Port) -> Option<Rates> {
    // 24 bits exist everywhere.
    let read = || timer.read32() & 0xff_ffff;
    let elapsed = |since: u32| read().wrapping_sub(since) & 0xff_ffff;
    let start = Stamp::take(&read);
    (0..PATIENCE).find(|_| elapsed(start.reference) >= PM_TICKS)?;
    let end = Stamp::take(&read);
    let ticks = end.reference.wrapping_sub(start.reference) & 0xff_ffff;
    rates(end.tsc - start.tsc, ticks, PM_TIMER_HZ, "ACPI PM timer")
}

fn against_pit() -> Option<Rates> {
    let control = SYSTEM_CONTROL.read8() & !0b11;
    SYSTEM_CONTROL.write8(control | 1); // gate on, speaker off
    let rates = (0..PIT_ATTEMPTS).find_map(|_| one_pit_run());
    SYSTEM_CONTROL.write8(control);
    rates
}

/// Lets the counter run down once; `None` when it came to its end meanwhile, or does not move.
fn one_pit_run() -> Option<Rates> {
    PIT_COMMAND.write8(0b1011_0000); // channel 2, both bytes, one-shot
    PIT_CHANNEL2.write8(0xff);
    PIT_CHANNEL2.write8(0xff);
    let read = || {
        PIT_COMMAND.write8(0b1000_0000); // latch channel 2
        u32::from(u16::from_le_bytes([
            PIT_CHANNEL2.read8(),
            PIT_CHANNEL2.read8(),
        ]))
    };
    let start = Stamp::take(&read);
    (0..PATIENCE).find(|_| start.reference.wrapping_sub(read()) >= PIT_TICKS)?;
    let end = Stamp::take(&read);
    let over = SYSTEM_CONTROL.read8() & 1 << 5 != 0;
    let elapsed = start
        .reference
        .checked_sub(end.reference)
        .filter(|_| !over)?;
    rates(end.tsc - start.tsc, elapsed, PIT_HZ, "PIT")
}

fn rates(ticks: u64, elapsed: u32, hz: u64, reference: &'static str) -> Option<Rates> {
    Some(Rates {
        tsc_khz: clock::khz(ticks, elapsed.into(), hz)?,
        reference,
    })
}

/// Waits for so many microseconds.
pub(crate) fn delay_micros(micros: u64, tsc_khz: u64) {
    let start = tsc::rdtsc();
    let ticks = micros * tsc_khz / 1000;
    while tsc::rdtsc().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

/// Seconds since 1970 by the CMOS clock, and the TSC when it was read.
pub(crate) fn wall_clock(century_register: Option<u8>) -> Option<(u64, u64)> {
    let register = |number: u8| {
        CMOS_INDEX.write8(number);
        CMOS_DATA.read8()
    };
    let snapshot = || CmosTime {
        second: register(0),
        minute: register(2),
        hour: register(4),
        day: register(7),
        month: register(8),
        year: register(9),
        century: century_register.map_or(0, register),
        status_b: register(11),
    };
    // A second may tick over between two registers: take what reads the same twice.
    for _ in 0..PATIENCE {
        if register(10) & 0x80 == 0 {
            let (first, tsc) = (snapshot(), tsc::rdtsc());
            if first == snapshot() {
                return Some((first.unix_seconds()?, tsc));
            }
        }
    }
    None
}
