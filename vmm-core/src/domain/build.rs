//! A domain from its description: memory, images, event channels, vCPUs.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use abi::grant_table::{RESERVED_CONSOLE, RESERVED_XENSTORE};
use abi::hvm::param;
use abi::{DomId, Errno, EvtchnPort, Gfn, Gpa, GrantRef, PAGE_SHIFT, PAGE_SIZE, VcpuId};
use spin::{Mutex, RwLock};
use system::{ArchiveError, DomainConfig, MemoryBacking};
use vmx::caps::Features;

use super::{Domain, HvmParams, Life, VcpuRef, Watchdogs, list};
use crate::backend::{DeviceError, Devices};
use crate::builder::memmap::{ACPI_GFN, CONSOLE_GFN, MemoryMap, XENSTORE_GFN};
use crate::builder::{BuildError, DomainImage, Entry, GuestWriter};
use crate::console::DomainConsole;
use crate::evtchn::{EvtchnTable, Service};
use crate::grant::{GrantTable, Maptrack};
use crate::machine::{self, Machine};
use crate::mm::frame::{Owner, frames};
use crate::mm::guest_mem::GuestMemory;
use crate::mm::p2m::{Backing, Limits, P2m, PageCache, PageCounts, PageKind, Perms};
use crate::mm::page::PageRef;
use crate::mm::scratch::Scratch;
use crate::percpu::{self, MAX_CPUS};
use crate::policy::cpuid::{self, CpuidPolicy, Registers, Spec, Usable};
use crate::policy::msr::MsrPolicy;
use crate::sched::bvt::Share;
use crate::sched::{self, Breaks};
use crate::stats::BuildStats;
use crate::store::{self, DomainStore};
use crate::time::{self, Clock, Scale, Tsc};
use crate::vcpu::{Context, InitialState, Placement, Vcpu, VcpuInfo};

/// Frames that a domain costs besides its RAM: tables, shared pages, vCPUs; a rough upper bound
/// used to refuse early.
const OVERHEAD_FRAMES: u64 = 64;
/// The most a decompressor may take from the heap at once, in bytes; half of what is free if
/// that is less.
const HEAP_LIMIT: u64 = 64 << 20;

/// The reason of the shutdown that follows a triple fault, unless the guest chooses another.
const TRIPLE_FAULT_REBOOTS: u64 = 1;

/// Why a domain could not be created.
#[derive(Debug)]
pub enum CreateError {
    /// The machine has too little free memory.
    Memory {
        /// Pages that the domain wants.
        wanted: u64,
        /// Pages that are free.
        free: u64,
    },
    /// Its images are no good.
    Build(BuildError),
    /// The machine does not have a disk as it is described.
    Disk(&'static str),
    /// Memory ran out on the way.
    OutOfMemory,
    /// An affinity names no pCPU that runs.
    Affinity,
    /// There are no domain ids left.
    NoId,
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |pages: &u64| pages >> (20 - PAGE_SHIFT);
        match self {
            Self::Memory { wanted, free } => write!(
                f,
                "needs {} MiB of memory, this machine has {} MiB free: give the domain less or \
                 the machine more",
                mib(wanted),
                mib(free)
            ),
            Self::Build(error) => error.fmt(f),
            Self::Disk(why) => f.write_str(why),
            Self::OutOfMemory => f.write_str("memory ran out while it was built"),
            Self::Affinity => {
                f.write_str("its affinity names no CPU that runs: name others, or none")
            }
            Self::NoId => f.write_str("no domain id is left: restart the machine"),
        }
    }
}

impl From<BuildError> for CreateError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<ArchiveError> for CreateError {
    fn from(error: ArchiveError) -> Self {
        Self::Build(error.into())
    }
}

impl From<DeviceError> for CreateError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Archive(error) => error.into(),
            DeviceError::Disk(why) => Self::Disk(why),
        }
    }
}

impl From<xenstore::Error> for CreateError {
    fn from(_: xenstore::Error) -> Self {
        Self::OutOfMemory
    }
}

impl From<Errno> for CreateError {
    fn from(_: Errno) -> Self {
        Self::OutOfMemory
    }
}

static NEXT_ID: AtomicU16 = AtomicU16::new(1);
static NEXT_HOME: AtomicU32 = AtomicU32::new(0);

fn next_id() -> Option<DomId> {
    let id = DomId(NEXT_ID.fetch_add(1, Ordering::Relaxed));
    if id < DomId::FIRST_RESERVED {
        return Some(id);
    }
    NEXT_ID.store(DomId::FIRST_RESERVED.0, Ordering::Relaxed);
    None
}

