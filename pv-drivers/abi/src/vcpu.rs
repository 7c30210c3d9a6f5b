//! Commands and arguments of `HYPERVISOR_vcpu_op`, runstate and time areas (`public/vcpu.h`,
//! `public/xen.h`).

use zerocopy::little_endian::{U32, U64};

use crate::layout::guest_structs;

/// `VCPUOP_initialise`.
pub const INITIALISE: u64 = 0;
/// `VCPUOP_up`.
pub const UP: u64 = 1;
/// `VCPUOP_down`.
pub const DOWN: u64 = 2;
/// `VCPUOP_is_up`.
pub const IS_UP: u64 = 3;
/// `VCPUOP_get_runstate_info`.
pub const GET_RUNSTATE_INFO: u64 = 4;
/// `VCPUOP_register_runstate_memory_area`.
pub const REGISTER_RUNSTATE_MEMORY_AREA: u64 = 5;
/// `VCPUOP_set_periodic_timer`.
pub const SET_PERIODIC_TIMER: u64 = 6;
/// `VCPUOP_stop_periodic_timer`.
pub const STOP_PERIODIC_TIMER: u64 = 7;
/// `VCPUOP_set_singleshot_timer`.
pub const SET_SINGLESHOT_TIMER: u64 = 8;
/// `VCPUOP_stop_singleshot_timer`.
pub const STOP_SINGLESHOT_TIMER: u64 = 9;
/// `VCPUOP_register_vcpu_info`.
pub const REGISTER_VCPU_INFO: u64 = 10;
/// `VCPUOP_send_nmi`.
pub const SEND_NMI: u64 = 11;
/// `VCPUOP_get_physid`: the hardware domain only.
pub const GET_PHYSID: u64 = 12;
/// `VCPUOP_register_vcpu_time_memory_area`.
pub const REGISTER_VCPU_TIME_MEMORY_AREA: u64 = 13;
/// `VCPUOP_register_runstate_phys_area`.
pub const REGISTER_RUNSTATE_PHYS_AREA: u64 = 14;
/// `VCPUOP_register_vcpu_time_phys_area`.
pub const REGISTER_VCPU_TIME_PHYS_AREA: u64 = 15;

/// Shortest period of a periodic timer, in nanoseconds.
pub const MIN_PERIOD_NS: u64 = 1_000_000;

/// What a vCPU is doing (`RUNSTATE_*`).
pub mod runstate {
    /// On a physical CPU.
    pub const RUNNING: u32 = 0;
    /// Ready, waiting for a physical CPU.
    pub const RUNNABLE: u32 = 1;
    /// Waiting for an event.
    pub const BLOCKED: u32 = 2;
    /// Neither running nor wanting to.
    pub const OFFLINE: u32 = 3;
    /// States there are.
    pub const COUNT: usize = 4;
    /// Set in the entry time while the area is being written.
    pub const UPDATE_FLAG: u64 = 1 << 63;
}

