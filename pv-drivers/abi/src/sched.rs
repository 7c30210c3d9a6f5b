//! Commands and arguments of `HYPERVISOR_sched_op` (`public/sched.h`).

use crate::layout::guest_structs;

/// `SCHEDOP_yield`.
pub const YIELD: u64 = 0;
/// `SCHEDOP_block`.
pub const BLOCK: u64 = 1;
/// `SCHEDOP_shutdown`.
pub const SHUTDOWN: u64 = 2;
/// `SCHEDOP_poll`.
pub const POLL: u64 = 3;
/// `SCHEDOP_remote_shutdown`: the control domain only.
pub const REMOTE_SHUTDOWN: u64 = 4;
/// `SCHEDOP_shutdown_code`.
pub const SHUTDOWN_CODE: u64 = 5;
/// `SCHEDOP_watchdog`.
pub const WATCHDOG: u64 = 6;
/// `SCHEDOP_pin_override`: the hardware domain only.
pub const PIN_OVERRIDE: u64 = 7;

/// Ports one [`POLL`] may name.
pub const POLL_MAX_PORTS: u32 = 128;
/// Watchdog timers of a domain.
pub const NR_WATCHDOGS: usize = 2;

/// Reasons of a shutdown (`SHUTDOWN_*`).
pub mod reason {
    /// The domain ended of its own will.
    pub const POWEROFF: u8 = 0;
    /// The domain wants to start again.
    pub const REBOOT: u8 = 1;
    /// The domain is ready to be saved.
    pub const SUSPEND: u8 = 2;
    /// The domain failed.
    pub const CRASH: u8 = 3;
    /// The domain's watchdog expired.
    pub const WATCHDOG: u8 = 4;
    /// The domain wants to start a new kernel in its present memory.
    pub const SOFT_RESET: u8 = 5;
}

guest_structs! {
    /// Argument of [`SHUTDOWN`] and [`SHUTDOWN_CODE`].
    pub struct Shutdown: 4 {
        /// One of [`reason`]; only the low byte counts.
        pub reason: u32 = 0,
    }

    /// Argument of [`POLL`].
    pub struct Poll: 24 {
        /// Linear address of the list of ports.
        pub ports: u64 = 0,
        /// Entries in the list.
        pub nr_ports: u32 = 8,
        pad: u32 = 12,
        /// System time at which to give up, 0 for never.
        pub timeout: u64 = 16,
    }

    /// [`Poll`] of a 32-bit caller.
    pub struct CompatPoll: 16 {
        /// Linear address of the list of ports.
        pub ports: u32 = 0,
        /// Entries in the list.
        pub nr_ports: u32 = 4,
        /// System time at which to give up, 0 for never.
        pub timeout: u64 = 8,
    }

    /// Argument of [`REMOTE_SHUTDOWN`].
    pub struct RemoteShutdown: 8 {
        /// The domain to end.
        pub domid: u16 = 0,
        pad: u16 = 2,
        /// One of [`reason`].
        pub reason: u32 = 4,
    }

    /// Argument of [`WATCHDOG`].
    pub struct Watchdog: 8 {
        /// The timer, 0 for a new one.
        pub id: u32 = 0,
        /// Seconds until it expires, 0 to free it.
        pub timeout: u32 = 4,
    }
}

impl From<CompatPoll> for Poll {
    fn from(compat: CompatPoll) -> Self {
        Self {
            ports: compat.ports.into(),
            nr_ports: compat.nr_ports,
            pad: 0,
            timeout: compat.timeout,
        }
    }
}