/// Creates the domain that an entry of the system description describes and starts its first
/// vCPU.
///
/// # Errors
/// [`CreateError`]; whatever had been allocated is free again.
pub fn create(config_index: usize, breaks: &mut Breaks<'_>) -> Result<Arc<Domain>, CreateError> {
    check_memory(&machine::config().domains[config_index])?;
    let id = next_id().ok_or(CreateError::NoId)?;
    create_as(config_index, id, breaks)
}

/// The same, with an id that no domain has.
pub(crate) fn create_as(
    config_index: usize,
    id: DomId,
    breaks: &mut Breaks<'_>,
) -> Result<Arc<Domain>, CreateError> {
    let machine = machine::get();
    let config = &machine.archive.config().domains[config_index];
    let mut stats = BuildStats::start();
    let mut p2m = P2m::new(id, limits(machine, config))?;
    let mut give_way = || breaks.give_way();
    let assembled = assemble(
        machine,
        config_index,
        id,
        &mut p2m,
        &mut stats,
        &mut give_way,
    );
    let (entry, parts) = assembled.inspect_err(|_| free_memory(&mut p2m, &mut give_way))?;
    let domain = finish(machine, config_index, id, p2m, parts, &mut give_way)?;
    stats.report(&domain.name, &entry);
    start(config, &domain, &entry);
    Ok(domain)
}

/// Frees the pages of a domain that did not come to be.
fn free_memory(p2m: &mut P2m, give_way: &mut dyn FnMut()) {
    let mut from = Gfn::new(0);
    while !p2m.release(&mut from) {
        give_way();
    }
}

/// What this machine's page tables can do, and how large the domain's may grow.
fn limits(machine: &Machine, config: &DomainConfig) -> Limits {
    let features = machine.controls.features;
    Limits {
        address_bits: u32::from(machine.phys_bits),
        large: features.contains(Features::EPT_2M),
        giant: features.contains(Features::EPT_1G),
        table_frames: config.quotas.table_frames,
    }
}

fn check_memory(config: &DomainConfig) -> Result<(), CreateError> {
    let wanted = config.memory_pages;
    let free = frames().available();
    if wanted
        .saturating_add(wanted / 512)
        .saturating_add(OVERHEAD_FRAMES)
        > free
    {
        return Err(CreateError::Memory { wanted, free });
    }
    Ok(())
}

/// The pages that the hypervisor shares with a domain from the start.
struct Parts {
    shared_info: PageRef,
    console: PageRef,
    store: PageRef,
    grants: GrantTable,
    homes: heapless::Vec<u32, MAX_CPUS>,
}

/// Room for a domain's vCPUs with the scheduler; given back if the domain is not made.
struct Admission(usize);

impl Admission {
    fn new(vcpus: u32) -> Result<Self, CreateError> {
        let vcpus = usize::try_from(vcpus).unwrap_or(usize::MAX);
        let admitted = sched::admit(vcpus).then_some(Self(vcpus));
        admitted.ok_or(CreateError::OutOfMemory)
    }

    /// The domain is there, and gives the room back when it goes.
    fn keep(mut self) {
        self.0 = 0;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        sched::dismiss(self.0);
    }
}

fn assemble(
    machine: &Machine,
    config_index: usize,
    id: DomId,
    p2m: &mut P2m,
    stats: &mut BuildStats,
    give_way: &mut dyn FnMut(),
) -> Result<(Entry, Parts), CreateError> {
    let config = &machine.archive.config().domains[config_index];
    let homes = homes(machine, config)?;
    let image = DomainImage::open(&machine.archive, config, give_way)?;
    stats.checked();
    let map = MemoryMap::new(config.memory_pages);
    let backing = match config.backing {
        MemoryBacking::OnTouch => Backing::OnTouch,
        MemoryBacking::AtStart => Backing::Now,
    };
    let mut mapped = PageCounts::default();
    for (gfn, pages) in map.ram() {
        mapped += p2m.populate_in_steps(gfn, pages, backing, give_way)?;
    }
    p2m.populate(ACPI_GFN, 1, Backing::Now)?;
    stats.populated(mapped);
    let entry = {
        let scratch = Scratch::new(image.scratch_size()?, give_way);
        let mut scratch = scratch.ok_or(CreateError::OutOfMemory)?;
        let heap = HEAP_LIMIT.min((frames().free_frames() << PAGE_SHIFT) / 2);
        let heap = usize::try_from(heap).unwrap_or(usize::MAX);
        let kernel = image.unpack(scratch.bytes(), heap, give_way)?;
        stats.unpacked();
        let mut writer = Writer {
            p2m,
            pages: PageCache::new(),
            give_way,
        };
        let entry = image.load(&kernel, &mut writer)?;
        scratch.free(give_way);
        entry
    };
    stats.copied();
    let page = || PageRef::alloc(Owner::Shared(id)).ok_or(CreateError::OutOfMemory);
    let (console, store) = (page()?, page()?);
    for (gfn, page) in [(CONSOLE_GFN, &console), (XENSTORE_GFN, &store)] {
        p2m.insert_page(gfn, page.clone(), PageKind::Shared, Perms::RW)?
            .done();
    }
    let mut grants = GrantTable::new(id, &config.quotas.grants).ok_or(CreateError::OutOfMemory)?;
    grants.permit(GrantRef(RESERVED_CONSOLE), DomId::CONTROL, CONSOLE_GFN)?;
    grants.permit(GrantRef(RESERVED_XENSTORE), DomId::CONTROL, XENSTORE_GFN)?;
    Ok((
        entry,
        Parts {
            shared_info: page()?,
            console,
            store,
            grants,
            homes,
        },
    ))
}

