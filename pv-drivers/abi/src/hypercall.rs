//! Hypercall numbers and the shape of the hypercall page (`public/xen.h`,
//! `public/arch-x86/xen.h`).
//!
//! | caller | number | arguments 1-5            | result |
//! |--------|--------|--------------------------|--------|
//! | 64-bit | RAX    | RDI, RSI, RDX, R10, R8   | RAX    |
//! | 32-bit | EAX    | EBX, ECX, EDX, ESI, EDI  | EAX    |

/// `HYPERVISOR_platform_op`: the control domain only.
pub const PLATFORM_OP: u64 = 7;
/// `HYPERVISOR_memory_op`.
pub const MEMORY_OP: u64 = 12;
/// `HYPERVISOR_multicall`.
pub const MULTICALL: u64 = 13;
/// `HYPERVISOR_set_timer_op`.
pub const SET_TIMER_OP: u64 = 15;
/// `HYPERVISOR_xen_version`.
pub const XEN_VERSION: u64 = 17;
/// `HYPERVISOR_console_io`.
pub const CONSOLE_IO: u64 = 18;
/// `HYPERVISOR_grant_table_op`.
pub const GRANT_TABLE_OP: u64 = 20;
/// `HYPERVISOR_vm_assist`.
pub const VM_ASSIST: u64 = 21;
/// `HYPERVISOR_vcpu_op`.
pub const VCPU_OP: u64 = 24;
/// `HYPERVISOR_mmuext_op`.
pub const MMUEXT_OP: u64 = 26;
/// `HYPERVISOR_xsm_op`.
pub const XSM_OP: u64 = 27;
/// `HYPERVISOR_sched_op`.
pub const SCHED_OP: u64 = 29;
/// `HYPERVISOR_event_channel_op`.
pub const EVENT_CHANNEL_OP: u64 = 32;
/// `HYPERVISOR_physdev_op`.
pub const PHYSDEV_OP: u64 = 33;
/// `HYPERVISOR_hvm_op`.
pub const HVM_OP: u64 = 34;
/// `HYPERVISOR_sysctl`: the control domain only.
pub const SYSCTL: u64 = 35;
/// `HYPERVISOR_domctl`: the control domain only.
pub const DOMCTL: u64 = 36;
/// `HYPERVISOR_argo_op`.
pub const ARGO_OP: u64 = 39;
/// `HYPERVISOR_xenpmu_op`.
pub const XENPMU_OP: u64 = 40;
/// `HYPERVISOR_dm_op`.
pub const DM_OP: u64 = 41;
/// `HYPERVISOR_hypfs_op`.
pub const HYPFS_OP: u64 = 42;

/// Most arguments a hypercall takes.
pub const MAX_ARGS: usize = 5;

/// Stubs in a hypercall page.
pub const PAGE_SLOTS: usize = 128;
/// Bytes of one stub.
pub const STUB_SIZE: usize = 32;
/// The slot of `iret`, which no HVM guest may call; its stub is an invalid opcode.
pub const IRET_SLOT: usize = 23;

/// The 64-byte argument block of one call in a batch (`struct multicall_entry`).
pub mod multicall {
    crate::layout::guest_structs! {
        /// One call of a batch, as a 64-bit caller lays it out.
        pub struct Entry: 64 {
            /// Hypercall number.
            pub op: u64 = 0,
            /// What the call returned (out).
            pub result: u64 = 8,
            /// Arguments; the last one is never used.
            pub args: [u64; 6] = 16,
        }

        /// One call of a batch, as a 32-bit caller lays it out.
        pub struct CompatEntry: 32 {
            /// Hypercall number.
            pub op: u32 = 0,
            /// What the call returned (out).
            pub result: u32 = 4,
            /// Arguments; the last one is never used.
            pub args: [u32; 6] = 8,
        }
    }

    impl From<CompatEntry> for Entry {
        fn from(compat: CompatEntry) -> Self {
            Self {
                op: compat.op.into(),
                result: compat.result.into(),
                args: compat.args.map(u64::from),
            }
        }
    }
}
