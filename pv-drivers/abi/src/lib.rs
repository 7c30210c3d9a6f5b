//! The guest-visible contract: Xen's public ABI and the address vocabulary.
//!
//! A leaf crate: pure definitions, no behaviour beyond checked arithmetic. Layouts are asserted
//! at compile time against Xen's public headers (`xen/include/public`), named where they apply.
#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod errno;
pub mod ids;

pub use addr::{Gfn, Gpa, Gva, Hpa, Mfn, PAGE_SHIFT, PAGE_SIZE};
pub use errno::Errno;
pub use ids::{DomId, EvtchnPort, GrantRef, VcpuId, Virq};
