//! The hypervisor's own page tables. SDM 3A, "4-Level Paging and 5-Level Paging".
//!
//! Nothing is both writable and executable: the image's code is executable and read-only, its
//! constants read-only, all else not executable; and the direct map, which shows all RAM, shows
//! code and constants read-only too. Tables come from a run of pages taken for them at first, and
//! from the frame table afterwards (for the stacks and for devices above 4 GiB).
#![expect(unsafe_code, reason = "writes page tables and loads CR3")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Hpa, PAGE_SIZE};
use boot::directmap::{self as plan, Access, Run};
use boot::memmap::MemoryMap;
use vmm_core::boot_info::MemoryRegion;
use vmm_core::mm::directmap::{self, DIRECTMAP_BASE};

use crate::cpu::control;
use crate::layout;

/// Where the image file begins; the entry code and its tables reach from here to the image.
pub(super) const ENTRY_TABLES: u64 = 0x20_0000;

const PAGE: u64 = PAGE_SIZE as u64;
/// The sizes of a page, by the level of the table that maps it.
const SIZES: [u64; 3] = [PAGE, PAGE << 9, PAGE << 18];
/// The direct map ends where the stacks' part of the address space begins.
const DIRECTMAP_SIZE: u64 = 64 << 40;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const UNCACHED: u64 = 0b11 << 3;
const SEEN: u64 = 0b11 << 5;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const CODE: u64 = SEEN;
const CONSTANTS: u64 = SEEN | NO_EXECUTE;
const VARIABLES: u64 = SEEN | NO_EXECUTE | WRITABLE;
const DEVICE: u64 = VARIABLES | UNCACHED;

/// The physical address of the final top table. Zero before [`init`].
static ROOT: AtomicU64 = AtomicU64::new(0);

/// The end of what the CPU and the direct map can address.
pub(super) fn physical_limit() -> u64 {
    let bits = if __cpuid(0x8000_0000).eax >= 0x8000_0008 {
        __cpuid(0x8000_0008).eax & 0xff
    } else {
        36
    };
    1_u64
        .checked_shl(bits)
        .unwrap_or(u64::MAX)
        .min(DIRECTMAP_SIZE)
}

fn has_gigabyte_pages() -> bool {
    __cpuid_count(0x8000_0001, 0).edx >> 26 & 1 != 0
}

/// Bytes that [`init`] needs at most: for each table level of each region and of the device
/// space, and for the image.
pub(super) fn tables_size(ram: &MemoryMap) -> u64 {
    let gigabytes = ram.end().max(plan::LOW_END).div_ceil(SIZES[2]);
    let directories = if has_gigabyte_pages() { 4 } else { gigabytes };
    let borders = 2 * ram.regions().len() as u64 + 4;
    let top = gigabytes.div_ceil(512) + 1;
    let image = 2 + layout::image().len().div_ceil(SIZES[1]) + 1;
    (top + directories + 2 * borders + image) * PAGE
}

/// Builds and loads the final tables in `size` bytes from `pool`, and returns how many it used.
///
/// # Safety
/// Called once, on the only CPU; the pool is free RAM in the direct map, which the entry code's
/// tables provide.
pub(super) unsafe fn init(ram: &[MemoryRegion], pool: u64, size: u64) -> u64 {
    let mut used = 0;
    let mut take = || {
        let page = (used < size).then_some(pool + used)?;
        used += PAGE;
        Some(page)
    };
    let root = take().unwrap_or_default();
    clear(root);
    let built = build(root, ram, &mut take);
    assert!(built.is_some(), "too little room for the page tables");
    ROOT.store(root, Ordering::Relaxed);
    control::init();
    load();
    used
}

fn build(root: u64, ram: &[MemoryRegion], take: Take<'_>) -> Option<()> {
    plan::plan(ram, layout::read_only(), |run: Run| {
        let flags = match run.access {
            Access::Ram => VARIABLES,
            Access::ReadOnly => CONSTANTS,
            Access::Device => DEVICE,
        };
        map(root, DIRECTMAP_BASE + run.start, run, flags, take).ok_or(())
    })
    .ok()?;
    for ((start, end), flags) in [
        (layout::text(), CODE),
        (layout::rodata(), CONSTANTS),
        (layout::data(), VARIABLES),
    ] {
        let run = Run {
            start: start - layout::IMAGE_OFFSET,
            end: end - layout::IMAGE_OFFSET,
            access: Access::Ram,
        };
        map(root, start, run, flags, take)?;
    }
    Some(())
}

