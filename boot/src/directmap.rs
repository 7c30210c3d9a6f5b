//! How the direct map covers physical memory: RAM cached, the rest below 4 GiB uncached, and the
//! hypervisor's code and constants read-only.

use vmm_core::boot_info::MemoryRegion;

/// The end of the physical space in which devices of a PC lie.
pub const LOW_END: u64 = 1 << 32;

/// How one run of physical memory is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// RAM: cached, writable.
    Ram,
    /// RAM of the hypervisor's code and constants: cached, not writable.
    ReadOnly,
    /// No RAM: uncached, writable.
    Device,
}

/// A run of physical memory that is mapped in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first byte.
    pub start: u64,
    /// The first byte after it.
    pub end: u64,
    /// How it is mapped.
    pub access: Access,
}

/// Calls `map` for each run, in order: the first 4 GiB without a gap, then RAM alone.
/// `ram` is sorted and disjoint, and holds all of `read_only`.
pub fn plan<E>(
    ram: &[MemoryRegion],
    read_only: MemoryRegion,
    mut map: impl FnMut(Run) -> Result<(), E>,
) -> Result<(), E> {
    let mut emit = |start: u64, end: u64, access| {
        if start < end {
            map(Run { start, end, access })
        } else {
            Ok(())
        }
    };
    let (fixed_start, fixed_end) = (read_only.start.raw(), read_only.end.raw());
    let mut covered = 0;
    for region in ram {
        let (start, end) = (region.start.raw(), region.end.raw());
        emit(covered, start.min(LOW_END), Access::Device)?;
        emit(start, end.min(fixed_start), Access::Ram)?;
        emit(start.max(fixed_start), end.min(fixed_end), Access::ReadOnly)?;
        emit(start.max(fixed_end), end, Access::Ram)?;
        covered = end;
    }
    emit(covered, LOW_END, Access::Device)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use abi::Hpa;
    use std::vec::Vec;

    fn region(start: u64, end: u64) -> MemoryRegion {
        MemoryRegion {
            start: Hpa::new(start),
            end: Hpa::new(end),
        }
    }

    fn runs(ram: &[MemoryRegion], read_only: MemoryRegion) -> Vec<(u64, u64, Access)> {
        let mut runs = Vec::new();
        plan::<()>(ram, read_only, |run| {
            runs.push((run.start, run.end, run.access));
            Ok(())
        })
        .unwrap();
        runs
    }

    #[test]
    fn holes_are_devices_and_the_image_is_read_only() {
        let ram = [
            region(0, 0xa_0000),
            region(0x10_0000, 0x8000_0000),
            region(LOW_END, LOW_END + 0x4000_0000),
        ];
        assert_eq!(
            runs(&ram, region(0x20_0000, 0x24_0000)),
            [
                (0, 0xa_0000, Access::Ram),
                (0xa_0000, 0x10_0000, Access::Device),
                (0x10_0000, 0x20_0000, Access::Ram),
                (0x20_0000, 0x24_0000, Access::ReadOnly),
                (0x24_0000, 0x8000_0000, Access::Ram),
                (0x8000_0000, LOW_END, Access::Device),
                (LOW_END, LOW_END + 0x4000_0000, Access::Ram),
            ]
        );
    }

    #[test]
    fn ram_across_4_gib_leaves_no_device_run() {
        let ram = [
            region(0, LOW_END + 0x1000),
            region(LOW_END + 0x2000, LOW_END + 0x3000),
        ];
        assert_eq!(
            runs(&ram, region(0x1000, 0x2000)),
            [
                (0, 0x1000, Access::Ram),
                (0x1000, 0x2000, Access::ReadOnly),
                (0x2000, LOW_END + 0x1000, Access::Ram),
                (LOW_END + 0x2000, LOW_END + 0x3000, Access::Ram),
            ]
        );
    }
}
