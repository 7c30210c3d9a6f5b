//! A domain: the owner of memory, vCPUs, event channels and grants, isolated from all others.
//!
//! Locks are taken in this order, and at most one domain's of each kind at a time unless the
//! lower domain id comes first: `evtchn`, `maptrack`, `grants`, `p2m`.

pub mod build;
pub mod lifecycle;
pub mod list;
pub mod params;
pub mod watchdog;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use abi::shared_info;
use abi::{DomId, EvtchnPort, Gfn, VcpuId};
use invariant::OrBroken;
use spin::{Mutex, RwLock};

use crate::backend::Devices;
use crate::bits::low32;
use crate::builder::memmap::MemoryMap;
use crate::console::DomainConsole;
use crate::evtchn::{EvtchnTable, Peer, Wake};
use crate::grant::ops::{self, Party};
use crate::grant::{GrantTable, Granter, Maptrack};
use crate::mm::frame::frames;
use crate::mm::p2m::{Flush, P2m};
use crate::mm::page::PageRef;
use crate::percpu::{self, MAX_CPUS, cpus};
use crate::policy::cpuid::CpuidPolicy;
use crate::policy::msr::MsrPolicy;
use crate::sched::{self, Breaks};
use crate::store::DomainStore;
use crate::time::Clock;
use crate::vcpu::{Signals, Vcpu, clock};

pub use lifecycle::{Life, ShutdownReason};
pub use params::HvmParams;
pub use watchdog::Watchdogs;

/// A domain.
#[derive(Debug)]
pub struct Domain {
    /// Its id; never reused while the hypervisor runs.
    pub id: DomId,
    /// Its name in the system description.
    pub name: String,
    /// Which entry of the system description it was made from.
    pub config_index: usize,
    /// The most pages of RAM it may own.
    pub max_pages: u64,
    /// The memory map it was built with.
    pub memory_map: MemoryMap,
    /// Its time base.
    pub clock: Clock,
    /// True once a vCPU has written its TSC: they may differ now.
    pub tsc_written: AtomicBool,
    /// What CPUID tells its vCPUs.
    pub cpuid: CpuidPolicy,
    /// What its MSRs are.
    pub msrs: MsrPolicy,
    /// The MSR bitmap of its vCPUs.
    pub msr_bitmap: PageRef,
    /// Its physical memory.
    pub p2m: RwLock<P2m>,
    /// Its event channels.
    pub evtchn: Mutex<EvtchnTable>,
    /// Its grant table.
    pub grants: Mutex<GrantTable>,
    /// Its mappings of what others grant it.
    pub maptrack: Mutex<Maptrack>,
    /// Its HVM parameters.
    pub params: Mutex<HvmParams>,
    /// The page that `XENMAPSPACE_shared_info` names.
    pub shared_info: PageRef,
    /// Where the guest put that page last, written under the lock of `p2m`. At first nowhere: a
    /// frame number beyond any address space.
    pub shared_info_gfn: AtomicU64,
    /// The vector of `HVM_PARAM_CALLBACK_IRQ`, or 0: injected whenever an upcall is pending.
    pub callback_vector: AtomicU8,
    /// True when the guest's shared structures have the 64-bit layout.
    pub wide: AtomicBool,
    /// `VMASST_TYPE_*` bits the guest has enabled.
    pub vm_assist: AtomicU32,
    /// The hypervisor's end of the domain's console.
    pub console: DomainConsole,
    /// The hypervisor's end of its way to the xenstore.
    pub store: DomainStore,
    /// Its devices, with their back ends.
    pub devices: Devices,
    /// Its watchdogs.
    pub watchdogs: Watchdogs,
    /// Its vCPUs, by id.
    pub vcpus: Box<[Vcpu]>,
    /// vCPUs that are online.
    pub online: AtomicU32,
    /// Counts the EPT changes after which stale translations must go.
    pub flush_epoch: AtomicU64,
    /// The epoch that each pCPU's caches have seen; less than the first epoch at first, so that
    /// a pCPU starts a domain without what an earlier one left behind.
    pub seen_flush: [AtomicU64; MAX_CPUS],
    /// Where it is in its life.
    pub life: Life,
}

