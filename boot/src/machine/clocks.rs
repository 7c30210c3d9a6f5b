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
const PIT_TICKS: u16 = 5_966;
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

fn against_pm_timer(timer: Port) -> Option<Rates> {
    // 24 bits exist everywhere.
    let now = || timer.read32() & 0xff_ffff;
    let mut start = now();
    let edge = start;
    for _ in 0..PATIENCE {
        start = now();
        if start != edge {
            break;
        }
    }
    let before = tsc::rdtsc();
    let mut elapsed = 0;
    for _ in 0..PATIENCE {
        elapsed = now().wrapping_sub(start) & 0xff_ffff;
        if elapsed >= PM_TICKS {
            break;
        }
    }
    let ticks = tsc::rdtsc() - before;
    (elapsed >= PM_TICKS).then_some(())?;
    rates(ticks, elapsed.into(), PM_TIMER_HZ, "ACPI PM timer")
}

fn against_pit() -> Option<Rates> {
    let control = SYSTEM_CONTROL.read8() & !0b11;
    SYSTEM_CONTROL.write8(control | 1); // gate on, speaker off
    PIT_COMMAND.write8(0b1011_0000); // channel 2, both bytes, one-shot
    let [low, high] = PIT_TICKS.to_le_bytes();
    PIT_CHANNEL2.write8(low);
    PIT_CHANNEL2.write8(high);
    let before = tsc::rdtsc();
    let done = (0..PATIENCE).any(|_| SYSTEM_CONTROL.read8() & 1 << 5 != 0);
    let ticks = tsc::rdtsc() - before;
    SYSTEM_CONTROL.write8(control);
    done.then_some(())?;
    rates(ticks, PIT_TICKS.into(), PIT_HZ, "PIT")
}

fn rates(ticks: u64, elapsed: u64, hz: u64, reference: &'static str) -> Option<Rates> {
    Some(Rates {
        tsc_khz: clock::khz(ticks, elapsed, hz)?,
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
