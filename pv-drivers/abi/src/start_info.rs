//! What a PVH guest finds at the address in EBX (`public/arch-x86/hvm/start_info.h`).

use crate::layout::guest_structs;

/// `XEN_HVM_START_MAGIC_VALUE`.
pub const MAGIC: u32 = 0x336e_c578;
/// The version that has a memory map.
pub const VERSION: u32 = 1;

guest_structs! {
    /// The start information itself (`struct hvm_start_info`).
    pub struct StartInfo: 56 {
        /// [`MAGIC`].
        pub magic: u32 = 0,
        /// [`VERSION`].
        pub version: u32 = 4,
        /// 0 for an ordinary domain.
        pub flags: u32 = 8,
        /// Entries of the module list.
        pub nr_modules: u32 = 12,
        /// Guest-physical address of an array of [`ModlistEntry`].
        pub modlist_paddr: u64 = 16,
        /// Guest-physical address of the command line, NUL-terminated.
        pub cmdline_paddr: u64 = 24,
        /// Guest-physical address of the ACPI root pointer.
        pub rsdp_paddr: u64 = 32,
        /// Guest-physical address of an array of [`MemmapEntry`].
        pub memmap_paddr: u64 = 40,
        /// Entries of the memory map.
        pub memmap_entries: u32 = 48,
        /// Must be 0.
        pub reserved: u32 = 52,
    }

    /// One module (`struct hvm_modlist_entry`).
    pub struct ModlistEntry: 32 {
        /// Guest-physical address.
        pub paddr: u64 = 0,
        /// Bytes.
        pub size: u64 = 8,
        /// Guest-physical address of its command line, 0 for none.
        pub cmdline_paddr: u64 = 16,
        /// Must be 0.
        pub reserved: u64 = 24,
    }

    /// One range of the memory map (`struct hvm_memmap_table_entry`).
    pub struct MemmapEntry: 24 {
        /// First byte.
        pub addr: u64 = 0,
        /// Length in bytes.
        pub size: u64 = 8,
        /// One of [`memmap`].
        pub kind: u32 = 16,
        /// Must be 0.
        pub reserved: u32 = 20,
    }
}

/// Values of [`MemmapEntry::kind`] (`XEN_HVM_MEMMAP_TYPE_*`).
pub mod memmap {
    /// Ordinary memory.
    pub const RAM: u32 = 1;
    /// Not to be touched.
    pub const RESERVED: u32 = 2;
    /// ACPI tables, free once read.
    pub const ACPI: u32 = 3;
    /// ACPI memory to be kept.
    pub const NVS: u32 = 4;
    /// Broken memory.
    pub const UNUSABLE: u32 = 5;
}

/// Bits of [`StartInfo::flags`] (`SIF_*`).
pub mod flags {
    /// The domain is privileged.
    pub const PRIVILEGED: u32 = 1 << 0;
    /// The domain is the first one.
    pub const INITDOMAIN: u32 = 1 << 1;
}
