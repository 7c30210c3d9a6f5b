//! From a machine that boot has brought up to domains that run, and on until the last has ended.

use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;
use system::{Archive, ArchiveError, OnReboot};
use vmx::VmxOn;
use vmx::caps::{CapMsrs, Controls, FeatureMask};
use vmx::cpu::speculation::Mitigations;
use vmx::cpu::{dr, fpu};

use crate::boot_info::BootInfo;
use crate::domain::build::CreateError;
use crate::domain::{Domain, ShutdownReason, build, lifecycle, list};
use crate::machine::{self, Machine, refuse};
use crate::mm::directmap;
use crate::mm::frame::{Owner, frames};
use crate::mm::page::PageRef;
use crate::platform::{self, End, Hooks};
use crate::sched::Breaks;
use crate::{console, emulate, network, percpu, sched, stats, storage, store, time};

/// A domain that asks for a restart sooner after its start than this is stopped instead, lest
/// a guest that cannot start fills the log for ever. In nanoseconds of its system time.
const SHORTEST_LIFE_NS: u64 = 1_000_000_000;

/// Frames that no domain gets, by ballooning or else: 4 MiB, or a sixteenth of a small machine.
const RESERVE: u64 = 1024;

/// Set once the machine is known and the other pCPUs may enter VMX operation.
static READY: AtomicBool = AtomicBool::new(false);
static BOOT: Once<BootInfo> = Once::new();

/// Starts the core on the boot pCPU. Boot has installed this pCPU's [`percpu::PerCpu`].
pub fn start(boot: BootInfo) -> ! {
    let boot = *BOOT.call_once(|| boot);
    time::set_tsc_khz(boot.tsc_khz);
    platform::set_hooks(Hooks {
        interrupt: host_vector,
        log_line: console::log_line,
        epitaph: stats::epitaph,
    });
    for disk in boot.disks {
        log::info!("disk: {}", disk.info());
    }
    let archive = open_archive(&boot);
    apply_options(&boot, &archive);
    let controls = negotiate(&boot, &archive);
    machine::set(Machine {
        boot,
        archive,
        controls,
        mitigations: Mitigations::detect(),
        host_msrs: machine::read_host_msrs(),
        phys_bits: vmx::cpu::cpuid::physical_address_bits(),
    });
    if machine::get().mitigations.l1tf_unmitigated {
        log::warn!("this CPU has L1TF and no L1D flush: update its microcode");
    }
    let vmx = enter_vmx();
    storage::claims::init(boot.disks, machine::config(), boot.direct_map_limit);
    network::init(&machine::config().networks, boot.cards);
    let census = frames().census();
    stats::note_start(&census);
    frames().set_reserve(RESERVE.min(census.total / 16));
    READY.store(true, Ordering::Release);
    emulate::prepare();
    store::init();
    build_all(&mut sched::join(&vmx));
    sched::cpu_loop(&vmx)
}

/// Starts the core on another pCPU, once the boot pCPU is ready for it.
pub fn start_ap() -> ! {
    while !READY.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let vmx = enter_vmx();
    sched::join(&vmx);
    sched::cpu_loop(&vmx)
}

fn open_archive(boot: &BootInfo) -> Archive<'static> {
    let Some(bytes) = boot.archive else {
        refuse(format_args!(
            "no boot archive: load it as the first module (multiboot2) or as the initrd (PVH)"
        ))
    };
    match Archive::parse(bytes) {
        Ok(archive) => archive,
        Err(error) => refuse_archive(&error),
    }
}

fn refuse_archive(error: &ArchiveError) -> ! {
    refuse(format_args!("{error}"))
}

/// Options of the command line count more than those of the archive.
fn apply_options(boot: &BootInfo, archive: &Archive<'_>) {
    let host = &archive.config().host;
    if boot.option("on-panic").is_none() {
        platform::set_panic_end(machine::end_of(host.on_panic));
    }
    if boot.option("loglevel").is_none() {
        log::set_max_level(machine::level_of(host.log_level));
    }
}

/// Finds out what this CPU's VT-x can do and chooses the controls, or refuses in one line.
fn negotiate(boot: &BootInfo, archive: &Archive<'_>) -> Controls {
    let caps: CapMsrs = match vmx::available() {
        Ok(caps) => caps,
        Err(error) => refuse(format_args!("{error}")),
    };
    let mask = feature_mask(boot, archive);
    match vmx::caps::negotiate(&caps, &mask) {
        Ok(controls) => {
            controls.report(|line| log::info!("{line}"));
            controls
        }
        Err(missing) => match missing.first() {
            Some(first) => {
                for other in missing.iter().skip(1) {
                    log::error!("{other}");
                }
                refuse(format_args!("{first}"))
            }
            None => refuse(format_args!("this CPU's VT-x cannot be used")),
        },
    }
}

