//! What the boot loader left in memory, whichever loader it was.
#![expect(
    unsafe_code,
    reason = "reads memory at addresses that the loader names"
)]

mod multiboot2;
mod pvh;

use boot::memmap::FirmwareEntry;
use heapless::Vec;

use crate::entry::Protocol;

/// The most entries of the firmware's memory map that are looked at.
pub(crate) const MAX_ENTRIES: usize = 128;

/// A physical range, the end outside.
pub(crate) type Range = (u64, u64);

/// What the boot loader handed over. The strings stay where the loader put them; `reserved`
/// covers them.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The loader's name for itself.
    pub(crate) loader: &'static str,
    /// The hypervisor's command line.
    pub(crate) cmdline: &'static str,
    /// The firmware's memory map.
    pub(crate) memory: Vec<FirmwareEntry, MAX_ENTRIES>,
    /// The boot archive, which is the first module.
    pub(crate) archive: Option<Range>,
    /// What else must not be overwritten.
    pub(crate) reserved: Vec<Range, 16>,
    /// The physical address of the ACPI root pointer or of a copy of it.
    pub(crate) rsdp: Option<u64>,
}

impl Loaded {
    /// Reads what lies at `info`.
    ///
    /// # Safety
    /// The entry code's page tables are in use, and `info` is what the loader of this `protocol`
    /// passed in EBX.
    pub(crate) unsafe fn read(protocol: Protocol, info: u32) -> Self {
        let mut loaded = Self {
            loader: "unknown",
            cmdline: "",
            memory: Vec::new(),
            archive: None,
            reserved: Vec::new(),
            rsdp: None,
        };
        match protocol {
            // SAFETY: the caller's promise is the callee's.
            Protocol::Multiboot2 => unsafe { multiboot2::read(info, &mut loaded) },
            // SAFETY: the caller's promise is the callee's.
            Protocol::Pvh => unsafe { pvh::read(info, &mut loaded) },
            Protocol::Unknown => {}
        }
        loaded
    }

    /// Notes an entry of the firmware's map; one beyond the limit is memory that stays unused.
    fn add_memory(&mut self, entry: FirmwareEntry) {
        let _ = self.memory.push(entry);
    }

    /// Notes a range that stays untouched.
    fn reserve(&mut self, start: u64, length: u64) {
        // Sixteen is more than both protocols have.
        let _ = self.reserved.push((start, start.saturating_add(length)));
    }
}
