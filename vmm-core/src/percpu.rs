//! Per-CPU state of the hypervisor: one [`PerCpu`] for each pCPU, found through GS.
//!
//! Root mode runs with interrupts off and never migrates, so `current()` stays valid for as long
//! as a call runs. Other pCPUs reach a [`PerCpu`] through [`cpus`] and touch only its atomics and
//! its locked run queue.
#![expect(
    unsafe_code,
    reason = "GS holds the address of the CPU's own structure"
)]

use alloc::boxed::Box;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use spin::{Mutex, Once};
use vmx::cpu::{apic, msr};

use crate::attention::Attention;
use crate::domain::VcpuRef;
use crate::platform::VECTOR_WAKE;
use crate::sched::RunQueue;

/// The most pCPUs Tessera drives.
pub const MAX_CPUS: usize = 64;

/// No domain runs on the pCPU (`PerCpu::running_domain`).
pub const NO_DOMAIN: u32 = u32::MAX;

/// The state of one pCPU.
#[repr(C)]
#[derive(Debug)]
pub struct PerCpu {
    /// Where this structure lies: the first word, so that one load from GS finds it.
    self_address: Cell<u64>,
    /// The pCPU's index, from 0.
    pub id: u32,
    /// The pCPU's local APIC id.
    pub apic_id: u32,
    /// vCPUs waiting for this pCPU.
    pub run_queue: Mutex<RunQueue>,
    /// Set to make the pCPU pick again.
    pub need_resched: AtomicBool,
    /// That somebody has left something for this pCPU or the vCPU it runs; see
    /// [`attention`](crate::attention).
    pub attention: Attention,
    /// The domain whose vCPU the pCPU runs, or [`NO_DOMAIN`].
    pub running_domain: AtomicU32,
    /// The vCPU whose state outside the VMCS is in the CPU's registers.
    pub loaded: Mutex<Option<VcpuRef>>,
}

// SAFETY: `self_address` is written once before the structure is shared; all else is `Sync`.
unsafe impl Sync for PerCpu {}

/// Indices below this may be in use.
static END: AtomicUsize = AtomicUsize::new(0);
static CPUS: [Once<&'static PerCpu>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

/// Creates the calling pCPU's structure and points GS at it. Call once per pCPU, before anything
/// that asks for [`current`].
///
/// # Panics
/// When `id` is not below [`MAX_CPUS`].
pub fn install(id: u32, apic_id: u32) {
    let cpu: &'static PerCpu = Box::leak(Box::new(PerCpu {
        self_address: Cell::new(0),
        id,
        apic_id,
        run_queue: Mutex::new(RunQueue::new(id)),
        need_resched: AtomicBool::new(false),
        attention: Attention::new(),
        running_domain: AtomicU32::new(NO_DOMAIN),
        loaded: Mutex::new(None),
    }));
    let address = core::ptr::from_ref(cpu).addr() as u64;
    cpu.self_address.set(address);
    if cfg!(target_os = "none") {
        // SAFETY: GS is the hypervisor's own in root mode (the VMCS gives the guest its own base),
        // and the structure is never freed.
        unsafe { msr::write(msr::IA32_GS_BASE, address) };
    }
    CPUS[id as usize].call_once(|| cpu);
    END.fetch_max(id as usize + 1, Ordering::Release);
}

/// The calling pCPU's structure.
#[cfg(target_os = "none")]
#[must_use]
pub fn current() -> &'static PerCpu {
    let address: u64;
    // SAFETY: `install` pointed GS at this pCPU's structure, whose first word is its address.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) address,
            options(nostack, preserves_flags, pure, readonly));
    }
    let pointer =
        core::ptr::with_exposed_provenance::<PerCpu>(crate::mm::directmap::to_usize(address));
    // SAFETY: as above; the structure is leaked and so lives for ever.
    unsafe { &*pointer }
}

/// The structure of the only pCPU that there is on a host.
///
/// # Panics
/// Before [`install`].
#[cfg(not(target_os = "none"))]
#[expect(clippy::expect_used, reason = "tests set up what they use")]
#[must_use]
pub fn current() -> &'static PerCpu {
    by_id(0).expect("the pCPU is installed")
}

/// True once [`install`] ran for the pCPU with this index.
#[must_use]
pub fn by_id(id: u32) -> Option<&'static PerCpu> {
    CPUS.get(id as usize)?.get().copied()
}

/// Every pCPU that is up.
pub fn cpus() -> impl Iterator<Item = &'static PerCpu> {
    let end = END.load(Ordering::Acquire).min(MAX_CPUS);
    CPUS[..end].iter().filter_map(|cpu| cpu.get().copied())
}

impl PerCpu {
    /// Makes this pCPU look at its work again soon: out of HLT, or out of its guest.
    pub fn wake(&self) {
        self.attention.ask();
        if core::ptr::eq(self, current()) {
            return;
        }
        apic::send_ipi(self.apic_id, VECTOR_WAKE);
    }

    /// Asks this pCPU to choose anew which vCPU to run.
    pub fn reschedule(&self) {
        if !self.need_resched.swap(true, Ordering::SeqCst) {
            self.wake();
        }
    }
}
