//! Grant tables: entries, commands, arguments, statuses (`public/grant_table.h`).

use crate::layout::guest_structs;

/// `GNTTABOP_map_grant_ref`.
pub const MAP_GRANT_REF: u64 = 0;
/// `GNTTABOP_unmap_grant_ref`.
pub const UNMAP_GRANT_REF: u64 = 1;
/// `GNTTABOP_setup_table`.
pub const SETUP_TABLE: u64 = 2;
/// `GNTTABOP_dump_table`.
pub const DUMP_TABLE: u64 = 3;
/// `GNTTABOP_transfer`.
pub const TRANSFER: u64 = 4;
/// `GNTTABOP_copy`.
pub const COPY: u64 = 5;
/// `GNTTABOP_query_size`.
pub const QUERY_SIZE: u64 = 6;
/// `GNTTABOP_unmap_and_replace`.
pub const UNMAP_AND_REPLACE: u64 = 7;
/// `GNTTABOP_set_version`.
pub const SET_VERSION: u64 = 8;
/// `GNTTABOP_get_status_frames`.
pub const GET_STATUS_FRAMES: u64 = 9;
/// `GNTTABOP_get_version`.
pub const GET_VERSION: u64 = 10;
/// `GNTTABOP_swap_grant_ref`.
pub const SWAP_GRANT_REF: u64 = 11;
/// `GNTTABOP_cache_flush`.
pub const CACHE_FLUSH: u64 = 12;

/// References set aside for the toolstack (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const RESERVED_ENTRIES: u32 = 8;
/// The reserved reference of the console ring.
pub const RESERVED_CONSOLE: u32 = 0;
/// The reserved reference of the xenstore ring.
pub const RESERVED_XENSTORE: u32 = 1;

/// The newest layout of entries.
pub const MAX_VERSION: u32 = 2;

/// Layout and flags of a version 1 entry (`grant_entry_v1_t`).
pub mod v1 {
    /// Bytes of an entry.
    pub const ENTRY_SIZE: usize = 8;
    /// Entries in one frame.
    pub const ENTRIES_PER_FRAME: u32 = 512;
    /// `flags`, 16 bits.
    pub const FLAGS: usize = 0;
    /// `domid`, 16 bits: who may use the grant.
    pub const DOMID: usize = 2;
    /// `frame`, 32 bits.
    pub const FRAME: usize = 4;

    const _: () = assert!(ENTRIES_PER_FRAME as usize * ENTRY_SIZE == crate::PAGE_SIZE);
}

/// Layout of a version 2 entry (`grant_entry_v2_t`), whose status is apart (`grant_status_t`).
pub mod v2 {
    /// Bytes of an entry.
    pub const ENTRY_SIZE: usize = 16;
    /// Entries in one frame.
    pub const ENTRIES_PER_FRAME: u32 = 256;
    /// `hdr.flags`, 16 bits.
    pub const FLAGS: usize = 0;
    /// `hdr.domid`, 16 bits: who may use the grant.
    pub const DOMID: usize = 2;
    /// `sub_page.page_off` and `sub_page.length`, 16 bits each.
    pub const RANGE: usize = 4;
    /// `full_page.frame` and `sub_page.frame`, 64 bits.
    pub const FRAME: usize = 8;
    /// Bytes of a status.
    pub const STATUS_SIZE: usize = 2;
    /// Statuses in one status frame.
    pub const STATUSES_PER_FRAME: u32 = 2048;

    const _: () = assert!(ENTRIES_PER_FRAME as usize * ENTRY_SIZE == crate::PAGE_SIZE);
    const _: () = assert!(STATUSES_PER_FRAME as usize * STATUS_SIZE == crate::PAGE_SIZE);
}

/// Bits of an entry's flags (`GTF_*`).
pub mod flags {
    /// Mask of the entry's type.
    pub const TYPE_MASK: u16 = 3;
    /// The entry grants nothing.
    pub const INVALID: u16 = 0;
    /// The frame may be mapped or copied.
    pub const PERMIT_ACCESS: u16 = 1;
    /// A frame may be handed over.
    pub const ACCEPT_TRANSFER: u16 = 2;
    /// The grant stands for another domain's.
    pub const TRANSITIVE: u16 = 3;
    /// Only reading is granted.
    pub const READONLY: u16 = 1 << 2;
    /// The frame is in use for reading; set by the hypervisor.
    pub const READING: u16 = 1 << 3;
    /// The frame is in use for writing; set by the hypervisor.
    pub const WRITING: u16 = 1 << 4;
    /// Only a part of the page is granted, for copying; version 2.
    pub const SUB_PAGE: u16 = 1 << 8;
}

