//! What boot keeps for each CPU: its number, its local APIC id and its segments' address.
//!
//! The core has its own per-CPU structure behind GS. This one serves the panic path, which must
//! not rely on GS: a CPU knows itself by the descriptor table it has loaded.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use vmm_core::percpu::MAX_CPUS;

use super::tables;

struct Entry {
    segments: AtomicU64,
    apic_id: AtomicU32,
}

static CPUS: [Entry; MAX_CPUS] = [const {
    Entry {
        segments: AtomicU64::new(0),
        apic_id: AtomicU32::new(0),
    }
}; MAX_CPUS];

/// How many CPUs run; they have the numbers below it.
static ONLINE: AtomicUsize = AtomicUsize::new(1);

/// Notes the CPU with this number (again, when an earlier bearer of the number never came up).
pub(crate) fn register(index: usize, apic_id: u32, segments: u64) {
    if let Some(entry) = CPUS.get(index) {
        entry.apic_id.store(apic_id, Ordering::Relaxed);
        entry.segments.store(segments, Ordering::Release);
    }
}

/// Counts one more CPU that runs.
pub(crate) fn came_online() {
    ONLINE.fetch_add(1, Ordering::AcqRel);
}

/// How many CPUs run.
pub(crate) fn online() -> usize {
    ONLINE.load(Ordering::Acquire)
}

/// The calling CPU's number, 0 while it is not known.
pub(crate) fn current() -> usize {
    let own = tables::current();
    CPUS.iter()
        .position(|entry| entry.segments.load(Ordering::Acquire) == own)
        .unwrap_or(0)
}
