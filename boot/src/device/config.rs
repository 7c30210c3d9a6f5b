//! PCI configuration space: in memory where firmware says so, else through two ports.
#![expect(unsafe_code, reason = "names ports; configuration space is memory")]

use core::fmt;
use core::ptr::NonNull;

use devices::mcfg::{MAX_RANGES, Range};
use devices::pci::{Address, Config};
use heapless::Vec;
use spin::mutex::SpinMutex;

use crate::memory::{Memory, io};
use crate::port::Port;

// SAFETY: configuration mechanism 1 reads and writes configuration space, no memory.
const SELECT: Port = unsafe { Port::new(0xcf8) };
// SAFETY: as for `SELECT`; what functions are set to do there is up to their drivers, which
// hand them memory that is for them alone.
const DATA: Port = unsafe { Port::new(0xcfc) };
const ENABLE: u32 = 1 << 31;

/// Bytes of one bus, device, function.
const BUS: usize = 1 << 20;
const DEVICE: usize = 1 << 15;
const FUNCTION: usize = 1 << 12;

/// Both ports belong to whoever holds this.
static PORTS: SpinMutex<()> = SpinMutex::new(());

/// Configuration space.
pub(super) struct Space(Vec<(Range, Place), MAX_RANGES>);

/// Where a range's first bus is.
struct Place(NonNull<u8>);

impl Space {
    /// Takes up the ranges that firmware names, as far as they can be.
    pub(super) fn new(ranges: Vec<Range, MAX_RANGES>, memory: &Memory) -> Self {
        let place = |range: Range| {
            let first = usize::from(range.first_bus) * BUS;
            let buses = usize::from(range.last_bus - range.first_bus) + 1;
            let found = io::device(memory, range.base + first as u64, (buses * BUS) as u64);
            if found.is_none() {
                log::warn!("acpi: the MCFG names {:#x}: not used", range.base);
            }
            Some((range, Place(found?)))
        };
        Self(ranges.into_iter().filter_map(place).collect())
    }

    /// The segments that can be reached, each once. The first is always there.
    pub(super) fn segments(&self) -> impl Iterator<Item = u16> {
        let others = self.0.iter().enumerate().filter_map(|(index, (range, _))| {
            let before = self.0.iter().take(index);
            let known = before.map(|(range, _)| range.segment).chain([0]);
            (!known.into_iter().any(|segment| segment == range.segment)).then_some(range.segment)
        });
        core::iter::once(0).chain(others)
    }

    /// A register in memory, if it is there.
    fn register(&self, function: Address, at: u8) -> Option<NonNull<u32>> {
        let (range, Place(first)) = self.0.iter().find(|(range, _)| {
            range.segment == function.segment
                && (range.first_bus..=range.last_bus).contains(&function.bus)
        })?;
        let bus = usize::from(function.bus - range.first_bus) * BUS;
        let device = usize::from(function.device & 31) * DEVICE;
        let number = usize::from(function.function & 7) * FUNCTION;
        let offset = bus + device + number + usize::from(at & !3);
        // SAFETY: the offset stays inside the buses of the range, which `io::device` mapped whole.
        Some(unsafe { first.add(offset) }.cast())
    }
}

/// What the first port is told to find a register.
fn selector(function: Address, at: u8) -> Option<u32> {
    let Address {
        segment,
        bus,
        device,
        function,
    } = function;
    let place = u32::from(bus) << 16 | u32::from(device & 31) << 11 | u32::from(function & 7) << 8;
    (segment == 0).then_some(ENABLE | place | u32::from(at & !3))
}

impl Config for Space {
    fn read32(&self, function: Address, at: u8) -> u32 {
        if let Some(register) = self.register(function, at) {
            // SAFETY: a register of configuration space, aligned; reading has no side effect.
            return unsafe { register.read_volatile() };
        }
        let Some(selector) = selector(function, at) else {
            return !0;
        };
        let _ports = PORTS.lock();
        SELECT.write32(selector);
        DATA.read32()
    }

    fn write32(&self, function: Address, at: u8, value: u32) {
        if let Some(register) = self.register(function, at) {
            // SAFETY: a register of configuration space, aligned; see `DATA`.
            unsafe { register.write_volatile(value) };
        } else if let Some(selector) = selector(function, at) {
            let _ports = PORTS.lock();
            SELECT.write32(selector);
            DATA.write32(value);
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "ports"
        } else {
            "memory-mapped configuration"
        })
    }
}
