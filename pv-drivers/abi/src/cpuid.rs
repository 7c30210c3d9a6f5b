//! The hypervisor's CPUID leaves (`public/arch-x86/cpuid.h`).

/// First leaf of the range.
pub const BASE: u32 = 0x4000_0000;
/// EBX of [`BASE`]: "XenV".
pub const SIGNATURE_EBX: u32 = 0x566e_6558;
/// ECX of [`BASE`]: "MMXe".
pub const SIGNATURE_ECX: u32 = 0x6558_4d4d;
/// EDX of [`BASE`]: "nVMM".
pub const SIGNATURE_EDX: u32 = 0x4d4d_566e;

/// Offset of the leaf with the version: major << 16 | minor in EAX.
pub const LEAF_VERSION: u32 = 1;
/// Offset of the leaf with the hypercall page: pages in EAX, MSR index in EBX.
pub const LEAF_HYPERCALL_PAGE: u32 = 2;
/// Offset of the leaf with the time base.
pub const LEAF_TIME: u32 = 3;
/// Offset of the leaf with what only HVM guests need.
pub const LEAF_HVM: u32 = 4;
/// Offset of the last leaf; PV guests only.
pub const LEAF_PV: u32 = 5;
/// EAX of [`BASE`]: the last leaf there is.
pub const MAX_LEAF: u32 = BASE + LEAF_PV;

/// The MSR a guest writes to have a hypercall page filled.
pub const HYPERCALL_MSR: u32 = 0x4000_0000;

/// Bits of EAX in [`LEAF_HVM`] (`XEN_HVM_CPUID_*`).
pub mod hvm {
    /// Accesses to the APIC page are virtualised by the CPU.
    pub const APIC_ACCESS_VIRT: u32 = 1 << 0;
    /// x2APIC MSRs are virtualised by the CPU.
    pub const X2APIC_VIRT: u32 = 1 << 1;
    /// Foreign memory is mapped for DMA.
    pub const IOMMU_MAPPINGS: u32 = 1 << 2;
    /// EBX holds the vCPU's id.
    pub const VCPU_ID_PRESENT: u32 = 1 << 3;
    /// ECX holds the domain's id.
    pub const DOMID_PRESENT: u32 = 1 << 4;
    /// Interrupt messages carry 15 bits of destination.
    pub const EXT_DEST_ID: u32 = 1 << 5;
    /// Each vCPU may choose its upcall vector.
    pub const UPCALL_VECTOR: u32 = 1 << 6;
}

/// Bits of EAX in subleaf 0 of [`LEAF_TIME`].
pub mod time {
    /// RDTSC is emulated.
    pub const TSC_EMULATED: u32 = 1 << 0;
    /// The host's TSC is reliable.
    pub const HOST_TSC_RELIABLE: u32 = 1 << 1;
    /// The guest may use RDTSCP.
    pub const RDTSCP: u32 = 1 << 2;
}
