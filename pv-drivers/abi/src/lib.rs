//! The guest-visible contract: Xen's public ABI and the address vocabulary.
//!
//! A leaf crate: pure definitions, no behaviour beyond checked arithmetic. Layouts are asserted
//! at compile time against Xen's public headers (`xen/include/public`), named where they apply.
//! A struct named `Compat…` is the layout of a 32-bit caller where it differs.
#![no_std]
#![forbid(unsafe_code)]

mod layout;

pub mod addr;
pub mod blkif;
pub mod console;
pub mod cpuid;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod grant_table;
pub mod hvm;
pub mod hypercall;
pub mod ids;
pub mod memory;
pub mod netif;
pub mod ring;
pub mod sched;
pub mod shared_info;
pub mod start_info;
pub mod vcpu;
pub mod vm_assist;
pub mod xen_version;
pub mod xenbus;
pub mod xs_wire;

pub use addr::{Gfn, Gpa, Gva, Hpa, Mfn, PAGE_SHIFT, PAGE_SIZE};
pub use errno::Errno;
pub use ids::{DomId, EvtchnPort, GrantRef, VcpuId, Virq};
