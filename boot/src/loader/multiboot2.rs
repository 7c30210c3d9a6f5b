//! The multiboot2 boot information, as GRUB leaves it from BIOS and UEFI alike.
#![expect(unsafe_code, reason = "reads the boot information where EBX points")]

use core::ptr::NonNull;

use abi::Hpa;
use boot::memmap::{FirmwareEntry, Kind};
use multiboot2::{BootInformation, BootInformationHeader, MemoryAreaType};
use spin::Once;
use vmm_core::mm::directmap;

use super::Loaded;

/// Here for ever, so that its strings are.
static INFORMATION: Once<BootInformation<'static>> = Once::new();

/// Takes over what the boot information says.
///
/// # Safety
/// `info` is the physical address, inside the direct map, of multiboot2 boot information, which
/// nobody changes any more.
pub(super) unsafe fn read(info: u32, loaded: &mut Loaded) {
    let start = Hpa::new(info.into());
    let header = directmap::ptr(start).cast::<BootInformationHeader>();
    // SAFETY: the caller's promise is the callee's.
    let information = match unsafe { BootInformation::load(header.as_ptr()) } {
        Ok(information) => INFORMATION.call_once(|| information),
        Err(error) => {
            log::error!("the multiboot2 boot information is broken: {error}");
            return;
        }
    };
    loaded.reserve(start.raw(), information.total_size() as u64);
    if let Some(Ok(name)) = information.boot_loader_name_tag().map(|tag| tag.name()) {
        loaded.loader = name;
    }
    if let Some(Ok(cmdline)) = information.command_line_tag().map(|tag| tag.cmdline()) {
        loaded.cmdline = cmdline;
    }
    for area in information
        .memory_map_tag()
        .map_or(&[][..], |tag| tag.memory_areas())
    {
        let entry = FirmwareEntry {
            start: area.start_address(),
            length: area.size(),
            kind: match area.typ() {
                MemoryAreaType::Available => Kind::Usable,
                MemoryAreaType::AcpiAvailable | MemoryAreaType::ReservedHibernate => Kind::Tables,
                _ => Kind::Reserved,
            },
        };
        loaded.add_memory(entry);
    }
    for (number, module) in information.module_tags().enumerate() {
        let (start, end) = (module.start_address().into(), module.end_address().into());
        if number == 0 && start < end {
            loaded.archive = Some((start, end));
        } else {
            loaded.reserve(start, u64::saturating_sub(end, start));
        }
    }
    // Both tags hold a copy of the root pointer behind their eight bytes of header.
    let v1 = information
        .rsdp_v1_tag()
        .map(|tag| NonNull::from_ref(tag).cast::<u8>());
    let v2 = information
        .rsdp_v2_tag()
        .map(|tag| NonNull::from_ref(tag).cast::<u8>());
    loaded.rsdp = v2.or(v1).map(|tag| directmap::hpa_of(tag).raw() + 8);
}
