//! Commands and arguments of `HYPERVISOR_memory_op` (`public/memory.h`).

use zerocopy::little_endian::{U32, U64};

use crate::layout::guest_structs;

/// `XENMEM_increase_reservation`.
pub const INCREASE_RESERVATION: u64 = 0;
/// `XENMEM_decrease_reservation`.
pub const DECREASE_RESERVATION: u64 = 1;
/// `XENMEM_maximum_ram_page`.
pub const MAXIMUM_RAM_PAGE: u64 = 2;
/// `XENMEM_current_reservation`.
pub const CURRENT_RESERVATION: u64 = 3;
/// `XENMEM_maximum_reservation`.
pub const MAXIMUM_RESERVATION: u64 = 4;
/// `XENMEM_machphys_mfn_list`: PV only.
pub const MACHPHYS_MFN_LIST: u64 = 5;
/// `XENMEM_populate_physmap`.
pub const POPULATE_PHYSMAP: u64 = 6;
/// `XENMEM_add_to_physmap`.
pub const ADD_TO_PHYSMAP: u64 = 7;
/// `XENMEM_memory_map`.
pub const MEMORY_MAP: u64 = 9;
/// `XENMEM_machine_memory_map`: the control domain only.
pub const MACHINE_MEMORY_MAP: u64 = 10;
/// `XENMEM_exchange`.
pub const EXCHANGE: u64 = 11;
/// `XENMEM_machphys_mapping`: PV only.
pub const MACHPHYS_MAPPING: u64 = 12;
/// `XENMEM_set_memory_map`: what built the domain only.
pub const SET_MEMORY_MAP: u64 = 13;
/// `XENMEM_maximum_gpfn`.
pub const MAXIMUM_GPFN: u64 = 14;
/// `XENMEM_remove_from_physmap`.
pub const REMOVE_FROM_PHYSMAP: u64 = 15;
/// `XENMEM_set_pod_target`: the control domain only.
pub const SET_POD_TARGET: u64 = 16;
/// `XENMEM_get_pod_target`: the control domain only.
pub const GET_POD_TARGET: u64 = 17;
/// `XENMEM_get_sharing_freed_pages`.
pub const GET_SHARING_FREED_PAGES: u64 = 18;
/// `XENMEM_get_sharing_shared_pages`.
pub const GET_SHARING_SHARED_PAGES: u64 = 19;
/// `XENMEM_access_op`: of another domain's memory.
pub const ACCESS_OP: u64 = 21;
/// `XENMEM_add_to_physmap_batch`.
pub const ADD_TO_PHYSMAP_BATCH: u64 = 23;

/// `XENMEM_claim_pages`: the control domain only.
pub const CLAIM_PAGES: u64 = 24;
/// `XENMEM_get_vnumainfo`.
pub const GET_VNUMAINFO: u64 = 26;
/// `XENMEM_reserved_device_memory_map`.
pub const RESERVED_DEVICE_MEMORY_MAP: u64 = 27;
/// `XENMEM_acquire_resource`: the hardware domain only.
pub const ACQUIRE_RESOURCE: u64 = 28;

/// Bits of the command below the progress index that a preempted call carries.
pub const CMD_BITS: u32 = 6;

/// Largest `extent_order` an unprivileged domain may ask for.
pub const DOMU_MAX_ORDER: u32 = 9;

/// Most entries of a list whose progress the command has room for.
pub const MAX_EXTENTS: u64 = (u32::MAX >> CMD_BITS) as u64;

/// Bits of `mem_flags` with the most address bits that the memory may need, 0 for any.
pub const MEMF_ADDRESS_BITS: u32 = 0xff;
/// Bit of `mem_flags`: leave the memory to be given on demand.
pub const MEMF_POPULATE_ON_DEMAND: u32 = 1 << 16;
/// Bit of `mem_flags`: from the node that is named, or not at all.
pub const MEMF_EXACT_NODE: u32 = 1 << 17;
/// Bit of `mem_flags`: the node is one of the guest's own.
pub const MEMF_VNODE: u32 = 1 << 18;
/// Bits of `mem_flags` that name a NUMA node (node + 1, 0 for none).
pub const MEMF_NODE_SHIFT: u32 = 8;
/// Width mask of the node bits.
pub const MEMF_NODE_MASK: u32 = 0xff;

