//! What the whole hypervisor knows for good once it has started.
#![expect(unsafe_code, reason = "turns VMX operation on")]

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};

use abi::{DomId, Hpa};
use invariant::OrBroken;
use spin::Once;
use system::{Archive, Config};
use vmx::caps::Controls;
use vmx::cpu::last_branch;
use vmx::cpu::msr::rdmsr_safe;
use vmx::cpu::speculation::Mitigations;
use vmx::{EnableError, MsrBitmap, VmxOn};

use crate::boot_info::BootInfo;
use crate::mm::frame::Owner;
use crate::mm::page::PageRef;
use crate::platform::{self, End};
use crate::policy::msr::{Direction, HostMsrs, MsrPolicy, number};

/// The machine and what to run on it.
#[derive(Debug)]
pub struct Machine {
    /// What boot found.
    pub boot: BootInfo,
    /// The boot archive.
    pub archive: Archive<'static>,
    /// The VMX controls in use, the same on every pCPU.
    pub controls: Controls,
    /// What is done against speculation across domains.
    pub mitigations: Mitigations,
    /// What guests see of the host's MSRs.
    pub host_msrs: HostMsrs,
    /// Bits of a physical address.
    pub phys_bits: u8,
}

static MACHINE: Once<Machine> = Once::new();
static NEXT_VPID: AtomicU16 = AtomicU16::new(1);

/// Records the machine; once.
pub fn set(machine: Machine) {
    MACHINE.call_once(|| machine);
}

/// The machine.
///
/// # Panics
/// Before [`set`]: nothing that runs a vCPU runs that early.
#[must_use]
pub fn get() -> &'static Machine {
    let machine = MACHINE.get();
    machine.or_broken("the machine is known before any vCPU runs")
}

/// The system description.
#[must_use]
pub fn config() -> &'static Config {
    get().archive.config()
}

/// A VPID for a vCPU. They come round after 65,535; whoever gets one flushes what an earlier
/// holder left under it.
#[must_use]
pub fn next_vpid() -> u16 {
    loop {
        let vpid = NEXT_VPID.fetch_add(1, Ordering::Relaxed);
        if vpid != 0 {
            return vpid;
        }
    }
}

/// Turns VMX operation on for the calling pCPU, with a frame for it alone.
///
/// # Errors
/// As [`vmx::enable`].
pub fn enable_vmx(region: PageRef, virt: NonNull<u8>) -> Result<VmxOn, EnableError> {
    let hpa: Hpa = region.mfn().hpa();
    // The CPU uses the frame until the machine goes down.
    let _kept = core::mem::ManuallyDrop::new(region);
    // SAFETY:
    // 1. the frame is never freed, and nobody else has it;
    // 2. `controls` were negotiated on this machine;
    // 3. each pCPU gets here once, before anything else turns VMX on.
    unsafe { vmx::enable(virt, hpa, &get().controls) }
}

/// Reads what guests see of the host's MSRs; zero where the host has none.
#[must_use]
pub fn read_host_msrs() -> HostMsrs {
    let read = |msr| rdmsr_safe(msr).unwrap_or(0);
    HostMsrs {
        misc_enable: read(number::IA32_MISC_ENABLE),
        platform_id: read(number::IA32_PLATFORM_ID),
        microcode: read(number::IA32_BIOS_SIGN_ID),
        arch_capabilities: read(number::IA32_ARCH_CAPABILITIES),
        last_branches: last_branch::Stack::detect(),
    }
}

/// The MSR bitmap of a domain: which MSRs its accesses reach without an exit. `None` when memory
/// is short.
#[must_use]
pub fn make_msr_bitmap(msrs: &MsrPolicy, domain: DomId) -> Option<PageRef> {
    let page = PageRef::alloc(Owner::Tables(domain))?;
    let mut bitmap = MsrBitmap::deny_all();
    for (msr, direction) in msrs.passed_through() {
        if direction != Direction::Write {
            bitmap.allow_read(msr);
        }
        if direction != Direction::Read {
            bitmap.allow_write(msr);
        }
    }
    page.write(0, bitmap.as_bytes());
    Some(page)
}

/// The end that the archive's words stand for.
#[must_use]
pub const fn end_of(end: system::End) -> End {
    match end {
        system::End::Halt => End::Halt,
        system::End::Reboot => End::Reboot,
        system::End::Poweroff => End::Poweroff,
    }
}

/// The log level that the archive's words stand for.
#[must_use]
pub const fn level_of(level: system::LogLevel) -> log::LevelFilter {
    match level {
        system::LogLevel::Off => log::LevelFilter::Off,
        system::LogLevel::Error => log::LevelFilter::Error,
        system::LogLevel::Warn => log::LevelFilter::Warn,
        system::LogLevel::Info => log::LevelFilter::Info,
        system::LogLevel::Debug => log::LevelFilter::Debug,
        system::LogLevel::Trace => log::LevelFilter::Trace,
    }
}

/// Gives up before anything runs: one line that names the cause, then the configured end.
pub fn refuse(reason: fmt::Arguments<'_>) -> ! {
    log::error!("{reason}");
    platform::end(platform::panic_end(), reason)
}
