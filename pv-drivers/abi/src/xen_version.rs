//! Commands and results of `HYPERVISOR_xen_version` (`public/version.h`, `public/features.h`).

use crate::layout::guest_structs;

/// `XENVER_version`: major << 16 | minor, in the result.
pub const VERSION: u64 = 0;
/// `XENVER_extraversion`: 16 characters.
pub const EXTRAVERSION: u64 = 1;
/// `XENVER_compile_info`: [`CompileInfo`].
pub const COMPILE_INFO: u64 = 2;
/// `XENVER_capabilities`: 1024 characters.
pub const CAPABILITIES: u64 = 3;
/// `XENVER_changeset`: 64 characters.
pub const CHANGESET: u64 = 4;
/// `XENVER_platform_parameters`: the hypervisor's lowest virtual address.
pub const PLATFORM_PARAMETERS: u64 = 5;
/// `XENVER_get_features`: [`FeatureInfo`].
pub const GET_FEATURES: u64 = 6;
/// `XENVER_pagesize`, in the result.
pub const PAGESIZE: u64 = 7;
/// `XENVER_guest_handle`: the domain's 16-byte UUID.
pub const GUEST_HANDLE: u64 = 8;
/// `XENVER_commandline`: 1024 characters.
pub const COMMANDLINE: u64 = 9;
/// `XENVER_build_id`.
pub const BUILD_ID: u64 = 10;
/// The version of the interface that the hypervisor speaks, as [`VERSION`] answers and CPUID says.
pub const INTERFACE_VERSION: u32 = 4 << 16 | 17;

/// Bytes of an extra-version string.
pub const EXTRAVERSION_LEN: usize = 16;
/// Bytes of a capabilities string.
pub const CAPABILITIES_LEN: usize = 1024;
/// Bytes of a changeset string.
pub const CHANGESET_LEN: usize = 64;
/// Bytes of a command line.
pub const COMMANDLINE_LEN: usize = 1024;

guest_structs! {
    /// Who built the hypervisor, with what (`xen_compile_info_t`).
    pub struct CompileInfo: 144 {
        /// The compiler.
        pub compiler: [u8; 64] = 0,
        /// The user.
        pub compile_by: [u8; 16] = 64,
        /// The user's domain.
        pub compile_domain: [u8; 32] = 80,
        /// The date.
        pub compile_date: [u8; 32] = 112,
    }

    /// One 32-bit word of the feature bitmap (`xen_feature_info_t`).
    pub struct FeatureInfo: 8 {
        /// Which word is asked for.
        pub submap_idx: u32 = 0,
        /// The word (out).
        pub submap: u32 = 4,
    }
}

/// Bits of feature word 0 (`XENFEAT_*`).
pub mod feature {
    /// Page tables are the guest's own to write.
    pub const WRITABLE_PAGE_TABLES: u32 = 1 << 0;
    /// Guest frame numbers are translated by the hypervisor.
    pub const AUTO_TRANSLATED_PHYSMAP: u32 = 1 << 2;
    /// Event upcalls can come by a vector.
    pub const HVM_CALLBACK_VECTOR: u32 = 1 << 8;
    /// The time information is safe to use in an HVM guest.
    pub const HVM_SAFE_PVCLOCK: u32 = 1 << 9;
    /// Memory operations take a virtual NUMA node.
    pub const MEMORY_OP_VNODE: u32 = 1 << 13;
    /// The domain is not mapped one to one.
    pub const NOT_DIRECT_MAPPED: u32 = 1 << 16;
    /// The runstate area can be registered by guest-physical address.
    pub const RUNSTATE_PHYS_AREA: u32 = 1 << 18;
    /// The time area can be registered by guest-physical address.
    pub const VCPU_TIME_PHYS_AREA: u32 = 1 << 19;
}