/// How many bytes are copied in one step.
const COPY_STEP: usize = 64 << 10;

/// Copies the builder's output into the domain's memory.
struct Writer<'a> {
    p2m: &'a P2m,
    pages: PageCache,
    give_way: &'a mut dyn FnMut(),
}

impl GuestWriter for Writer<'_> {
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        let memory = GuestMemory::new(self.p2m, &self.pages);
        let mut at = gpa;
        for part in bytes.chunks(COPY_STEP) {
            let end = at.checked_add(part.len() as u64).ok_or(Errno::Efault)?;
            // The guest is about to use it: it need not come back for that.
            let last = Gfn::new(end.raw().div_ceil(PAGE_SIZE as u64));
            self.p2m.touch(at.gfn(), last, self.give_way);
            memory.write_gpa(at, part)?;
            (self.give_way)();
            at = end;
        }
        Ok(())
    }
}

/// The pCPUs that the domain's vCPUs may live on.
fn homes(
    machine: &Machine,
    config: &DomainConfig,
) -> Result<heapless::Vec<u32, MAX_CPUS>, CreateError> {
    let up = percpu::cpus().map(|cpu| cpu.id);
    let homes: heapless::Vec<u32, MAX_CPUS> = match &config.affinity {
        Some(allowed) => up.filter(|id| allowed.contains(id)).collect(),
        None => up.take(machine.boot.cpus.len()).collect(),
    };
    if homes.is_empty() {
        Err(CreateError::Affinity)
    } else {
        Ok(homes)
    }
}

/// A domain's vCPUs, each made for a number and a place among these homes.
fn vcpus(
    config: &DomainConfig,
    homes: &[u32],
    make: &mut dyn FnMut(u32, Placement) -> Option<Vcpu>,
) -> Option<Box<[Vcpu]>> {
    let affinity = homes
        .iter()
        .fold(0, |mask, home| mask | 1u64 << (home & 63));
    let first_home = NEXT_HOME.fetch_add(config.vcpus, Ordering::Relaxed);
    let place = |number: u32| {
        let turn = first_home.wrapping_add(number) as usize % homes.len();
        Placement {
            home: homes.get(turn).copied().unwrap_or(0),
            affinity,
            share: share(config),
        }
    };
    (0..config.vcpus)
        .map(|number| make(number, place(number)))
        .collect()
}

fn finish(
    machine: &Machine,
    config_index: usize,
    id: DomId,
    p2m: P2m,
    parts: Parts,
    give_way: &mut dyn FnMut(),
) -> Result<Arc<Domain>, CreateError> {
    let config = &machine.archive.config().domains[config_index];
    let Parts {
        shared_info,
        console,
        store,
        grants,
        homes,
    } = parts;
    let mut evtchn = EvtchnTable::new(config.quotas.event_ports, config.vcpus, shared_info.clone());
    let store_port = evtchn.open_service(Service::Store)?;
    let console_port = evtchn.open_service(Service::Console)?;
    let clock = clock(machine);
    give_way();
    let cpuid = cpuid_policy(machine, id, config.vcpus, &clock);
    give_way();
    let pat_switched = machine.controls.features.contains(Features::PAT);
    let msrs = MsrPolicy::new(&cpuid, machine.host_msrs, pat_switched);
    let msr_bitmap = machine::make_msr_bitmap(&msrs, id).ok_or(CreateError::OutOfMemory)?;
    let admission = Admission::new(config.vcpus)?;
    let vcpus = vcpus(config, &homes, &mut |number, place| {
        let info = VcpuInfo::in_shared_info(&shared_info, number);
        let number = VcpuId(number);
        give_way();
        let context = Context::new(machine, id, number, &cpuid, &msrs, clock.tsc_offset())?;
        Some(Vcpu::new(number, place, info, context))
    });
    let vcpus = vcpus.ok_or(CreateError::OutOfMemory)?;
    let domain = Arc::new(Domain {
        id,
        name: config.name.clone(),
        config_index,
        // The page of the ACPI tables comes on top.
        max_pages: config.quotas.max_memory_pages.saturating_add(1),
        memory_map: MemoryMap::new(config.memory_pages),
        clock,
        msrs,
        msr_bitmap,
        cpuid,
        p2m: RwLock::new(p2m),
        evtchn: Mutex::new(evtchn),
        grants: Mutex::new(grants),
        maptrack: Mutex::new(Maptrack::new(config.quotas.grants.max_maptrack_frames)),
        params: Mutex::new(hvm_params(console_port, store_port)?),
        shared_info,
        shared_info_gfn: AtomicU64::new(u64::MAX),
        callback_vector: AtomicU8::new(0),
        tsc_written: AtomicBool::new(false),
        wide: AtomicBool::new(true),
        vm_assist: AtomicU32::new(0),
        console: DomainConsole::new(console, console_port),
        store: DomainStore::new(store, store_port),
        devices: Devices::new(&machine.archive, (config_index, config), id, give_way)?,
        watchdogs: Watchdogs::new(),
        vcpus,
        online: AtomicU32::new(0),
        flush_epoch: AtomicU64::new(1),
        seen_flush: [const { AtomicU64::new(0) }; MAX_CPUS],
        life: Life::new(config.vcpus),
    });
    give_way();
    domain.publish_time();
    store::introduce(&domain, give_way)?;
    give_way();
    admission.keep();
    Ok(domain)
}