impl Domain {
    /// The vCPU with this id.
    #[must_use]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Vcpu> {
        self.vcpus.get(usize::try_from(id.0).ok()?)
    }

    /// Pages of memory it has: what it sees, and what it has given up that others still hold.
    #[must_use]
    pub fn memory(&self) -> u64 {
        frames().owned_by(self.id).memory
    }

    /// Tells a vCPU that its `evtchn_upcall_pending` was just set.
    pub fn upcall(self: &Arc<Self>, id: VcpuId) {
        let Some(vcpu) = VcpuRef::new(self, id) else {
            return;
        };
        let vector = vcpu.upcall_vector.load(Ordering::Relaxed);
        if vector != 0 {
            vcpu.inbox.post(vector);
        }
        vcpu.kick();
    }

    /// Makes a port of this domain pending and wakes whom that concerns.
    pub fn raise_port(self: &Arc<Self>, port: EvtchnPort) {
        let wake = self.evtchn.lock().deliver(port);
        self.wake(wake);
    }

    /// Tells the vCPUs that an event operation names, if any.
    #[inline]
    pub fn wake(self: &Arc<Self>, wake: Wake) {
        if !wake.is_none() {
            self.wake_all(wake);
        }
    }

    #[inline(never)]
    fn wake_all(self: &Arc<Self>, wake: Wake) {
        for id in wake.upcalls {
            self.upcall(id);
        }
        for id in wake.pollers {
            if let Some(vcpu) = VcpuRef::new(self, id) {
                vcpu.signal(Signals::POLL_DONE);
            }
        }
    }

    /// Makes sure no pCPU uses a translation that was removed from the domain's EPT before the
    /// call. The caller holds no lock.
    ///
    /// A pCPU that runs the domain is kicked out of its guest and drops its stale translations
    /// before it enters again; one that does not will do so when it next does. While waiting,
    /// the caller serves the same request from others, so two callers never wait for each other.
    pub fn flush_translations(&self) {
        let epoch = self
            .flush_epoch
            .fetch_add(1, Ordering::SeqCst)
            .wrapping_add(1);
        let me = percpu::current();
        let id = u32::from(self.id.0);
        let runs_stale = |cpu: &percpu::PerCpu| {
            cpu.running_domain.load(Ordering::SeqCst) == id
                && self
                    .seen_flush
                    .get(cpu.id as usize)
                    .is_some_and(|seen| seen.load(Ordering::SeqCst) < epoch)
        };
        for cpu in cpus().filter(|cpu| cpu.id != me.id && runs_stale(cpu)) {
            cpu.wake();
        }
        crate::vcpu::run::catch_up_with_flushes(me, self);
        for cpu in cpus().filter(|cpu| cpu.id != me.id) {
            while runs_stale(cpu) {
                crate::vcpu::run::catch_up_with_flushes(me, self);
                core::hint::spin_loop();
            }
        }
    }

    /// Completes a change of the p2m: what was taken out of it is free once no pCPU can reach it.
    /// The caller holds no lock.
    pub fn complete(&self, flush: Flush) {
        if flush.is_needed() {
            self.flush_translations();
        }
        flush.done();
    }

    /// Fills in the time in the shared page: the wall clock, and each vCPU's system time.
    pub fn publish_time(&self) {
        let clock = &self.clock;
        let page = &self.shared_info;
        let (version, seconds, nanoseconds, high) = if self.wide.load(Ordering::Relaxed) {
            use shared_info::{WC_NSEC, WC_SEC, WC_SEC_HI, WC_VERSION};
            (WC_VERSION, WC_SEC, WC_NSEC, WC_SEC_HI)
        } else {
            use shared_info::compat::{WC_NSEC, WC_SEC, WC_SEC_HI, WC_VERSION};
            (WC_VERSION, WC_SEC, WC_NSEC, WC_SEC_HI)
        };
        let [low_word, high_word] = [clock.wall_seconds, clock.wall_seconds >> 32].map(low32);
        page.u32(version).store(1, Ordering::Relaxed);
        fence(Ordering::Release);
        page.u32(seconds).store(low_word, Ordering::Relaxed);
        page.u32(nanoseconds).store(0, Ordering::Relaxed);
        page.u32(high).store(high_word, Ordering::Relaxed);
        page.u32(version).store(2, Ordering::Release);
        for vcpu in &self.vcpus {
            self.publish_vcpu_time(vcpu);
        }
    }

    /// Fills in a vCPU's time wherever it wants it.
    pub fn publish_vcpu_time(&self, vcpu: &Vcpu) {
        let info = vcpu.info.lock();
        let record = self.time_record(vcpu);
        if let Some(info) = &*info {
            info.publish_time(&record);
        }
        vcpu.clock.publish(&record);
    }

    /// A vCPU's time as it is now.
    #[must_use]
    pub fn time_record(&self, vcpu: &Vcpu) -> clock::Record {
        let stable = !self.tsc_written.load(Ordering::SeqCst);
        vcpu.clock.record(&self.clock, stable)
    }

    /// A vCPU has written its TSC, which is now `offset` ahead of the host's.
    pub fn set_tsc_offset(&self, vcpu: &Vcpu, offset: u64) {
        vcpu.clock.set_offset(offset);
        if self.tsc_written.swap(true, Ordering::SeqCst) {
            self.publish_vcpu_time(vcpu);
        } else {
            self.publish_time();
        }
    }

    /// Frees what a domain owns, when no pCPU runs it any more: its peers learn that their
    /// channels are closed, its memory goes back.
    pub fn release(self: &Arc<Self>, breaks: &mut Breaks<'_>) {
        for cpu in cpus() {
            let mut loaded = cpu.loaded.lock();
            if loaded
                .as_ref()
                .is_some_and(|vcpu| Arc::ptr_eq(vcpu.domain(), self))
            {
                *loaded = None;
            }
        }
        let mut from = EvtchnPort(1);
        loop {
            let closed = self.evtchn.lock().close_next(from);
            let Some(closed) = closed else { break };
            from = closed.port;
            if let Some(peer) = closed.peer
                && let Some(other) = list::by_id(peer.dom)
            {
                let me = Peer {
                    dom: self.id,
                    port: closed.port,
                };
                other.evtchn.lock().peer_closed(peer.port, me);
            }
            breaks.give_way();
        }
        self.devices.release(self, || breaks.give_way());
        self.grants.lock().close();
        let mut from = Gfn::new(0);
        while !self.p2m.write().release(&mut from) {
            breaks.give_way();
        }
        while ops::release(&self.party(), list::by_id, |domain| domain.party()) {
            breaks.give_way();
        }
        sched::dismiss(self.vcpus.len());
    }

    /// The domain as one who grants, and who uses grants.
    #[must_use]
    pub const fn party(&self) -> Party<'_> {
        Party {
            id: self.id,
            table: &self.grants,
            maptrack: &self.maptrack,
            p2m: &self.p2m,
        }
    }

    /// Pins the guest page `gfn`, which must be writable RAM.
    ///
    /// # Errors
    /// As [`P2m::pin`].
    pub fn pin(&self, gfn: Gfn) -> Result<PageRef, abi::Errno> {
        self.p2m.read().pin(gfn)
    }
}

impl Granter for Domain {
    #[inline]
    fn party(&self) -> Party<'_> {
        Self::party(self)
    }
}

/// A counted reference to one vCPU of a domain.
#[derive(Clone, Debug)]
pub struct VcpuRef {
    domain: Arc<Domain>,
    index: usize,
}

impl VcpuRef {
    /// The vCPU with this id, if the domain has it.
    #[must_use]
    pub fn new(domain: &Arc<Domain>, id: VcpuId) -> Option<Self> {
        let index = usize::try_from(id.0).ok()?;
        (index < domain.vcpus.len()).then(|| Self {
            domain: Arc::clone(domain),
            index,
        })
    }

    /// The vCPU's domain.
    #[must_use]
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// True when both refer to the same vCPU.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.index == other.index && Arc::ptr_eq(&self.domain, &other.domain)
    }
}

impl core::ops::Deref for VcpuRef {
    type Target = Vcpu;

    fn deref(&self) -> &Vcpu {
        let vcpu = self.domain.vcpus.get(self.index);
        vcpu.or_broken("`new` checked the index, and the slice never changes")
    }
}
