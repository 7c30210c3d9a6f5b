//! Where things are: the image's sections and the virtual address space.
//!
//! ```text
//! ffff_8000_0000_0000  direct map: physical memory, not executable
//! ffff_fe80_0000_0000  CPU stacks, each above an unmapped guard page
//! ffff_ffff_8000_0000  the image, at this offset from its physical address
//! ```
#![expect(unsafe_code, reason = "the linker script's symbols are foreign items")]

use abi::Hpa;
use vmm_core::boot_info::MemoryRegion;
use vmm_core::mm::directmap::to_usize;

/// The virtual address of physical address 0 in the image's mapping.
pub(crate) const IMAGE_OFFSET: u64 = 0xffff_ffff_8000_0000;
/// The first virtual address of the stacks' window.
pub(crate) const STACKS_BASE: u64 = 0xffff_fe80_0000_0000;

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static __ex_table_start: u8;
    static __ex_table_end: u8;
    static __symbols_start: u8;
    static __symbols_end: u8;
}

macro_rules! between {
    ($start:ident, $end:ident) => {
        (address(&raw const $start), address(&raw const $end))
    };
}

fn address(symbol: *const u8) -> u64 {
    symbol.addr() as u64
}

/// The virtual range of the code.
pub(crate) fn text() -> (u64, u64) {
    between!(__image_start, __text_end)
}

/// The virtual range of the constants.
pub(crate) fn rodata() -> (u64, u64) {
    between!(__text_end, __rodata_end)
}

/// The virtual range of the variables.
pub(crate) fn data() -> (u64, u64) {
    between!(__rodata_end, __image_end)
}

/// The physical pages of the whole image.
pub(crate) fn image() -> MemoryRegion {
    physical(between!(__image_start, __image_end))
}

/// The physical pages of code and constants.
pub(crate) fn read_only() -> MemoryRegion {
    physical(between!(__image_start, __rodata_end))
}

fn physical((start, end): (u64, u64)) -> MemoryRegion {
    MemoryRegion {
        start: Hpa::new(start - IMAGE_OFFSET),
        end: Hpa::new(end - IMAGE_OFFSET),
    }
}

/// The exception table: pairs of a faulting instruction's address and where to go on.
///
/// Whoever has an instruction that may raise #GP puts two absolute 64-bit addresses into the
/// section `.ex_table` (`.pushsection .ex_table, "a"`): the instruction, and the fix-up. The
/// fix-up finds all registers as they were at the instruction.
pub(crate) fn exception_table() -> &'static [[u64; 2]] {
    let (start, end) = between!(__ex_table_start, __ex_table_end);
    let count = to_usize(end - start) / size_of::<[u64; 2]>();
    // SAFETY: (1) the linker script aligns the section's start to 16 bytes; (2) it holds `count`
    // whole pairs of initialised words; (3) it lies in the read-only part of the image for ever.
    unsafe { core::slice::from_raw_parts((&raw const __ex_table_start).cast(), count) }
}

/// The symbol table that the build filled in.
pub(crate) fn symbols() -> &'static [u8] {
    let (start, end) = between!(__symbols_start, __symbols_end);
    // SAFETY: the section has these bytes in the read-only part of the image, for ever.
    unsafe { core::slice::from_raw_parts(&raw const __symbols_start, to_usize(end - start)) }
}
