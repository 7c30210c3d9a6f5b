//! What the ACPI tables say. A table that is missing or broken costs one line in the log and
//! what it would have told; the machine then runs with one CPU, or without soft-off, and so on.
#![expect(unsafe_code, reason = "reads tables at addresses that firmware names")]

use core::cell::Cell;
use core::ptr::NonNull;

use abi::Hpa;
use acpi::fadt::Fadt;
use acpi::madt::Madt as MadtTable;
use acpi::mcfg::Mcfg;
use acpi::rsdp::Rsdp;
use acpi::{AcpiError, AcpiHandler, AcpiTables, PhysicalMapping};
use boot::acpi_header::{self, HEADER};
use boot::directmap::LOW_END;
use boot::madt::Madt;
use devices::mcfg::{self, Range};
use heapless::Vec;
use vmm_core::boot_info::MemoryRegion;
use vmm_core::mm::directmap;

use super::power::Power;

/// What boot takes from the tables.
#[derive(Debug, Default)]
pub(crate) struct Firmware {
    /// CPUs and interrupt routing.
    pub(crate) madt: Option<Madt>,
    /// How to switch off and reset.
    pub(crate) power: Option<Power>,
    /// The I/O port of the power management timer.
    pub(crate) pm_timer: Option<u16>,
    /// Where PCI configuration space lies in memory.
    pub(crate) mcfg: Vec<Range, { mcfg::MAX_RANGES }>,
    /// The CMOS register that holds the century.
    pub(crate) century_register: Option<u8>,
}

/// Reads the tables. `rsdp` is where the loader says the root pointer is; else it is looked for
/// where a BIOS leaves it. `ram` are the parts of the direct map above 4 GiB.
pub(crate) fn read(rsdp: Option<u64>, ram: &[MemoryRegion]) -> Firmware {
    let mut firmware = Firmware::default();
    let told = Cell::new(0);
    let tables = match open(rsdp, Mapper { ram, told: &told }) {
        Ok(tables) => tables,
        Err(error) => {
            log::warn!("acpi: no tables ({error:?}): one CPU, no soft-off");
            return firmware;
        }
    };
    match tables.find_table::<MadtTable>() {
        Ok(table) => match Madt::parse(bytes(&table)) {
            Ok(madt) => firmware.madt = Some(madt),
            Err(error) => log::warn!("acpi: the MADT is broken ({error}): one CPU"),
        },
        Err(error) => log::warn!("acpi: no MADT ({error:?}): one CPU"),
    }
    if let Ok(table) = tables.find_table::<Mcfg>() {
        firmware.mcfg = mcfg::parse(bytes(&table));
    }
    match tables.find_table::<Fadt>() {
        Ok(fadt) => {
            firmware.pm_timer = super::power::io_port(fadt.pm_timer_block().ok().flatten());
            firmware.century_register = Some(fadt.century).filter(|register| *register != 0);
            let dsdt = dsdt(&tables, Mapper { ram, told: &told });
            firmware.power = Some(Power::new(&fadt, dsdt));
        }
        Err(error) => log::warn!("acpi: no FADT ({error:?}): no soft-off"),
    }
    firmware
}

fn open(rsdp: Option<u64>, mapper: Mapper<'_>) -> Result<AcpiTables<Mapper<'_>>, AcpiError> {
    let Some(address) = rsdp else {
        // SAFETY: the search reads BIOS memory below 1 MiB, which the direct map has.
        let found = unsafe { Rsdp::search_for_on_bios(mapper.clone()) }?;
        // SAFETY: the search found it valid.
        return unsafe { AcpiTables::from_validated_rsdp(mapper, found) };
    };
    // SAFETY: `Mapper` lets nothing outside the direct map be read.
    unsafe { AcpiTables::from_rsdp(mapper, directmap::to_usize(address)) }
}

/// The DSDT's definitions, header excluded.
fn dsdt<'a>(tables: &AcpiTables<Mapper<'_>>, mapper: Mapper<'a>) -> Option<&'a [u8]> {
    let dsdt = tables.dsdt().ok()?;
    let length = dsdt.length as usize;
    let start = mapper.reach(dsdt.address, length)?;
    // SAFETY: the range lies in the direct map, and firmware tables do not change.
    Some(unsafe { core::slice::from_raw_parts(start.as_ptr(), length) })
}

fn bytes<'a, T>(table: &'a PhysicalMapping<Mapper<'_>, T>) -> &'a [u8] {
    let start = table.virtual_start().cast::<u8>();
    // SAFETY: the mapping covers the table, whose length its header names, and lives for `'a`.
    unsafe { core::slice::from_raw_parts(start.as_ptr(), table.region_length()) }
}

/// Gives the `acpi` crate memory through the direct map, and keeps from it what it would trip
/// over.
#[derive(Clone, Debug)]
struct Mapper<'a> {
    ram: &'a [MemoryRegion],
    /// The table that was complained of last: each is looked at several times.
    told: &'a Cell<usize>,
}

/// Read instead of an address that is not mapped: no table is valid there.
#[repr(align(16))]
struct Nothing(#[expect(dead_code, reason = "read as tables only")] [u8; 4096]);

static NOTHING: Nothing = Nothing([0; 4096]);

impl Mapper<'_> {
    /// The range in the direct map: anywhere below 4 GiB, and in RAM above.
    fn reach(&self, start: usize, length: usize) -> Option<NonNull<u8>> {
        let (start, end) = (start as u64, (start as u64).checked_add(length as u64)?);
        let mapped = end <= LOW_END
            || self
                .ram
                .iter()
                .any(|r| r.start.raw() <= start && end <= r.end.raw());
        mapped.then(|| directmap::ptr(Hpa::new(start)))
    }

    /// The same, unless it is the header of a table whose length cannot be.
    fn sound(&self, start: usize, length: usize) -> Option<NonNull<u8>> {
        let found = self.reach(start, length)?;
        if length != HEADER {
            return Some(found);
        }
        // SAFETY: the range has as many bytes, and firmware tables do not change.
        let header: &[u8; HEADER] = unsafe { found.cast().as_ref() };
        // The root pointer is as long and says no length in this place.
        if header.starts_with(b"RSD PTR ") {
            return Some(found);
        }
        match acpi_header::check(header) {
            Ok(()) => Some(found),
            Err(error) => {
                if self.told.replace(start) != start {
                    log::warn!("acpi: {error}: ignored");
                }
                None
            }
        }
    }
}

impl AcpiHandler for Mapper<'_> {
    unsafe fn map_physical_region<T>(&self, start: usize, size: usize) -> PhysicalMapping<Self, T> {
        const { assert!(size_of::<T>() <= size_of::<Nothing>()) };
        // A short table is read as one of its type all the same, which has more to it.
        let room = size.max(size_of::<T>());
        let found = self.sound(start, room).map(NonNull::cast::<T>);
        let size = if found.is_some() {
            size
        } else {
            size_of::<Nothing>()
        };
        let virt = found.unwrap_or(NonNull::from_ref(&NOTHING).cast());
        // SAFETY: the memory is mapped for ever, here or there.
        unsafe { PhysicalMapping::new(start, virt, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}
