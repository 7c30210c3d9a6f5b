//! The log: lines to the console, and the last of them in memory.
//!
//! A line is `[seconds.microseconds] crate: text`, with the level named when it is a warning or
//! worse. Until the core has registered its console the lines go straight to the serial port.
//! The ring [`RING`] keeps the last 64 KiB for the epitaph's reader and for a debugger.

use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

use heapless::{HistoryBuf, String};
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::mutex::SpinMutex;

use super::serial;

/// The longest line; the rest of a longer one is cut off. The names of all VMX features fit.
const LINE: usize = 1024;
/// Bytes of log kept in memory.
const RING_SIZE: usize = 64 * 1024;

static RING: SpinMutex<HistoryBuf<u8, RING_SIZE>> = SpinMutex::new(HistoryBuf::new());
/// The TSC at the first instruction and its rate, once known.
static ENTRY_TSC: AtomicU64 = AtomicU64::new(0);
static TSC_KHZ: AtomicU64 = AtomicU64::new(0);

struct Logger;

/// Starts the log; times count from `entry_tsc`.
pub(crate) fn init(entry_tsc: u64) {
    ENTRY_TSC.store(entry_tsc, Ordering::Relaxed);
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Tells the log how fast the TSC runs; until then all times are zero.
pub(crate) fn set_clock(tsc_khz: u64) {
    TSC_KHZ.store(tsc_khz, Ordering::Relaxed);
}

/// Sets the level by its name; false when there is no such level.
pub(crate) fn set_level(name: &str) -> bool {
    let Ok(level) = name.parse::<LevelFilter>() else {
        return false;
    };
    log::set_max_level(level);
    if level >= LevelFilter::Debug {
        // Whoever looks for an error wants the last line before it.
        serial::send_at_once();
    }
    true
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Line::default();
        // A line that does not fit is cut; there is nothing else to fail.
        let _ = line.format(record);
        show(line.finish());
    }

    fn flush(&self) {
        serial::flush();
    }
}

fn show(line: &str) {
    // An NMI may have come while this CPU held the ring.
    if let Some(mut ring) = RING.try_lock() {
        ring.extend_from_slice(line.as_bytes());
    }
    match vmm_core::platform::hooks() {
        Some(hooks) => (hooks.log_line)(line),
        None => serial::write(line.as_bytes()),
    }
}

#[derive(Default)]
struct Line(String<LINE>);

impl Line {
    fn format(&mut self, record: &Record<'_>) -> core::fmt::Result {
        let ticks = vmx::cpu::tsc::rdtsc().saturating_sub(ENTRY_TSC.load(Ordering::Relaxed));
        let micros = boot::clock::micros(ticks, TSC_KHZ.load(Ordering::Relaxed));
        write!(
            self,
            "[{:5}.{:06}] ",
            micros / 1_000_000,
            micros % 1_000_000
        )?;
        let origin = record.target().split("::").next().unwrap_or_default();
        write!(
            self,
            "{}: ",
            if origin == "tessera" { "boot" } else { origin }
        )?;
        match record.level() {
            Level::Error => self.write_str("error: ")?,
            Level::Warn => self.write_str("warning: ")?,
            Level::Info | Level::Debug | Level::Trace => {}
        }
        self.write_fmt(*record.args())
    }

    /// Ends the line; room for the end is always left.
    fn finish(&mut self) -> &str {
        let _ = self.0.push_str("\r\n");
        &self.0
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = LINE - 2 - self.0.len();
        let fits = text.floor_char_boundary(room.min(text.len()));
        self.0
            .push_str(&text[..fits])
            .map_err(|_| core::fmt::Error)?;
        if fits < text.len() {
            return Err(core::fmt::Error);
        }
        Ok(())
    }
}
