//! How a domain ends: the first reason counts, then every vCPU leaves, then it is reaped.
//!
//! ```text
//! Running --shutdown(reason)--> Ending --last vCPU descheduled--> Ended --reap--> gone
//! ```
//!
//! Any pCPU may start the end; the pCPU that takes the last vCPU off hands the domain to the
//! reaper on the boot pCPU, which frees its memory and does what its configuration says next.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::{Domain, list};
use crate::fault::CrashReason;
use crate::percpu;
use crate::vcpu;

/// Why a domain shut down (`SHUTDOWN_*`, `public/sched.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShutdownReason {
    /// The guest powered itself off.
    Poweroff,
    /// The guest asked to be started anew.
    Reboot,
    /// The guest asked to be suspended.
    Suspend,
    /// The guest, or the hypervisor, found it broken.
    Crash,
    /// The guest's watchdog fired.
    Watchdog,
    /// The guest asked to be started anew in place.
    SoftReset,
    /// A code without a meaning of its own.
    Other(u8),
}

impl ShutdownReason {
    /// The reason a guest names; only the low byte counts.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        let [low, ..] = raw.to_le_bytes();
        match low {
            0 => Self::Poweroff,
            1 => Self::Reboot,
            2 => Self::Suspend,
            3 => Self::Crash,
            4 => Self::Watchdog,
            5 => Self::SoftReset,
            other => Self::Other(other),
        }
    }

    const fn to_raw(self) -> u8 {
        match self {
            Self::Poweroff => 0,
            Self::Reboot => 1,
            Self::Suspend => 2,
            Self::Crash => 3,
            Self::Watchdog => 4,
            Self::SoftReset => 5,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poweroff => f.write_str("poweroff"),
            Self::Reboot => f.write_str("reboot"),
            Self::Suspend => f.write_str("suspend"),
            Self::Crash => f.write_str("crash"),
            Self::Watchdog => f.write_str("watchdog"),
            Self::SoftReset => f.write_str("soft reset"),
            Self::Other(code) => write!(f, "reason {code}"),
        }
    }
}

const RUNNING: u32 = u32::MAX;

/// Where a domain is in its life.
#[derive(Debug)]
pub struct Life {
    /// [`RUNNING`], or the raw shutdown reason.
    reason: AtomicU32,
    /// The reason the guest named for its coming shutdown, raw, or [`RUNNING`].
    noted: AtomicU32,
    /// vCPUs that are not yet known to stay away from every pCPU.
    vcpus_left: AtomicU32,
    /// They all are, and the domain waits to be reaped.
    waits: AtomicBool,
}

impl Life {
    /// The start of a domain with so many vCPUs.
    #[must_use]
    pub const fn new(vcpus: u32) -> Self {
        Self {
            reason: AtomicU32::new(RUNNING),
            noted: AtomicU32::new(RUNNING),
            vcpus_left: AtomicU32::new(vcpus),
            waits: AtomicBool::new(false),
        }
    }

    /// Notes the reason for the shutdown to come (`SCHEDOP_shutdown_code`); the first one counts.
    pub fn note_reason(&self, reason: ShutdownReason) {
        let raw = u32::from(reason.to_raw());
        // When there is one, it stays.
        let _ = self
            .noted
            .compare_exchange(RUNNING, raw, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Why the domain is ending, or `None` while it runs.
    #[must_use]
    pub fn ending(&self) -> Option<ShutdownReason> {
        let raw = self.reason.load(Ordering::Acquire);
        (raw != RUNNING).then(|| ShutdownReason::from_raw(raw))
    }
}

/// How many domains wait for [`take_ended`].
static ENDED: AtomicUsize = AtomicUsize::new(0);

impl Domain {
    /// Ends the domain for `reason`, unless the guest has noted another. The first end counts. Its
    /// vCPUs leave their pCPUs at their next chance; the caller's own does when its exit has been
    /// handled.
    pub fn shut_down(self: &Arc<Self>, reason: ShutdownReason) {
        match self.life.noted.load(Ordering::SeqCst) {
            RUNNING => self.end(reason),
            noted => self.end(ShutdownReason::from_raw(noted)),
        }
    }

    fn end(self: &Arc<Self>, reason: ShutdownReason) {
        let raw = u32::from(reason.to_raw());
        let first = self
            .life
            .reason
            .compare_exchange(RUNNING, raw, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if !first {
            return;
        }
        log::info!("{}: shut down: {reason}", self.name);
        for vcpu in vcpu::refs(self) {
            vcpu.signal_death();
        }
    }

    /// Ends the domain because the hypervisor must.
    pub fn crash(self: &Arc<Self>, reason: &CrashReason) {
        log::error!("{}: crashed: {reason}", self.name);
        self.end(ShutdownReason::Crash);
    }
}

/// Notes that one of an ending domain's vCPUs will never run again; the last one hands the
/// domain to the reaper.
pub fn vcpu_left(domain: &Arc<Domain>) {
    if domain.life.vcpus_left.fetch_sub(1, Ordering::SeqCst) != 1 {
        return;
    }
    ENDED.fetch_add(1, Ordering::SeqCst);
    domain.life.waits.store(true, Ordering::SeqCst);
    if let Some(boot_cpu) = percpu::by_id(0) {
        boot_cpu.reschedule();
    }
}

/// The next domain to reap.
#[must_use]
pub fn take_ended() -> Option<Arc<Domain>> {
    let waits = |domain: &Arc<Domain>| domain.life.waits.swap(false, Ordering::SeqCst);
    let ended = has_ended().then(|| list::all().find(waits)).flatten()?;
    ENDED.fetch_sub(1, Ordering::SeqCst);
    Some(ended)
}

/// True when a domain waits to be reaped.
#[must_use]
pub fn has_ended() -> bool {
    ENDED.load(Ordering::SeqCst) != 0
}