guest_structs! {
    /// How long a vCPU spent in each state (`vcpu_runstate_info_t`).
    pub struct RunstateInfo: 48 {
        /// One of [`runstate`].
        pub state: u32 = 0,
        pad: u32 = 4,
        /// System time at which the state was entered.
        pub state_entry_time: u64 = 8,
        /// Nanoseconds spent in each state.
        pub time: [u64; 4] = 16,
    }

    /// [`RunstateInfo`] as a 32-bit guest sees it.
    pub struct CompatRunstateInfo: 44 {
        /// One of [`runstate`].
        pub state: U32 = 0,
        /// System time at which the state was entered.
        pub state_entry_time: U64 = 4,
        /// Nanoseconds spent in each state.
        pub time: [U64; 4] = 12,
    }

    /// Argument of the commands that register an area: its linear or guest-physical address.
    pub struct RegisterArea: 8 {
        /// The address; 32-bit callers fill the low half of a linear one.
        pub address: u64 = 0,
    }

    /// Argument of [`SET_PERIODIC_TIMER`].
    pub struct SetPeriodicTimer: 8 {
        /// Nanoseconds between two ticks.
        pub period_ns: u64 = 0,
    }

    /// Argument of [`SET_SINGLESHOT_TIMER`].
    pub struct SetSingleshotTimer: 16 {
        /// System time at which the timer fires.
        pub timeout_abs_ns: u64 = 0,
        /// Bit 0: the caller wants an error if the time has passed.
        pub flags: u32 = 8,
        pad: u32 = 12,
    }

    /// [`SetSingleshotTimer`] of a 32-bit caller.
    pub struct CompatSetSingleshotTimer: 12 {
        /// System time at which the timer fires.
        pub timeout_abs_ns: U64 = 0,
        /// Bit 0: the caller wants an error if the time has passed.
        pub flags: U32 = 8,
    }

    /// Argument of [`REGISTER_VCPU_INFO`].
    pub struct RegisterVcpuInfo: 16 {
        /// Frame that will hold the vCPU's information.
        pub mfn: u64 = 0,
        /// Where in the frame it starts.
        pub offset: u32 = 8,
        rsvd: u32 = 12,
    }

    /// The paravirtual clock of a vCPU (`vcpu_time_info_t`).
    ///
    /// ns(tsc) = `system_time` + (((tsc - `tsc_timestamp`) << `tsc_shift`) * `tsc_to_system_mul`)
    /// >> 32, with a negative shift going right.
    pub struct VcpuTimeInfo: 32 {
        /// Odd while the other fields are being written.
        pub version: u32 = 0,
        pad0: u32 = 4,
        /// Guest TSC when `system_time` was taken.
        pub tsc_timestamp: u64 = 8,
        /// Nanoseconds since the domain's epoch.
        pub system_time: u64 = 16,
        /// TSC ticks to nanoseconds, a 32-bit fraction.
        pub tsc_to_system_mul: u32 = 24,
        /// Shift to apply before the multiplication.
        pub tsc_shift: i8 = 28,
        /// Bits of [`time_flags`].
        pub flags: u8 = 29,
        pad1: [u8; 2] = 30,
    }
}

impl From<CompatSetSingleshotTimer> for SetSingleshotTimer {
    fn from(compat: CompatSetSingleshotTimer) -> Self {
        Self {
            timeout_abs_ns: compat.timeout_abs_ns.get(),
            flags: compat.flags.get(),
            pad: 0,
        }
    }
}

impl RunstateInfo {
    /// The area's contents.
    #[must_use]
    pub const fn new(state: u32, state_entry_time: u64, time: [u64; runstate::COUNT]) -> Self {
        Self {
            state,
            pad: 0,
            state_entry_time,
            time,
        }
    }
}

impl From<RunstateInfo> for CompatRunstateInfo {
    fn from(info: RunstateInfo) -> Self {
        Self {
            state: U32::new(info.state),
            state_entry_time: U64::new(info.state_entry_time),
            time: info.time.map(U64::new),
        }
    }
}

impl VcpuTimeInfo {
    /// A clock record; `version` is for whoever publishes it to set.
    #[must_use]
    pub const fn new(
        tsc_timestamp: u64,
        system_time: u64,
        tsc_to_system_mul: u32,
        tsc_shift: i8,
        flags: u8,
    ) -> Self {
        Self {
            version: 0,
            pad0: 0,
            tsc_timestamp,
            system_time,
            tsc_to_system_mul,
            tsc_shift,
            flags,
            pad1: [0; 2],
        }
    }
}

/// Bits of [`VcpuTimeInfo::flags`].
pub mod time_flags {
    /// All vCPUs' clocks agree and never run backward (`XEN_PVCLOCK_TSC_STABLE_BIT`).
    pub const TSC_STABLE: u8 = 1 << 0;
    /// The domain was paused (`XEN_PVCLOCK_GUEST_STOPPED`).
    pub const GUEST_STOPPED: u8 = 1 << 1;
}
