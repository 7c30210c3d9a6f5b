//! A machine in the memory of a process, and guests on it: the code of the core as it is, from the
//! exit handlers down, on a model of the VMCS (`vmx/src/instr/model.rs`).
//!
//! There is one pCPU, and no guest code: a test decides what exits there are
//! ([`Guest::hypercall`], [`Guest::exit`]). The memory that a guest sees is real, and so are its
//! page tables, event channels, grants and its way to the xenstore.

mod guest;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::{Mutex, MutexGuard, Once};
use system::network::{Action, MacAddr, NetworkConfig, VifConfig};
use system::synthetic::{Elf, LOAD};
use system::{
    Archive, Config, DiskConfig, DiskName, DomainConfig, FileId, GrantLimits, MemoryBacking,
    OnReboot, Quotas, Share,
};
use vmx::caps::{Controls, Features, FixedBits};
use vmx::cpu::last_branch::Stack;
use vmx::cpu::speculation::Mitigations;

use crate::boot_info::{BootInfo, MemoryRegion, PhysicalCpu};
use crate::machine::{self, Machine};
use crate::mm::frame::{Census, frames};
use crate::mm::testing;
use crate::policy::msr::HostMsrs;
use crate::sched::breaks::Breaks;
use crate::{network, percpu, store};

pub use guest::{CODE, Guest, STACK};

/// Pages of RAM that each guest has, and the most that it may have.
pub const RAM: u64 = 320;
/// The most pages it may have.
pub const MAX_RAM: u64 = 384;
/// vCPUs of each guest.
pub const VCPUS: u32 = 3;

/// Sectors of the disk of each guest with devices.
pub const SECTORS: u64 = 64;
/// The addresses of the network interfaces of such guests, which may use two more each.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// Bits of a physical address.
const PHYS_BITS: u8 = 39;
/// The CPU's signature, for what goes by the model.
const SKYLAKE: u32 = 0x0005_0654;
/// What the machine's VT-x can do, of what the core looks at outside of VM entry.
const FEATURES: Features = Features::EPT_2M
    .union(Features::EPT_1G)
    .union(Features::INVEPT_SINGLE)
    .union(Features::PREEMPTION_TIMER)
    .union(Features::PAT);

static MACHINE: Once = Once::new();
static IN_USE: Mutex<()> = Mutex::new(());
static USES: AtomicU32 = AtomicU32::new(0);

/// The machine, for one test at a time.
#[derive(Debug)]
pub struct TestMachine {
    vmx: vmx::VmxOn,
    before: Census,
    _alone: MutexGuard<'static, ()>,
}

impl TestMachine {
    /// Waits for the machine, which is empty then.
    #[must_use]
    pub fn take() -> Self {
        let alone = IN_USE.lock();
        MACHINE.call_once(start);
        Self {
            vmx: vmx::VmxOn::of_thread(FEATURES),
            before: frames().census(),
            _alone: alone,
        }
    }

    /// What long work gets, which has no breaks here.
    fn breaks(&self) -> Breaks<'_> {
        Breaks::new(percpu::current(), &self.vmx)
    }

    /// Ends the use of the machine: every frame that guests had is free again.
    ///
    /// # Panics
    /// When one is not, or the frame table does not add up.
    pub fn check_empty(self) {
        let after = frames().census();
        // Counting them all takes as long as hundreds of hypercalls.
        if USES.fetch_add(1, Ordering::Relaxed).is_multiple_of(32) {
            assert!(frames().audit().1, "the frame table adds up: {after:?}");
        }
        // The frame table itself may have grown by its accounts of domains, which it keeps.
        let grown = after.frame_table - self.before.frame_table;
        let before = Census {
            free: self.before.free - grown,
            frame_table: after.frame_table,
            ..self.before
        };
        assert_eq!(after, before, "frames after and before");
    }
}

fn start() {
    testing::init();
    percpu::install(0, 0);
    let bits = FixedBits {
        must_be_1: 0,
        may_be_1: u64::MAX,
    };
    machine::set(Machine {
        boot: boot_info(),
        archive: archive(),
        controls: Controls {
            pin: 0,
            primary: 0,
            secondary: 0,
            exit: 0,
            entry: 0,
            features: FEATURES,
            cr0: bits,
            cr4: bits,
            eptp_template: 0,
            preemption_timer_shift: 0,
            vmcs_size: 4096,
            revision: 1,
        },
        mitigations: Mitigations::default(),
        host_msrs: HostMsrs {
            last_branches: Stack::of_model(SKYLAKE),
            ..HostMsrs::default()
        },
        phys_bits: PHYS_BITS,
    });
    store::init();
    network::init(&machine::config().networks, &[]);
}

fn boot_info() -> BootInfo {
    const NOWHERE: MemoryRegion = MemoryRegion {
        start: abi::Hpa::new(0),
        end: abi::Hpa::new(0),
    };
    const CPUS: &[PhysicalCpu] = &[PhysicalCpu {
        apic_id: 0,
        acpi_uid: 0,
    }];
    BootInfo {
        ram: &[],
        image: NOWHERE,
        boot_memory: NOWHERE,
        direct_map_limit: abi::Hpa::new(0),
        archive: None,
        cards: &[],
        cpus: CPUS,
        disks: &[],
        tsc_khz: 1_000_000,
        entry_tsc: 0,
        wall_clock_seconds: 0,
        wall_clock_tsc: 0,
        cmdline: "",
        loader: "",
    }
}

/// A system of a guest without devices, and of those with a disk and a network interface.
#[expect(clippy::expect_used, reason = "a system of our own")]
fn archive() -> Archive<'static> {
    let kernel = Elf {
        segments: Vec::from([(LOAD, Vec::from([0xf4]), 0x1000)]),
        ..Elf::default()
    };
    let with_devices = MACS.map(|mac| DomainConfig {
        name: alloc::format!("guest{}", mac[5]),
        disks: Vec::from([DiskConfig {
            name: DiskName(0),
            source: system::DiskSource::Ram {
                image: None,
                sectors: SECTORS,
            },
            read_only: false,
        }]),
        vifs: Vec::from([VifConfig {
            network: 0,
            mac: MacAddr(mac),
            more_addresses: 2,
            rate: None,
            rules: Vec::new(),
            otherwise: Action::Allow,
        }]),
        ..domain()
    });
    let config = Config {
        domains: [domain()].into_iter().chain(with_devices).collect(),
        networks: Vec::from([NetworkConfig::new("lan".into())]),
        ..Config::default()
    };
    let bytes = system::write_archive(&config, &[("kernel", &kernel.build())]);
    let bytes = Box::leak(bytes.expect("a sound system").into_boxed_slice());
    Archive::parse(bytes).expect("what was just written")
}

/// A guest with little room in everything.
fn domain() -> DomainConfig {
    DomainConfig {
        name: "guest".into(),
        kernel: FileId(0),
        initrd: None,
        cmdline: "".into(),
        memory_pages: RAM,
        vcpus: VCPUS,
        affinity: None,
        quotas: Quotas {
            max_memory_pages: MAX_RAM,
            event_ports: 200,
            table_frames: 64,
            grants: GrantLimits {
                max_version: 2,
                max_frames: 4,
                max_maptrack_frames: 1,
            },
        },
        share: Share::default(),
        backing: MemoryBacking::OnTouch,
        on_reboot: OnReboot::Stop,
        disks: Vec::new(),
        vifs: Vec::new(),
    }
}
