//! From the first Rust line to the verdict.

#![expect(
    unsafe_code,
    reason = "calls the micro-guest, which is linked in by name"
)]

use core::panic::PanicInfo;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::DomId;
use abi::sched::reason;
use abi::start_info::StartInfo;
use pv_drivers::guest::sched;

use crate::interrupts::{self, Frame};
use crate::report::Report;
use crate::{console, cpu, memory, say, smp, xen};

unsafe extern "Rust" {
    /// The micro-guest itself, which `main!` defines.
    safe fn guest_main(report: &mut Report);
}

static START_INFO: AtomicU64 = AtomicU64::new(0);

/// Where the entry code goes, on vCPU 0.
pub(crate) extern "C" fn enter(start_info: u64) -> ! {
    START_INFO.store(start_info, Ordering::Relaxed);
    cpu::set_index(&smp::INDICES[0]);
    interrupts::load_first();
    console::init();
    let mut report = Report::default();
    guest_main(&mut report);
    report.verdict();
    end(reason::POWEROFF)
}

/// What the domain builder left for the guest.
///
/// # Panics
/// When it left nothing readable.
#[must_use]
pub fn start_info() -> StartInfo {
    match memory::read(START_INFO.load(Ordering::Relaxed)) {
        Some(info) => info,
        None => panic!("no start info"),
    }
}

/// What stands after `key=` on the command line, if it can be read as a `T`.
#[must_use]
pub fn option<T: FromStr>(key: &str) -> Option<T> {
    let mut buffer = [0; 256];
    let line = memory::read_string(start_info().cmdline_paddr, &mut buffer);
    let value = |word: &str| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
    line.split(' ').find_map(value)
}

/// The domain whose id stands after `key=` on the command line.
///
/// # Panics
/// When none does.
#[must_use]
pub fn domain(key: &str) -> DomId {
    match option(key) {
        Some(id) => DomId(id),
        None => panic!("no {key}= on the command line"),
    }
}

/// Ends the domain for `reason`; stops this vCPU if nobody listens.
pub fn end(reason: u8) -> ! {
    console::drain();
    if xen::present() {
        // Should the hypervisor refuse, the loop below is all that is left.
        let _ = sched::shutdown(reason);
    }
    cpu::disable_interrupts();
    loop {
        cpu::halt();
    }
}

/// An interrupt nobody expected: shows it and ends with a failing verdict.
pub(crate) fn unexpected(frame: &Frame) -> ! {
    let Frame {
        vector,
        error,
        rip,
        cs,
        rflags,
        rsp,
        ..
    } = frame;
    say!(
        "unexpected vector {vector} error {error:#x} at {cs:#x}:{rip:#x} vCPU {}",
        cpu::index()
    );
    say!(
        "rflags {rflags:#x} rsp {rsp:#x} cr2 {:#x} cr0 {:#x}",
        cpu::cr2(),
        cpu::cr0()
    );
    say!("registers {:x?}", frame.registers);
    say!("verdict: fail unexpected vector {vector} error {error:#x} at {rip:#x}");
    end(reason::POWEROFF)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("{info}");
    say!("verdict: fail {}", info.message());
    end(reason::POWEROFF)
}