/// The optional features that the command line and the system description hide.
fn feature_mask(boot: &BootInfo, archive: &Archive<'_>) -> FeatureMask {
    let mut names = String::from(boot.option("vmx.mask").unwrap_or(""));
    for name in &archive.config().host.vmx_mask {
        names.push(',');
        names.push_str(name);
    }
    match FeatureMask::parse(&names) {
        Ok(mask) => mask,
        Err(unknown) => refuse(format_args!("vmx.mask: {unknown}")),
    }
}

/// Prepares the calling pCPU for guests and turns VMX operation on.
fn enter_vmx() -> VmxOn {
    dr::disable_breakpoints();
    fpu::init_cpu();
    machine::get().mitigations.init_cpu();
    let Some(region) = PageRef::alloc(Owner::Cpu) else {
        no_memory()
    };
    let virt = directmap::ptr(region.mfn().hpa());
    match machine::enable_vmx(region, virt) {
        Ok(vmx) => vmx,
        Err(error) => refuse(format_args!("cpu{}: {error}", percpu::current().id)),
    }
}

fn no_memory() -> ! {
    refuse(format_args!(
        "no memory is left for the hypervisor itself: give the machine more"
    ))
}

/// Builds every domain of the system description. One whose disk is not there does not start; any
/// other that cannot be built ends the run: the machine would not be what was asked for.
fn build_all(breaks: &mut Breaks<'_>) {
    for index in 0..machine::config().domains.len() {
        let name = &machine::config().domains[index].name;
        match build::create(index, breaks) {
            Ok(_) => {}
            Err(error @ CreateError::Disk(_)) => log::error!("{name}: not started: {error}"),
            Err(error) => refuse(format_args!("{name}: {error}")),
        }
    }
    if list::is_empty() && !lifecycle::has_ended() {
        refuse(format_args!("no domain could be started"));
    }
}

/// Frees the domains that have ended and does what follows.
pub fn reap(breaks: &mut Breaks<'_>) {
    while let Some(domain) = lifecycle::take_ended() {
        let reason = domain.life.ending().unwrap_or(ShutdownReason::Crash);
        let lived = domain.clock.system_time(time::Tsc::now());
        let (index, name) = (domain.config_index, domain.name.clone());
        free(domain, breaks);
        if wants_restart(index, reason) {
            if lived < SHORTEST_LIFE_NS {
                log::error!("{name}: not restarted: it asked for that within a second");
            } else if let Err(error) = build::create(index, breaks) {
                log::error!("{name}: not restarted: {error}");
            }
        }
        if list::is_empty() {
            let end = machine::end_of(machine::config().host.on_idle);
            stats::report_host();
            platform::end(
                end,
                format_args!("every domain has ended, the last by {reason}"),
            );
        }
    }
}

/// Frees a domain whose vCPUs have all left.
pub(crate) fn free(domain: Arc<Domain>, breaks: &mut Breaks<'_>) {
    let (id, name) = (domain.id, domain.name.clone());
    stats::report_domain(&domain);
    breaks.give_way();
    console::detach(&domain);
    breaks.give_way();
    store::release(&domain, &mut || breaks.give_way());
    breaks.give_way();
    list::remove(id);
    domain.release(breaks);
    drop(domain);
    breaks.give_way();
    stats::report_end(id, &name);
}

fn wants_restart(config_index: usize, reason: ShutdownReason) -> bool {
    let restarts = machine::config().domains[config_index].on_reboot == OnReboot::Restart;
    restarts && matches!(reason, ShutdownReason::Reboot | ShutdownReason::SoftReset)
}

/// Ends the run because somebody at the console asked for it.
pub fn quit() -> ! {
    stats::report_host();
    platform::end(End::Poweroff, format_args!("asked for on the console"))
}

/// The vectors that are the core's own: both only have to end a HLT or a guest's turn.
fn host_vector(vector: u8) {
    match vector {
        platform::VECTOR_TIMER | platform::VECTOR_WAKE => {}
        other => log::warn!(
            "cpu{}: interrupt on unused vector {other:#x}",
            percpu::current().id
        ),
    }
}
