//! Offsets in the page a domain shares with the hypervisor, and in each vCPU's information
//! (`public/xen.h`, `public/arch-x86/xen.h`).
//!
//! The page is written by both sides at any time, so there is no struct to take a reference to:
//! all access goes by offset through an atomic view. 64-bit offsets stand here; [`compat`] holds
//! those of a 32-bit guest.

/// Bytes of the whole structure.
pub const SIZE: usize = 3136;
/// `vcpu_info[32]`.
pub const VCPU_INFO: usize = 0;
/// vCPUs with room in the page; later ones register a place of their own.
pub const LEGACY_MAX_VCPUS: u32 = 32;
/// `evtchn_pending`, a bitmap.
pub const EVTCHN_PENDING: usize = 2048;
/// `evtchn_mask`, a bitmap.
pub const EVTCHN_MASK: usize = 2560;
/// Bytes of each bitmap.
pub const EVTCHN_BITMAP_SIZE: usize = 512;
/// `wc_version`: odd while the wall clock is being written.
pub const WC_VERSION: usize = 3072;
/// `wc_sec`: seconds since 1970 at system time 0, low half.
pub const WC_SEC: usize = 3076;
/// `wc_nsec`.
pub const WC_NSEC: usize = 3080;
/// `wc_sec_hi`: seconds, high half.
pub const WC_SEC_HI: usize = 3084;
/// `arch.nmi_reason`.
pub const ARCH_NMI_REASON: usize = 3104;

/// Offsets inside one `vcpu_info`, 64-bit guest.
pub mod vcpu_info {
    /// Bytes of the structure, in either width.
    pub const SIZE: usize = 64;
    /// `evtchn_upcall_pending`, a byte.
    pub const UPCALL_PENDING: usize = 0;
    /// `evtchn_upcall_mask`, a byte.
    pub const UPCALL_MASK: usize = 1;
    /// `evtchn_pending_sel`, one 64-bit word.
    pub const PENDING_SEL: usize = 8;
    /// `arch`: the page-fault address of PV guests.
    pub const ARCH: usize = 16;
    /// `time`, a [`crate::vcpu::VcpuTimeInfo`].
    pub const TIME: usize = 32;
    /// Alignment a registered place needs.
    pub const ALIGN: usize = 8;
}

/// Offsets in a 32-bit guest's page.
pub mod compat {
    /// Bytes of the whole structure.
    pub const SIZE: usize = 2344;
    /// `evtchn_pending`, a bitmap.
    pub const EVTCHN_PENDING: usize = 2048;
    /// `evtchn_mask`, a bitmap.
    pub const EVTCHN_MASK: usize = 2176;
    /// Bytes of each bitmap.
    pub const EVTCHN_BITMAP_SIZE: usize = 128;
    /// `wc_version`: odd while the wall clock is being written.
    pub const WC_VERSION: usize = 2304;
    /// `wc_sec`: seconds since 1970 at system time 0, low half.
    pub const WC_SEC: usize = 2308;
    /// `wc_nsec`.
    pub const WC_NSEC: usize = 2312;
    /// `arch`.
    pub const ARCH: usize = 2316;
    /// `wc_sec_hi`, inside `arch`.
    pub const WC_SEC_HI: usize = ARCH + 24;

    /// Offsets inside one `vcpu_info`, 32-bit guest; those not here are as in the 64-bit one.
    pub mod vcpu_info {
        /// `evtchn_pending_sel`, one 32-bit word.
        pub const PENDING_SEL: usize = 4;
        /// `arch`: the page-fault address of PV guests.
        pub const ARCH: usize = 8;
        /// Alignment a registered place needs.
        pub const ALIGN: usize = 4;
    }

    const _: () = assert!(ARCH + 28 == SIZE);
    const _: () = assert!(EVTCHN_PENDING + EVTCHN_BITMAP_SIZE == EVTCHN_MASK);
    const _: () = assert!(EVTCHN_MASK + EVTCHN_BITMAP_SIZE == WC_VERSION);
}

const _: () = assert!(LEGACY_MAX_VCPUS as usize * vcpu_info::SIZE == EVTCHN_PENDING);
const _: () = assert!(EVTCHN_PENDING + EVTCHN_BITMAP_SIZE == EVTCHN_MASK);
const _: () = assert!(EVTCHN_MASK + EVTCHN_BITMAP_SIZE == WC_VERSION);
const _: () = assert!(vcpu_info::TIME + size_of::<crate::vcpu::VcpuTimeInfo>() == vcpu_info::SIZE);
