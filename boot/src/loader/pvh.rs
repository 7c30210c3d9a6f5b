//! The PVH start info, as QEMU's `-kernel` leaves it.
//!
//! Layout: `struct hvm_start_info`, `hvm_modlist_entry` and `hvm_memmap_table_entry`,
//! `xen/include/public/arch-x86/hvm/start_info.h`.
#![expect(unsafe_code, reason = "reads the start info where EBX points")]

use core::ffi::CStr;

use abi::Hpa;
use boot::memmap::{FirmwareEntry, Kind};
use vmm_core::mm::directmap;

use super::{Loaded, MAX_ENTRIES};

const MAGIC: u32 = 0x336e_c578;
/// The longest command line that is taken over.
const MAX_CMDLINE: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    cmdline: u64,
    rsdp: u64,
    memory_map: u64,
    memory_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Module {
    start: u64,
    size: u64,
    cmdline: u64,
    reserved: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MemoryEntry {
    start: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// Takes over what the start info says.
///
/// # Safety
/// `info` is the physical address, inside the direct map, of a PVH start info, which nobody
/// changes any more.
pub(super) unsafe fn read(info: u32, loaded: &mut Loaded) {
    // SAFETY: the caller's promise.
    let start_info: StartInfo = unsafe { at(info.into()) };
    if start_info.magic != MAGIC {
        log::error!(
            "the PVH start info has a wrong magic number: {:#x}",
            start_info.magic
        );
        return;
    }
    loaded.loader = "PVH";
    loaded.reserve(info.into(), size_of::<StartInfo>() as u64);
    loaded.rsdp = Some(start_info.rsdp).filter(|rsdp| *rsdp != 0);
    if start_info.cmdline != 0 {
        // SAFETY: the start info is what the caller promises, so a string lies there.
        loaded.cmdline = unsafe { text(start_info.cmdline) };
        loaded.reserve(start_info.cmdline, loaded.cmdline.len() as u64 + 1);
    }
    if start_info.modules > 0 && start_info.module_list != 0 {
        // SAFETY: as above, with at least one module there.
        let module: Module = unsafe { at(start_info.module_list) };
        loaded.archive = Some((module.start, module.start.saturating_add(module.size)));
    }
    if start_info.version == 0 {
        log::error!("the PVH start info is of version 0, which has no memory map");
        return;
    }
    let size = size_of::<MemoryEntry>() as u64;
    for number in 0..u64::from(start_info.memory_entries).min(MAX_ENTRIES as u64) {
        // SAFETY: as above, with that many entries there.
        let entry: MemoryEntry = unsafe { at(start_info.memory_map + number * size) };
        loaded.add_memory(FirmwareEntry {
            start: entry.start,
            length: entry.size,
            kind: Kind::from_e820(entry.kind),
        });
    }
}

/// Reads a structure of integers.
///
/// # Safety
/// It lies at `address`, inside the direct map.
unsafe fn at<T: Copy>(address: u64) -> T {
    // SAFETY: readable by the caller's promise, and any bytes are valid for integers.
    unsafe {
        directmap::ptr(Hpa::new(address))
            .cast::<T>()
            .read_unaligned()
    }
}

/// A zero-terminated string; empty when it is none.
///
/// # Safety
/// [`MAX_CMDLINE`] bytes from `address` lie inside the direct map, and never change.
unsafe fn text(address: u64) -> &'static str {
    let start = directmap::ptr(Hpa::new(address));
    // SAFETY: readable for ever by the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(start.as_ptr(), MAX_CMDLINE) };
    CStr::from_bytes_until_nul(bytes)
        .ok()
        .and_then(|text| text.to_str().ok())
        .unwrap_or("")
}