/// Bits of [`MapGrantRef::flags`] (`GNTMAP_*`).
pub mod map_flags {
    /// Map for devices.
    pub const DEVICE_MAP: u32 = 1 << 0;
    /// Map for the guest's CPUs.
    pub const HOST_MAP: u32 = 1 << 1;
    /// Do not allow writing.
    pub const READONLY: u32 = 1 << 2;
    /// Allow user mode of a PV guest.
    pub const APPLICATION_MAP: u32 = 1 << 3;
    /// The address is that of a PV guest's page-table entry.
    pub const CONTAINS_PTE: u32 = 1 << 4;
}

/// Bits of [`GrantCopy::flags`] (`GNTCOPY_*`).
pub mod copy_flags {
    /// The source is a grant.
    pub const SOURCE_GREF: u16 = 1 << 0;
    /// The destination is a grant.
    pub const DEST_GREF: u16 = 1 << 1;
}

/// Per-operation results (`GNTST_*`).
pub mod status {
    /// Done.
    pub const OKAY: i16 = 0;
    /// Failed for no particular reason.
    pub const GENERAL_ERROR: i16 = -1;
    /// No such domain.
    pub const BAD_DOMAIN: i16 = -2;
    /// No such grant.
    pub const BAD_GNTREF: i16 = -3;
    /// No such mapping.
    pub const BAD_HANDLE: i16 = -4;
    /// Bad address to map at.
    pub const BAD_VIRT_ADDR: i16 = -5;
    /// Bad address of a device mapping.
    pub const BAD_DEV_ADDR: i16 = -6;
    /// No room for a device mapping.
    pub const NO_DEVICE_SPACE: i16 = -7;
    /// Not allowed.
    pub const PERMISSION_DENIED: i16 = -8;
    /// The frame is not memory.
    pub const BAD_PAGE: i16 = -9;
    /// A copy leaves its page or names a wrong domain.
    pub const BAD_COPY_ARG: i16 = -10;
    /// The frame is beyond reach.
    pub const ADDRESS_TOO_BIG: i16 = -11;
    /// Try again.
    pub const EAGAIN: i16 = -12;
    /// No room for another mapping.
    pub const NO_SPACE: i16 = -13;
}

