//! The hypervisor's memory: map, page tables, frame table, stacks and heap.
#![expect(unsafe_code, reason = "hands memory over to the frame table")]

mod heap;
pub(crate) mod io;
mod paging;
pub(crate) mod stacks;

use abi::{Hpa, Mfn, PAGE_SIZE};
use boot::memmap::{MAX_REGIONS, MemoryMap};
use heapless::Vec;
use vmm_core::boot_info::MemoryRegion;
use vmm_core::machine::refuse;
use vmm_core::mm::directmap::{self, DIRECTMAP_BASE};
use vmm_core::mm::frame;

use crate::layout;
use crate::loader::Loaded;

pub(crate) use paging::{load, map_low_page, unmap_low};

const PAGE: u64 = PAGE_SIZE as u64;
/// Real mode, firmware and start-up code of other CPUs live below; boot uses one page of it.
const LOW_MEMORY: u64 = 1 << 20;
/// Where a start-up page can be: page numbers fit the start-up interrupt, and video memory
/// begins behind.
const START_UP_LIMIT: u64 = 0xa_0000;
/// The entry code's page tables map so much, and nothing else is needed before the final ones.
pub(crate) const EARLY_LIMIT: u64 = 1 << 32;

/// What became of the machine's memory.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Usable RAM by the firmware's map.
    pub(crate) ram: MemoryMap,
    /// The page tables' pages.
    pub(crate) boot_memory: MemoryRegion,
    /// A page below 640 KiB for starting other CPUs.
    pub(crate) start_up_page: Option<u64>,
    /// All RAM, whatever it holds; the direct map has it.
    pub(crate) mapped: MemoryMap,
    /// The end of the direct map.
    pub(crate) limit: Hpa,
}

/// Plans the memory, switches to the final page tables, and gives all free frames to the frame
/// table.
///
/// # Safety
/// Called once, on the only CPU that runs, with the entry code's page tables in use and
/// everything that must survive named in `loaded`.
pub(crate) unsafe fn init(loaded: &Loaded) -> Memory {
    let addressable = paging::physical_limit();
    let mut usable = MemoryMap::from_firmware(loaded.memory.iter().copied());
    let mut all_ram = MemoryMap::all_ram(loaded.memory.iter().copied());
    usable.truncate(addressable);
    all_ram.truncate(addressable);
    let ram = usable.clone();
    let mut free = usable;

    for &(start, end) in loaded.reserved.iter().chain(&loaded.archive) {
        free.remove(start, end);
    }
    let start_up_page = free.take_high(PAGE, PAGE, PAGE, START_UP_LIMIT);
    free.remove(0, LOW_MEMORY);
    let image = layout::image();
    free.remove(LOW_MEMORY.max(paging::ENTRY_TABLES), image.end.raw());
    // The image lies in RAM even where a firmware's map does not say so.
    all_ram.add(image.start.raw(), image.end.raw());

    let size = paging::tables_size(&all_ram);
    let tables = free.take_high(size, PAGE, LOW_MEMORY, EARLY_LIMIT);
    let Some(start) = tables else {
        refuse(format_args!(
            "Tessera needs {} KiB of free memory below 4 GiB for page tables: this machine has {} \
             KiB free in all",
            size / 1024,
            free.total() / 1024
        ))
    };
    // SAFETY: (1) once, on one CPU, by the caller's promise; (2) the pages are free RAM below
    // 4 GiB, in the entry code's direct map.
    let used = unsafe { paging::init(all_ram.regions(), start, size) };
    let limit = Hpa::new(all_ram.end().max(EARLY_LIMIT));
    // SAFETY: the tables just loaded map all RAM below `limit` at `DIRECTMAP_BASE`; of what the
    // frame table gets below nothing is mapped read-only.
    unsafe { directmap::init(DIRECTMAP_BASE, limit) };

    let boot_memory = MemoryRegion {
        start: Hpa::new(start),
        end: Hpa::new(start + used),
    };
    free.add(boot_memory.end.raw(), start + size);
    // The entry code and its page tables are in nobody's way any more.
    free.add(paging::ENTRY_TABLES, image.start.raw());
    let frames: Vec<(Mfn, u64), MAX_REGIONS> = free
        .regions()
        .iter()
        .map(|region| (region.start.mfn(), region.pages()))
        .collect();
    // SAFETY: these are pages of usable RAM in the direct map; everything that boot, the image,
    // the loader and the archive occupy has been taken out.
    unsafe { frame::init(&frames) };
    report(&ram, &free, all_ram.dropped() + free.dropped());
    Memory {
        ram,
        boot_memory,
        start_up_page,
        mapped: all_ram,
        limit,
    }
}

fn report(ram: &MemoryMap, free: &MemoryMap, dropped: usize) {
    for region in ram.regions() {
        log::info!(
            "memory: {:#014x}-{:#014x} {} KiB",
            region.start.raw(),
            region.end.raw(),
            region.len() / 1024
        );
    }
    log::info!(
        "memory: {} KiB usable, {} KiB free",
        ram.total() / 1024,
        free.total() / 1024
    );
    if dropped > 0 {
        log::warn!("memory: the map has too many pieces, {dropped} of them stay unused");
    }
}

/// The boot archive's bytes.
pub(crate) fn archive(loaded: &Loaded) -> Option<&'static [u8]> {
    let (start, end) = loaded.archive?;
    if start >= end || end > directmap::limit().raw() {
        return None;
    }
    let bytes = directmap::ptr(Hpa::new(start));
    // SAFETY: the loader put the module into RAM, so the direct map has it; its pages were kept
    // from the frame table, so nobody ever writes there.
    Some(unsafe { core::slice::from_raw_parts(bytes.as_ptr(), directmap::to_usize(end - start)) })
}
