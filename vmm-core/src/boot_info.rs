//! What boot found out about the machine, handed to the core once.
//!
//! By then boot has set up the direct map and the frame table (all RAM in [`BootInfo::ram`] that
//! boot does not use itself is in it), the heap, the log and the host interrupt tables, and every
//! CPU listed in [`BootInfo::cpus`] runs and is about to call `start_ap`.

use abi::{Hpa, PAGE_SIZE};

use crate::network::NetworkCard;
use crate::storage::BlockDevice;

/// A run of physical memory, page aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// The first byte.
    pub start: Hpa,
    /// The first byte after it.
    pub end: Hpa,
}

impl MemoryRegion {
    /// Bytes in the region.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.raw().saturating_sub(self.start.raw())
    }

    /// True when nothing is in the region.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whole pages in the region.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.len() / PAGE_SIZE as u64
    }
}

/// One physical CPU that runs. Its place in [`BootInfo::cpus`] is its index everywhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysicalCpu {
    /// The id of its local APIC.
    pub apic_id: u32,
    /// The ACPI processor uid.
    pub acpi_uid: u32,
}

/// The machine, as boot found it.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// All usable RAM by the firmware's map, sorted, disjoint.
    pub ram: &'static [MemoryRegion],
    /// The hypervisor's image, from its first section to the end of its `.bss` and stacks.
    pub image: MemoryRegion,
    /// Memory that boot took for page tables, CPU stacks and the like.
    pub boot_memory: MemoryRegion,
    /// Everything below this address can be reached through the direct map.
    pub direct_map_limit: Hpa,
    /// The boot archive, in the direct map; it stays there for restarts of domains.
    pub archive: Option<&'static [u8]>,
    /// The CPUs that run; number 0 is the one that booted.
    pub cpus: &'static [PhysicalCpu],
    /// The disks that boot has drivers for.
    pub disks: &'static [&'static dyn BlockDevice],
    /// The network cards that boot has drivers for.
    pub cards: &'static [&'static dyn NetworkCard],
    /// TSC ticks per millisecond, measured.
    pub tsc_khz: u64,
    /// The TSC at the hypervisor's first instruction.
    pub entry_tsc: u64,
    /// Seconds since 1970 by the CMOS clock, read when the TSC stood at `wall_clock_tsc`.
    pub wall_clock_seconds: u64,
    /// The TSC when the CMOS clock was read.
    pub wall_clock_tsc: u64,
    /// The hypervisor's own command line.
    pub cmdline: &'static str,
    /// The boot loader's name for itself.
    pub loader: &'static str,
}

impl BootInfo {
    /// The value of `key=value` on the command line; the last one counts.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&'static str> {
        option(self.cmdline, key)
    }
}

/// The value of `key=value` in a command line; the last one counts.
#[must_use]
pub fn option<'a>(cmdline: &'a str, key: &str) -> Option<&'a str> {
    cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_option_counts() {
        let cmdline = "quiet loglevel=info on-panic=halt loglevel=debug";
        assert_eq!(option(cmdline, "loglevel"), Some("debug"));
        assert_eq!(option(cmdline, "on-panic"), Some("halt"));
        assert_eq!(option(cmdline, "quiet"), None);
        assert_eq!(option(cmdline, "log"), None);
    }

    #[test]
    fn a_region_counts_whole_pages() {
        let region = MemoryRegion {
            start: Hpa::new(0x1000),
            end: Hpa::new(0x3fff),
        };
        assert_eq!(
            (region.len(), region.pages(), region.is_empty()),
            (0x2fff, 2, false)
        );
    }
}