guest_structs! {
    /// Argument of [`MAP_GRANT_REF`] (`gnttab_map_grant_ref_t`).
    pub struct MapGrantRef: 32 {
        /// Where to map: a guest-physical address for callers with a physical map of their own.
        pub host_addr: u64 = 0,
        /// Of [`map_flags`].
        pub flags: u32 = 8,
        /// The grant.
        pub gref: u32 = 12,
        /// Who granted it.
        pub dom: u16 = 16,
        /// One of [`status`] (out).
        pub status: i16 = 18,
        /// What [`UNMAP_GRANT_REF`] takes (out).
        pub handle: u32 = 20,
        /// The frame's address on the bus (out).
        pub dev_bus_addr: u64 = 24,
    }

    /// Argument of [`UNMAP_GRANT_REF`] (`gnttab_unmap_grant_ref_t`).
    pub struct UnmapGrantRef: 24 {
        /// Where the grant is mapped.
        pub host_addr: u64 = 0,
        /// Where it is mapped for devices, or 0.
        pub dev_bus_addr: u64 = 8,
        /// What [`MAP_GRANT_REF`] answered.
        pub handle: u32 = 16,
        /// One of [`status`] (out).
        pub status: i16 = 20,
        pad: u16 = 22,
    }

    /// One side of a [`GrantCopy`] (`gnttab_copy_ptr`).
    pub struct CopyPtr: 16 {
        /// A grant reference in the low half, or a frame of the caller's own.
        pub place: u64 = 0,
        /// Who granted it.
        pub domid: u16 = 8,
        /// First byte in the page.
        pub offset: u16 = 10,
        pad: u32 = 12,
    }

    /// Argument of [`COPY`] (`gnttab_copy_t`).
    pub struct GrantCopy: 40 {
        /// Where bytes come from.
        pub source: CopyPtr = 0,
        /// Where they go.
        pub dest: CopyPtr = 16,
        /// How many.
        pub len: u16 = 32,
        /// Of [`copy_flags`].
        pub flags: u16 = 34,
        /// One of [`status`] (out).
        pub status: i16 = 36,
        pad: u16 = 38,
    }

    /// [`CopyPtr`] of a 32-bit caller.
    pub struct CompatCopyPtr: 8 {
        /// A grant reference, or a frame of the caller's own.
        pub place: u32 = 0,
        /// Who granted it.
        pub domid: u16 = 4,
        /// First byte in the page.
        pub offset: u16 = 6,
    }

    /// [`GrantCopy`] of a 32-bit caller.
    pub struct CompatGrantCopy: 24 {
        /// Where bytes come from.
        pub source: CompatCopyPtr = 0,
        /// Where they go.
        pub dest: CompatCopyPtr = 8,
        /// How many.
        pub len: u16 = 16,
        /// Of [`copy_flags`].
        pub flags: u16 = 18,
        /// One of [`status`] (out).
        pub status: i16 = 20,
        pad: u16 = 22,
    }

    /// Argument of [`SETUP_TABLE`] (`gnttab_setup_table_t`).
    pub struct SetupTable: 24 {
        /// Whose table.
        pub dom: u16 = 0,
        pad0: u16 = 2,
        /// Frames wanted.
        pub nr_frames: u32 = 4,
        /// One of [`status`] (out).
        pub status: i16 = 8,
        pad1: [u16; 3] = 10,
        /// Linear address of the list of frame numbers to fill.
        pub frame_list: u64 = 16,
    }

    /// [`SetupTable`] of a 32-bit caller.
    pub struct CompatSetupTable: 16 {
        /// Whose table.
        pub dom: u16 = 0,
        pad0: u16 = 2,
        /// Frames wanted.
        pub nr_frames: u32 = 4,
        /// One of [`status`] (out).
        pub status: i16 = 8,
        pad1: u16 = 10,
        /// Linear address of the list of frame numbers to fill.
        pub frame_list: u32 = 12,
    }

    /// Argument of [`QUERY_SIZE`] (`gnttab_query_size_t`).
    pub struct QuerySize: 16 {
        /// Whose table.
        pub dom: u16 = 0,
        pad0: u16 = 2,
        /// Frames it has (out).
        pub nr_frames: u32 = 4,
        /// Frames it may have (out).
        pub max_nr_frames: u32 = 8,
        /// One of [`status`] (out).
        pub status: i16 = 12,
        pad1: u16 = 14,
    }

    /// Argument of [`SET_VERSION`] (`gnttab_set_version_t`).
    pub struct SetVersion: 4 {
        /// The version wanted; the one in force (out).
        pub version: u32 = 0,
    }

    /// Argument of [`GET_VERSION`] (`gnttab_get_version_t`).
    pub struct GetVersion: 8 {
        /// Whose table.
        pub dom: u16 = 0,
        pad: u16 = 2,
        /// The version in force (out).
        pub version: u32 = 4,
    }

    /// Argument of [`SWAP_GRANT_REF`] (`gnttab_swap_grant_ref_t`).
    pub struct SwapGrantRef: 12 {
        /// One reference.
        pub ref_a: u32 = 0,
        /// The other.
        pub ref_b: u32 = 4,
        /// One of [`status`] (out).
        pub status: i16 = 8,
        pad: u16 = 10,
    }
}

impl From<CompatCopyPtr> for CopyPtr {
    fn from(compat: CompatCopyPtr) -> Self {
        Self {
            place: compat.place.into(),
            domid: compat.domid,
            offset: compat.offset,
            pad: 0,
        }
    }
}

impl From<CompatGrantCopy> for GrantCopy {
    fn from(compat: CompatGrantCopy) -> Self {
        Self {
            source: compat.source.into(),
            dest: compat.dest.into(),
            len: compat.len,
            flags: compat.flags,
            status: compat.status,
            pad: 0,
        }
    }
}

impl From<CompatSetupTable> for SetupTable {
    fn from(compat: CompatSetupTable) -> Self {
        Self {
            dom: compat.dom,
            pad0: 0,
            nr_frames: compat.nr_frames,
            status: compat.status,
            pad1: [0; 3],
            frame_list: compat.frame_list.into(),
        }
    }
}
