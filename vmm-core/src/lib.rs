//! The hypervisor core: domains, vCPUs, exits, hypercalls, memory and scheduling.
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "testing"))]
extern crate std;

pub mod attention;
pub mod backend;
pub mod bits;
pub mod boot_info;
pub mod builder;
pub mod console;
pub mod domain;
pub mod emulate;
pub mod evtchn;
pub mod exit;
pub mod fault;
pub mod grant;
pub mod hypercall;
pub mod intr;
pub mod leftovers;
pub mod machine;
pub mod mm;
pub mod network;
pub mod percpu;
pub mod platform;
pub mod policy;
pub mod sched;
pub mod start;
pub mod stats;
pub mod storage;
pub mod store;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod vcpu;
mod word;