/// `XENMAPSPACE_shared_info`.
pub const SPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table`.
pub const SPACE_GRANT_TABLE: u32 = 1;
/// `XENMAPSPACE_gmfn`.
pub const SPACE_GMFN: u32 = 2;
/// `XENMAPSPACE_gmfn_range`.
pub const SPACE_GMFN_RANGE: u32 = 3;
/// `XENMAPSPACE_gmfn_foreign`.
pub const SPACE_GMFN_FOREIGN: u32 = 4;
/// `XENMAPSPACE_dev_mmio`.
pub const SPACE_DEV_MMIO: u32 = 5;

/// Set in a grant-table index to name a version 2 status frame
/// (`XENMAPIDX_grant_table_status`).
pub const GRANT_TABLE_STATUS: u64 = 0x8000_0000;

guest_structs! {
    /// Argument of the reservation commands (`xen_memory_reservation_t`).
    pub struct Reservation: 32 {
        /// Linear address of the list of frame numbers.
        pub extent_start: u64 = 0,
        /// Entries in the list.
        pub nr_extents: u64 = 8,
        /// log2 of the frames in each extent.
        pub extent_order: u32 = 16,
        /// Address width and node wishes.
        pub mem_flags: u32 = 20,
        /// Whose reservation.
        pub domid: u16 = 24,
        pad: [u16; 3] = 26,
    }

    /// [`Reservation`] of a 32-bit caller, whose lists hold 32-bit frame numbers.
    pub struct CompatReservation: 20 {
        /// Linear address of the list of frame numbers.
        pub extent_start: u32 = 0,
        /// Entries in the list.
        pub nr_extents: u32 = 4,
        /// log2 of the frames in each extent.
        pub extent_order: u32 = 8,
        /// Address width and node wishes.
        pub mem_flags: u32 = 12,
        /// Whose reservation.
        pub domid: u16 = 16,
        pad: u16 = 18,
    }

    /// Argument of [`ADD_TO_PHYSMAP`] (`xen_add_to_physmap_t`).
    pub struct AddToPhysmap: 24 {
        /// Whose physical map.
        pub domid: u16 = 0,
        /// Pages to go through, for [`SPACE_GMFN_RANGE`].
        pub size: u16 = 2,
        /// What `idx` counts.
        pub space: u32 = 4,
        /// Index of the source page in its space.
        pub idx: u64 = 8,
        /// Frame at which the page is to appear.
        pub gpfn: u64 = 16,
    }

    /// [`AddToPhysmap`] of a 32-bit caller.
    pub struct CompatAddToPhysmap: 16 {
        /// Whose physical map.
        pub domid: u16 = 0,
        /// Pages to go through, for [`SPACE_GMFN_RANGE`].
        pub size: u16 = 2,
        /// What `idx` counts.
        pub space: u32 = 4,
        /// Index of the source page in its space.
        pub idx: u32 = 8,
        /// Frame at which the page is to appear.
        pub gpfn: u32 = 12,
    }

    /// Argument of [`ADD_TO_PHYSMAP_BATCH`] (`xen_add_to_physmap_batch_t`).
    pub struct AddToPhysmapBatch: 32 {
        /// Whose physical map.
        pub domid: u16 = 0,
        /// What the indices count.
        pub space: u16 = 2,
        /// Entries in each list.
        pub size: u16 = 4,
        /// The domain whose pages [`SPACE_GMFN_FOREIGN`] means; else 0.
        pub foreign_domid: u16 = 6,
        /// Linear address of the list of indices.
        pub idxs: u64 = 8,
        /// Linear address of the list of frames.
        pub gpfns: u64 = 16,
        /// Linear address of the list of results, 32 bits each.
        pub errs: u64 = 24,
    }

    /// [`AddToPhysmapBatch`] of a 32-bit caller.
    pub struct CompatAddToPhysmapBatch: 20 {
        /// Whose physical map.
        pub domid: u16 = 0,
        /// What the indices count.
        pub space: u16 = 2,
        /// Entries in each list.
        pub size: u16 = 4,
        /// The domain whose pages [`SPACE_GMFN_FOREIGN`] means; else 0.
        pub foreign_domid: u16 = 6,
        /// Linear address of the list of indices.
        pub idxs: u32 = 8,
        /// Linear address of the list of frames.
        pub gpfns: u32 = 12,
        /// Linear address of the list of results, 32 bits each.
        pub errs: u32 = 16,
    }

    /// Argument of [`REMOVE_FROM_PHYSMAP`] (`xen_remove_from_physmap_t`).
    pub struct RemoveFromPhysmap: 16 {
        /// Whose physical map.
        pub domid: u16 = 0,
        pad: [u16; 3] = 2,
        /// Frame to take away.
        pub gpfn: u64 = 8,
    }

    /// [`RemoveFromPhysmap`] of a 32-bit caller.
    pub struct CompatRemoveFromPhysmap: 8 {
        /// Whose physical map.
        pub domid: u16 = 0,
        pad: u16 = 2,
        /// Frame to take away.
        pub gpfn: u32 = 4,
    }

    /// Argument of [`MEMORY_MAP`] (`xen_memory_map_t`).
    pub struct MemoryMap: 16 {
        /// Room in the buffer; entries written (out).
        pub nr_entries: u32 = 0,
        pad: u32 = 4,
        /// Linear address of the buffer of [`MapEntry`].
        pub buffer: u64 = 8,
    }

    /// [`MemoryMap`] of a 32-bit caller.
    pub struct CompatMemoryMap: 8 {
        /// Room in the buffer; entries written (out).
        pub nr_entries: u32 = 0,
        /// Linear address of the buffer of [`MapEntry`].
        pub buffer: u32 = 4,
    }

    /// One range of the memory map, packed as firmware hands it out (`struct e820entry`).
    pub struct MapEntry: 20 {
        /// First byte.
        pub addr: U64 = 0,
        /// Length in bytes.
        pub size: U64 = 8,
        /// What the range holds, as in [`crate::start_info::memmap`].
        pub kind: U32 = 16,
    }

    /// Argument of [`GET_VNUMAINFO`] (`xen_vnuma_topology_info_t`), as far as it decides.
    pub struct VnumaTopology: 16 {
        /// Whose topology.
        pub domid: u16 = 0,
        /// Zero.
        pub pad: u16 = 2,
        /// Room for nodes.
        pub nr_vnodes: u32 = 4,
        /// Room for vCPUs.
        pub nr_vcpus: u32 = 8,
        /// Room for ranges of memory.
        pub nr_vmemranges: u32 = 12,
    }

    /// Argument of [`RESERVED_DEVICE_MEMORY_MAP`], as far as it begins.
    pub struct ReservedDeviceMemory: 8 {
        /// Bit 0: of all devices.
        pub flags: u32 = 0,
        /// Room in the buffer; entries there are (out).
        pub nr_entries: u32 = 4,
    }

    /// Argument of the commands that only name a domain.
    pub struct DomainArg: 2 {
        /// The domain.
        pub domid: u16 = 0,
    }
}

impl From<CompatReservation> for Reservation {
    fn from(compat: CompatReservation) -> Self {
        Self {
            extent_start: compat.extent_start.into(),
            nr_extents: compat.nr_extents.into(),
            extent_order: compat.extent_order,
            mem_flags: compat.mem_flags,
            domid: compat.domid,
            pad: [0; 3],
        }
    }
}

impl From<CompatAddToPhysmap> for AddToPhysmap {
    fn from(compat: CompatAddToPhysmap) -> Self {
        Self {
            domid: compat.domid,
            size: compat.size,
            space: compat.space,
            idx: compat.idx.into(),
            gpfn: compat.gpfn.into(),
        }
    }
}

impl From<CompatAddToPhysmapBatch> for AddToPhysmapBatch {
    fn from(compat: CompatAddToPhysmapBatch) -> Self {
        Self {
            domid: compat.domid,
            space: compat.space,
            size: compat.size,
            foreign_domid: compat.foreign_domid,
            idxs: compat.idxs.into(),
            gpfns: compat.gpfns.into(),
            errs: compat.errs.into(),
        }
    }
}

impl From<CompatRemoveFromPhysmap> for RemoveFromPhysmap {
    fn from(compat: CompatRemoveFromPhysmap) -> Self {
        Self {
            domid: compat.domid,
            pad: [0; 3],
            gpfn: compat.gpfn.into(),
        }
    }
}

impl From<CompatMemoryMap> for MemoryMap {
    fn from(compat: CompatMemoryMap) -> Self {
        Self {
            nr_entries: compat.nr_entries,
            pad: 0,
            buffer: compat.buffer.into(),
        }
    }
}
