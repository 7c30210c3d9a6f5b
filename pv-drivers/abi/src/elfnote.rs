//! ELF notes of a kernel image (`public/elfnote.h`).

/// Owner of all these notes, with its terminating NUL.
pub const OWNER: &[u8] = b"Xen\0";

/// `XEN_ELFNOTE_XEN_VERSION`.
pub const XEN_VERSION: u32 = 5;
/// `XEN_ELFNOTE_GUEST_OS`.
pub const GUEST_OS: u32 = 6;
/// `XEN_ELFNOTE_GUEST_VERSION`.
pub const GUEST_VERSION: u32 = 7;
/// `XEN_ELFNOTE_SUPPORTED_FEATURES`.
pub const SUPPORTED_FEATURES: u32 = 17;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the 32-bit entry point, 4 or 8 bytes; makes an image PVH.
pub const PHYS32_ENTRY: u32 = 18;
/// `XEN_ELFNOTE_PHYS32_RELOC`: alignment, lowest and highest address of a relocatable image.
pub const PHYS32_RELOC: u32 = 19;