/// What each vCPU may claim of the pCPUs.
fn share(config: &DomainConfig) -> Share {
    let ticks = |us: u32| time::ticks_from_us(u64::from(us));
    Share {
        weight: NonZeroU32::new(config.share.weight).unwrap_or(NonZeroU32::MIN),
        warp: ticks(config.share.warp),
        warp_limit: ticks(config.share.warp_limit),
        unwarp: ticks(config.share.unwarp),
    }
}

/// What a guest finds in its parameters from the start.
fn hvm_params(console_port: EvtchnPort, store_port: EvtchnPort) -> Result<HvmParams, Errno> {
    let mut params = HvmParams::default();
    params.set(param::CONSOLE_PFN, CONSOLE_GFN.raw())?;
    params.set(param::CONSOLE_EVTCHN, u64::from(console_port.0))?;
    params.set(param::STORE_PFN, XENSTORE_GFN.raw())?;
    params.set(param::STORE_EVTCHN, u64::from(store_port.0))?;
    params.set(param::TRIPLE_FAULT_REASON, TRIPLE_FAULT_REBOOTS)?;
    Ok(params)
}

/// The clock of a domain that begins now.
fn clock(machine: &Machine) -> Clock {
    let now = Tsc::now();
    let since_wall = now.since(Tsc(machine.boot.wall_clock_tsc)) / (time::tsc_khz() * 1000).max(1);
    Clock {
        epoch: now,
        scale: Scale::from_khz(time::tsc_khz()),
        wall_seconds: machine.boot.wall_clock_seconds.saturating_add(since_wall),
    }
}

fn cpuid_policy(machine: &Machine, id: DomId, vcpus: u32, clock: &Clock) -> CpuidPolicy {
    let features = machine.controls.features;
    let usable = Usable {
        invpcid: features.contains(Features::INVPCID),
        rdtscp: features.contains(Features::RDTSCP),
        xsaves: false,
        spec_ctrl: false,
        xcr0: vmx::cpu::fpu::offered_states(),
    };
    let tsc = cpuid::Tsc {
        khz: u32::try_from(time::tsc_khz()).unwrap_or(u32::MAX),
        offset: clock.tsc_offset(),
        mul: clock.scale.mul,
        shift: clock.scale.shift,
    };
    let spec = Spec {
        domid: id,
        vcpus,
        usable,
        tsc,
        upcall_vector: false,
    };
    let host = |leaf, subleaf| {
        let answer = vmx::cpu::cpuid::leaf(leaf, subleaf);
        Registers {
            eax: answer.eax,
            ebx: answer.ebx,
            ecx: answer.ecx,
            edx: answer.edx,
        }
    };
    CpuidPolicy::new(host, &spec)
}

fn start(config: &DomainConfig, domain: &Arc<Domain>, entry: &Entry) {
    log::info!(
        "{}: domain {}: {} MiB, {} vCPU{}",
        domain.name,
        domain.id,
        config.memory_pages >> (20 - PAGE_SHIFT),
        config.vcpus,
        if config.vcpus == 1 { "" } else { "s" }
    );
    list::add(Arc::clone(domain));
    crate::console::attach(domain);
    if let Some(vcpu) = VcpuRef::new(domain, VcpuId(0)) {
        vcpu.start(InitialState::pvh(entry.eip, entry.ebx));
    }
}
