//! From the first Rust line to the core: the order in which everything is set up.
#![expect(
    unsafe_code,
    reason = "the entry point, and the step to the CPU's own stack"
)]

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;

use abi::Hpa;
use boot::madt::Cpu;
use vmm_core::boot_info::{self, BootInfo, PhysicalCpu};
use vmm_core::machine::refuse;
use vmm_core::mm::directmap::{self, DIRECTMAP_BASE};
use vmm_core::percpu;
use vmm_core::platform::{self, End, Platform, VECTOR_COM1, VECTOR_ISA};
use vmx::cpu::{apic, msr, tsc};

use crate::console::{log as hypervisor_log, serial};
use crate::cpu::tables::{self, Segments};
use crate::cpu::{local, traps};
use crate::device::interrupts::{self, Lines};
use crate::entry::Protocol;
use crate::loader::Loaded;
use crate::machine::clocks::{self, Rates};
use crate::machine::{acpi, ioapic};
use crate::memory::stacks::Stacks;
use crate::memory::{self, Memory};
use crate::{device, end, layout, panic, smp};

/// The first CPU's segments until it gets those with interrupt stacks.
static mut EARLY_SEGMENTS: Segments = Segments::new();

/// What the first CPU carries over to its own stack.
struct Found {
    loaded: Loaded,
    memory: Memory,
    entry_tsc: u64,
}

/// The first Rust code, called by the entry code.
///
/// # Safety
/// Called once, by the entry code, with what the loader left.
pub(crate) unsafe extern "C" fn boot_start(protocol: u32, info: u32, entry_tsc: u64) -> ! {
    let segments = &raw mut EARLY_SEGMENTS;
    // SAFETY: the only reference, since this runs once.
    let segments: &'static mut Segments = unsafe { &mut *segments };
    segments.load();
    // SAFETY: one CPU runs.
    unsafe { tables::init_interrupts() };
    let has_port = serial::init();
    hypervisor_log::init(entry_tsc);
    platform::register(PLATFORM);
    // SAFETY: the entry code's tables map this much of all memory, RAM included.
    unsafe { directmap::init(DIRECTMAP_BASE, Hpa::new(memory::EARLY_LIMIT)) };
    // SAFETY: the entry code passes on what the loader left, and its tables are in use.
    let loaded = unsafe { Loaded::read(Protocol::from_raw(protocol), info) };
    apply_options(loaded.cmdline);
    log::info!(
        "Tessera {}, loaded by {}",
        env!("CARGO_PKG_VERSION"),
        loaded.loader
    );
    log::info!("command line: {}", loaded.cmdline);
    if !has_port {
        log::warn!("no serial port at COM1");
    }
    if loaded.memory.is_empty() {
        refuse(format_args!("the boot loader gave no memory map"));
    }
    // SAFETY: once, one CPU, the entry code's tables; the loader's leftovers are in `loaded`.
    let memory = unsafe { memory::init(&loaded) };
    let found = Box::into_raw(Box::new(Found {
        loaded,
        memory,
        entry_tsc,
    }));
    let top = give_stacks();
    // SAFETY: (1) the stack was mapped for this CPU; (2) `on_own_stack` never returns, and takes
    // the pointer over.
    unsafe {
        asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            top = in(reg) top,
            next = sym on_own_stack,
            in("rdi") found,
            options(noreturn),
        )
    }
}

/// Maps the first CPU's stacks, and returns the top of the main one.
fn give_stacks() -> u64 {
    let Some(stacks) = Stacks::allocate() else {
        refuse(format_args!("no memory is left for the first CPU's stacks"))
    };
    let segments = Box::leak(Box::new(Segments::new()));
    segments.set_interrupt_stacks(stacks.interrupt);
    local::register(0, 0, segments.address());
    segments.load();
    // SAFETY: one CPU runs, and its segments have the stacks.
    unsafe { tables::use_interrupt_stacks() };
    stacks.main
}

