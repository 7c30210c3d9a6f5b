//! The guest's own use of the hypervisor, in safe typed calls: event channels, grants,
//! parameters, scheduling, timers, the clock.
//!
//! Micro-guests and front ends stand on this. Whatever maps or unmaps memory is not here: such a
//! call takes memory away from under Rust and stays with [`crate::hypercall::vmcall`].

pub mod clock;
pub mod event_channel;
pub mod gnttab;
pub mod hvm;
pub mod page;
pub mod pending;
pub mod sched;
pub mod timer;
