//! Where device registers lie in the direct map.

use core::ptr::NonNull;

use abi::PAGE_SIZE;
use boot::directmap::LOW_END;
use heapless::Vec;
use spin::mutex::SpinMutex;
use vmm_core::mm::directmap::{DIRECTMAP_BASE, to_usize};

use super::{Memory, paging, stacks};

const PAGE: u64 = PAGE_SIZE as u64;
/// Device ranges above 4 GiB.
const MAX_RANGES: usize = 64;

/// The pages above 4 GiB that are mapped.
static MAPPED: SpinMutex<Vec<(u64, u64), MAX_RANGES>> = SpinMutex::new(Vec::new());

/// The place of `size` bytes of physical memory that are a device's: uncached, not executable, and
/// mapped for ever. `None` when the machine's RAM is there, or the range cannot be mapped.
pub(crate) fn device(memory: &Memory, start: u64, size: u64) -> Option<NonNull<u8>> {
    let end = start.checked_add(size)?;
    let is_ram = |region: &vmm_core::boot_info::MemoryRegion| {
        region.start.raw() < end && start < region.end.raw()
    };
    if size == 0 || end > paging::physical_limit() || memory.mapped.regions().iter().any(is_ram) {
        return None;
    }
    if end > LOW_END {
        map(start, end)?;
    }
    let address = to_usize(DIRECTMAP_BASE + start);
    NonNull::new(core::ptr::with_exposed_provenance_mut(address))
}

fn map(start: u64, end: u64) -> Option<()> {
    if start < LOW_END {
        return None;
    }
    let (start, end) = (start / PAGE * PAGE, end.next_multiple_of(PAGE));
    let mut mapped = MAPPED.lock();
    if mapped
        .iter()
        .any(|(first, last)| *first <= start && end <= *last)
    {
        return Some(());
    }
    if mapped.is_full()
        || mapped
            .iter()
            .any(|(first, last)| *first < end && start < *last)
    {
        return None;
    }
    paging::map_device(start, end, &mut stacks::take_page)?;
    // There is room.
    let _ = mapped.push((start, end));
    Some(())
}