extern "C" fn on_own_stack(found: *mut Found) -> ! {
    // SAFETY: `boot_start` made the box and gave it up.
    let Found {
        loaded,
        memory,
        entry_tsc,
    } = *unsafe { Box::from_raw(found) };
    let firmware = acpi::read(loaded.rsdp, memory.mapped.regions());
    if let Some(power) = firmware.power {
        end::set_power(power);
    }
    ioapic::silence_pics();
    start_local_apic();
    panic::local_apic_works();
    let apic_id = apic::id();
    percpu::install(0, apic_id);
    let rates = measure_clocks(firmware.pm_timer);
    let (seconds, wall_clock_tsc) =
        clocks::wall_clock(firmware.century_register).unwrap_or_else(|| {
            log::warn!("the CMOS clock shows no date: wall clock time starts at 1970");
            (0, tsc::rdtsc())
        });
    if let Some(madt) = &firmware.madt {
        ioapic::mask_all(madt);
    }
    let lines = Lines::new(firmware.madt.as_ref(), apic_id);
    if lines.isa(VECTOR_COM1 - VECTOR_ISA) {
        serial::use_interrupts();
    } else {
        log::warn!("no IOAPIC has COM1's line: the console is polled");
        serial::send_at_once();
    }
    let devices = device::init(firmware.mcfg, &memory, lines, rates.tsc_khz);
    let listed = firmware.madt.as_ref().map_or(&[][..], |madt| &madt.cpus);
    let cpus = start_cpus(listed, apic_id, &memory, rates.tsc_khz);
    let boot_info = BootInfo {
        ram: Vec::from(memory.ram.regions()).leak(),
        image: layout::image(),
        boot_memory: memory.boot_memory,
        direct_map_limit: memory.limit,
        archive: memory::archive(&loaded),
        cpus,
        disks: devices.disks,
        cards: devices.cards,
        tsc_khz: rates.tsc_khz,
        entry_tsc,
        wall_clock_seconds: seconds,
        wall_clock_tsc,
        cmdline: loaded.cmdline,
        loader: loaded.loader,
    };
    smp::release();
    vmm_core::start::start(boot_info)
}

/// Starts the calling CPU's local APIC.
pub(crate) fn start_local_apic() {
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    let base = msr::read_known(msr::Known::ApicBase) & ADDRESS;
    let registers = (base < memory::EARLY_LIMIT).then_some(DIRECTMAP_BASE + base);
    // SAFETY: the direct map has all below 4 GiB, devices uncached; no CPU moves its registers.
    if let Err(error) = unsafe { apic::init(registers) } {
        refuse(format_args!("{error}"));
    }
}

fn measure_clocks(pm_timer: Option<u16>) -> Rates {
    let Some(rates) = clocks::measure(pm_timer) else {
        refuse(format_args!(
            "Tessera needs the ACPI PM timer or the PIT: neither counts on this machine"
        ))
    };
    hypervisor_log::set_clock(rates.tsc_khz);
    log::info!(
        "clock: TSC {} kHz by the {}",
        rates.tsc_khz,
        rates.reference
    );
    rates
}

fn start_cpus(
    listed: &[Cpu],
    apic_id: u32,
    memory: &Memory,
    tsc_khz: u64,
) -> &'static [PhysicalCpu] {
    let acpi_uid = listed
        .iter()
        .find(|cpu| cpu.apic_id == apic_id)
        .map_or(0, |cpu| cpu.acpi_uid);
    let mut cpus = vec![PhysicalCpu { apic_id, acpi_uid }];
    smp::start_all(listed, memory.start_up_page, tsc_khz, |cpu| {
        let Cpu { apic_id, acpi_uid } = cpu;
        cpus.push(PhysicalCpu { apic_id, acpi_uid });
    });
    log::info!("smp: {} of {} CPUs run", cpus.len(), listed.len().max(1));
    cpus.leak()
}

/// Applies the options that boot itself has.
fn apply_options(cmdline: &str) {
    if let Some(level) = boot_info::option(cmdline, "loglevel")
        && !hypervisor_log::set_level(level)
    {
        log::warn!("loglevel={level}: not one of off, error, warn, info, debug, trace");
    }
    match boot_info::option(cmdline, "console") {
        None | Some("com1") => {}
        Some("none") => serial::disable(),
        Some(other) => log::warn!("console={other}: neither com1 nor none"),
    }
    match boot_info::option(cmdline, "on-panic").map(|name| (name, End::from_name(name))) {
        None => {}
        Some((_, Some(end))) => platform::set_panic_end(end),
        Some((name, None)) => log::warn!("on-panic={name}: not one of halt, reboot, poweroff"),
    }
    if let Some(text) = boot_info::option(cmdline, "exit-port") {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        match u16::from_str_radix(digits, 16) {
            Ok(number) => end::set_exit_port(number),
            Err(_) => log::warn!("exit-port={text}: no hexadecimal port number"),
        }
    }
}

const PLATFORM: Platform = Platform {
    console_write: serial::write,
    console_read: serial::read,
    console_flush: serial::flush,
    device_interrupt: |vector| {
        if vector == VECTOR_COM1 {
            serial::interrupt();
        } else {
            interrupts::serve(vector);
        }
    },
    end_of_interrupt: apic::eoi,
    nmi: traps::raise_nmi,
    machine_check: traps::raise_machine_check,
    end: end::end,
};
