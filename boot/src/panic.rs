//! How the hypervisor dies: stop the other CPUs, write the epitaph, end the run.
//!
//! The epitaph goes to the serial port, polled, whatever state the console was in:
//!
//! ```text
//! *** Tessera panic on CPU 0 at vmm-core/src/vcpu/run.rs:88:13: message
//! *** backtrace:
//!   ffffffff80012345 vmm_core::vcpu::run::run+0x35
//! tessera: end: halt (panic)
//! ```
#![expect(
    unsafe_code,
    reason = "walks stack frames and takes the serial port by force"
)]

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vmm_core::mm::directmap::to_usize;
use vmm_core::platform::{self, End};

use crate::console::serial::{self, Epitaph};
use crate::cpu::traps::{self, Frame};
use crate::cpu::{control, local, machine_check};
use crate::{end, layout};

/// Nobody panics.
const NOBODY: usize = usize::MAX;
/// The deepest backtrace.
const MAX_FRAMES: usize = 32;
/// How long the other CPUs get to stop, in turns of the waiting loop.
const STOP_PATIENCE: u32 = 2_000_000;

/// The CPU that panics, or ends the run.
static OWNER: AtomicUsize = AtomicUsize::new(NOBODY);
/// CPUs that stopped at the owner's NMI.
static STOPPED: AtomicUsize = AtomicUsize::new(0);
/// NMIs can be sent.
static CAN_SEND_NMI: AtomicBool = AtomicBool::new(false);

/// Tells the panic path that the local APIC works.
pub(crate) fn local_apic_works() {
    CAN_SEND_NMI.store(true, Ordering::Release);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let frame: *const u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack)) };
    die(
        frame.cast(),
        &fmt::from_fn(|f| {
            if let Some(location) = info.location() {
                write!(f, " at {location}")?;
            }
            write!(f, ": {}", info.message())
        }),
        None,
    )
}

/// Dies of an exception in root mode.
pub(crate) fn exception(frame: &Frame) -> ! {
    die(
        core::ptr::with_exposed_provenance(to_usize(frame.rbp)),
        &fmt::from_fn(|f| write!(f, ": {}", frame.describe())),
        Some(frame),
    )
}

/// Stops this CPU for ever if another one panics or ends the run. Called on every NMI.
pub(crate) fn stop_if_asked() {
    let owner = OWNER.load(Ordering::Acquire);
    if owner != NOBODY && owner != local::current() {
        STOPPED.fetch_add(1, Ordering::AcqRel);
        end::halt_forever();
    }
}

/// Makes the calling CPU the only one that runs. Returns false when it already was, that is when
/// dying went wrong.
pub(crate) fn take_over() -> bool {
    control::disable_interrupts();
    let this = local::current();
    match OWNER.compare_exchange(NOBODY, this, Ordering::AcqRel, Ordering::Acquire) {
        Err(owner) if owner == this => return false,
        Err(_) => end::halt_forever(),
        Ok(_) => {}
    }
    let others = local::online() - 1;
    if others > 0 && CAN_SEND_NMI.load(Ordering::Acquire) {
        vmx::cpu::apic::send_nmi_all_but_self();
        for _ in 0..STOP_PATIENCE {
            if STOPPED.load(Ordering::Acquire) >= others {
                break;
            }
            core::hint::spin_loop();
        }
    }
    true
}

fn die(rbp: *const [u64; 2], what: &dyn fmt::Display, frame: Option<&Frame>) -> ! {
    let first = take_over();
    // SAFETY: every other CPU is stopped or was given time to, and this one does not return.
    let mut out = unsafe { serial::seize() };
    if !first {
        // Whatever comes of it, this is the last attempt.
        let _ = write!(out, "\r\n*** panic while ending the run{what}\r\n");
        end::finish(&mut out, End::Halt, format_args!("panic twice"));
    }
    let _ = epitaph(&mut out, rbp, what, frame);
    end::finish(&mut out, platform::panic_end(), format_args!("panic"))
}

fn epitaph(
    out: &mut Epitaph,
    rbp: *const [u64; 2],
    what: &dyn fmt::Display,
    frame: Option<&Frame>,
) -> fmt::Result {
    let cpu = local::current();
    write!(out, "\r\n*** Tessera panic on CPU {cpu}{what}\r\n")?;
    if let Some(frame) = frame {
        write!(out, "{frame}")?;
        if frame.is_machine_check() {
            machine_check::report(out)?;
        }
    }
    if traps::stray_nmis() > 0 {
        write!(
            out,
            "*** {} NMIs came unasked before\r\n",
            traps::stray_nmis()
        )?;
    }
    let others = local::online() - 1;
    let stopped = STOPPED.load(Ordering::Acquire);
    if stopped < others {
        write!(
            out,
            "*** {} of {others} other CPUs did not stop\r\n",
            others - stopped
        )?;
    }
    if let Some(hooks) = platform::hooks() {
        (hooks.epitaph)(out);
    }
    out.write_str("*** backtrace:\r\n")?;
    if let Some(frame) = frame {
        write_place(out, frame.rip, frame.rip)?;
    }
    backtrace(out, rbp)
}

/// Follows the frame pointers upwards.
fn backtrace(out: &mut Epitaph, mut frame: *const [u64; 2]) -> fmt::Result {
    for _ in 0..MAX_FRAMES {
        if !is_stack(frame.addr() as u64) {
            break;
        }
        // SAFETY: the address lies, aligned, in the data of the image or in the stacks' window.
        // Should the page be a guard page after all, the second panic ends it.
        let [next, back] = unsafe { frame.read() };
        if !(layout::text().0..layout::text().1).contains(&back) {
            break;
        }
        // The call itself lies before the address it returns to, which may be another function's.
        write_place(out, back, back - 1)?;
        if next <= frame.addr() as u64 {
            break;
        }
        frame = core::ptr::with_exposed_provenance(to_usize(next));
    }
    Ok(())
}

/// True where a frame can lie.
fn is_stack(address: u64) -> bool {
    let (start, end) = layout::data();
    let window = layout::STACKS_BASE..layout::STACKS_BASE + (1 << 30);
    address.is_multiple_of(8) && ((start..end).contains(&address) || window.contains(&address))
}

/// Writes an address with the function that holds `inside`.
fn write_place(out: &mut Epitaph, address: u64, inside: u64) -> fmt::Result {
    match boot::symtab::lookup(layout::symbols(), inside) {
        Some((name, offset)) => {
            let offset = offset + (address - inside);
            write!(out, "  {address:016x} {name}+{offset:#x}\r\n")
        }
        None => write!(out, "  {address:016x}\r\n"),
    }
}