/// Gives a page for a table.
type Take<'a> = &'a mut dyn FnMut() -> Option<u64>;

/// Maps a run of physical memory at `virt` with the largest pages that fit.
fn map(root: u64, virt: u64, run: Run, flags: u64, take: Take<'_>) -> Option<()> {
    let largest = if has_gigabyte_pages() { 2 } else { 1 };
    let (mut virt, mut phys) = (virt, run.start);
    while phys < run.end {
        let fits = |level: &usize| {
            let size = SIZES[*level];
            (virt | phys).is_multiple_of(size) && run.end - phys >= size
        };
        let level = (0..=largest).rev().find(fits)?;
        let size = SIZES[level];
        let large = if level > 0 { LARGE } else { 0 };
        let table = table(root, virt, level, take)?;
        // A larger page can begin only where a table ends.
        loop {
            set(table, virt, level, phys | flags | large | PRESENT);
            virt += size;
            phys += size;
            if virt.is_multiple_of(size << 9) || run.end - phys < size {
                break;
            }
        }
    }
    Some(())
}

/// The table of the given level for `virt`, made together with the tables above it if need be.
fn table(root: u64, virt: u64, level: usize, take: Take<'_>) -> Option<u64> {
    let mut table = root;
    for upper in (level + 1..=3).rev() {
        let slot = entry(table, virt, upper);
        let next = slot.load(Ordering::Relaxed);
        if next & PRESENT == 0 {
            table = take()?;
            clear(table);
            slot.store(table | PRESENT | WRITABLE | SEEN, Ordering::Relaxed);
        } else {
            assert!(next & LARGE == 0, "a large page is in the way of {virt:#x}");
            table = next & ADDRESS;
        }
    }
    Some(table)
}

/// Writes the entry for `virt` in its table.
fn set(table: u64, virt: u64, level: usize, value: u64) {
    let old = entry(table, virt, level).swap(value, Ordering::Release);
    assert!(old == 0, "{virt:#x} is mapped already");
}

/// The entry for `virt` in a table. Tables are only ever seen as atomics: the processor reads
/// them at any time.
fn entry(table: u64, virt: u64, level: usize) -> &'static AtomicU64 {
    let index = directmap::to_usize(virt >> (12 + 9 * level) & 0x1ff);
    let table = directmap::ptr(Hpa::new(table)).cast::<AtomicU64>();
    // SAFETY: the index stays inside the table's page.
    let entry = unsafe { table.add(index) };
    // SAFETY: tables lie in the direct map, aligned, and are never freed.
    unsafe { entry.as_ref() }
}

/// Zeroes a page that is to become a table.
fn clear(page: u64) {
    let page = directmap::ptr(Hpa::new(page));
    // SAFETY: the page was taken to become a table, and is not yet one; nobody else knows it.
    unsafe { page.write_bytes(0, PAGE_SIZE) };
}

/// Maps a frame into the stacks' window.
pub(super) fn map_stack_page(virt: u64, page: u64, take: Take<'_>) -> Option<()> {
    let table = table(ROOT.load(Ordering::Relaxed), virt, 0, take)?;
    set(table, virt, 0, page | VARIABLES | PRESENT);
    Some(())
}

/// Maps a run of physical memory above 4 GiB that is no RAM in the direct map, for a device: not
/// cached, not executable.
pub(super) fn map_device(start: u64, end: u64, take: Take<'_>) -> Option<()> {
    let run = Run {
        start,
        end,
        access: Access::Device,
    };
    let root = ROOT.load(Ordering::Relaxed);
    map(root, DIRECTMAP_BASE + start, run, DEVICE, take)
}

/// Maps a page below 1 MiB where it is, executable, so that a CPU can turn paging on in it, and
/// returns the top table's address. [`unmap_low`] takes it away again.
pub(crate) fn map_low_page(page: u64, take: Take<'_>) -> Option<u64> {
    let root = ROOT.load(Ordering::Relaxed);
    let table = table(root, page, 0, take)?;
    set(table, page, 0, page | CODE | PRESENT);
    Some(root)
}

/// Takes away what [`map_low_page`] mapped. Every CPU still has to [`load`] the tables anew.
pub(crate) fn unmap_low() {
    entry(ROOT.load(Ordering::Relaxed), 0, 3).store(0, Ordering::Release);
}

/// Loads the final tables on the calling CPU, which also forgets old translations.
pub(crate) fn load() {
    let root = ROOT.load(Ordering::Relaxed);
    // SAFETY: the tables map the image where it runs, the stacks and the direct map.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}
