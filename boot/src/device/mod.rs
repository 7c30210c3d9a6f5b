//! The machine's devices: found on the PCI buses, driven by what `devices` knows of them.
//!
//! [`init`] walks the buses once. No function masters its bus or raises its interrupt line but those
//! that a driver has taken ([`Owned`]).

mod ata;
mod config;
mod dma;
mod e1000;
pub(crate) mod interrupts;
mod registers;

use devices::mcfg::{MAX_RANGES, Range};
use devices::pci::{self, Command, Function};
use heapless::Vec;
use vmm_core::network::NetworkCard;
use vmm_core::storage::BlockDevice;
use vmm_core::time::Tsc;
use vmx::cpu::tsc;

use crate::memory::Memory;
use config::Space;
use interrupts::Lines;
use registers::Window;

/// What drivers need of the machine.
struct Machine<'a> {
    config: Space,
    memory: &'a Memory,
    lines: Lines<'a>,
    clock: Clock,
}

/// The TSC as drivers see it, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Clock {
    tsc_khz: u64,
}

/// A function that a driver has taken.
struct Owned<'a> {
    function: Function,
    machine: &'a Machine<'a>,
}

/// What the drivers have found.
#[derive(Debug, Default)]
struct Found {
    disks: alloc::vec::Vec<&'static dyn BlockDevice>,
    cards: alloc::vec::Vec<&'static dyn NetworkCard>,
}

/// What the core may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Devices {
    pub(crate) disks: &'static [&'static dyn BlockDevice],
    pub(crate) cards: &'static [&'static dyn NetworkCard],
}

/// Finds devices and starts their drivers. On the only CPU that runs.
pub(crate) fn init(
    ranges: Vec<Range, MAX_RANGES>,
    memory: &Memory,
    lines: Lines<'_>,
    tsc_khz: u64,
) -> Devices {
    let machine = Machine {
        config: Space::new(ranges, memory),
        memory,
        lines,
        clock: Clock { tsc_khz },
    };
    let mut functions = alloc::vec::Vec::new();
    for segment in machine.config.segments() {
        pci::scan(&machine.config, segment, |function| {
            machine.quiet(function);
            functions.push(*function);
        });
    }
    log::info!("pci: {} functions, by {}", functions.len(), machine.config);
    let mut found = Found::default();
    for function in functions {
        let owned = Owned {
            function,
            machine: &machine,
        };
        drive(&owned, &mut found);
    }
    Devices {
        disks: found.disks.leak(),
        cards: found.cards.leak(),
    }
}

/// Hands a function to its driver, if there is one.
fn drive(device: &Owned<'_>, found: &mut Found) {
    let Function {
        class, subclass, ..
    } = device.function;
    // Mass storage, IDE.
    if (class, subclass) == (1, 1) {
        ata::start(device, &mut found.disks);
    } else if e1000::is_card(device) {
        e1000::start(device, &mut found.cards);
    }
}

impl Clock {
    fn now(self) -> u64 {
        let ticks = tsc::rdtsc();
        let khz = self.tsc_khz.max(1);
        ticks / khz * 1000 + ticks % khz * 1000 / khz
    }

    /// The first tick that is not before a time.
    fn ticks(self, micros: u64) -> Tsc {
        let khz = self.tsc_khz.max(1);
        let whole = (micros / 1000).saturating_mul(khz);
        Tsc(whole.saturating_add((micros % 1000 * khz).div_ceil(1000)))
    }
}

impl Machine<'_> {
    /// Keeps a function from writing memory and from interrupting. Bridges go on: they do neither
    /// by themselves.
    fn quiet(&self, function: &Function) {
        if !function.is_bridge() {
            function.set_command(&self.config, Command::NO_LINE, Command::BUS_MASTER);
            pci::msi::silence(&self.config, function);
        }
    }
}

impl Owned<'_> {
    /// The registers that a base address register names.
    fn registers(&self, number: u8) -> Option<Window> {
        let bar = pci::bar(&self.machine.config, &self.function, number)?;
        Window::of_bar(bar, self.machine.memory)
    }

    /// Lets the function answer and master its bus.
    fn start(&self) {
        let on = Command::IO.and(Command::MEMORY).and(Command::BUS_MASTER);
        self.function
            .set_command(&self.machine.config, on, Command(0));
    }
}
