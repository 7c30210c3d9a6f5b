//! How the two ends of a device come together and part (`public/io/xenbus.h`).
//!
//! Each end has a directory in the xenstore and says its state there. What follows from what the
//! other end says are pure functions, [`back`] and [`front`]. [`FrontEnd`] does what [`front`] says,
//! for any kind of device, its [`Driver`].

pub mod back;
mod device;
pub mod front;
mod front_end;

pub(crate) use device::end;
pub use device::{Bus, Device, Error};
pub use front_end::{Driver, FrontEnd};
