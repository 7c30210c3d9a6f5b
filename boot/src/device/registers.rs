//! A device's registers: a range of ports, or of memory.
#![expect(unsafe_code, reason = "ports and device memory")]

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

use devices::Registers;
use devices::pci::Bar;

use crate::memory::{Memory, io};
use crate::port::Port;

/// A block of registers.
#[derive(Debug)]
pub(super) enum Window {
    /// I/O ports.
    Ports { first: u16, count: u16 },
    /// Memory that is the device's.
    Memory(Registry),
}

/// A range of device memory.
#[derive(Debug)]
pub(super) struct Registry {
    /// Invariant: `size` bytes from here on are mapped, uncached, for ever, and are no RAM.
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: device memory is reached by volatile accesses only, from any CPU.
unsafe impl Send for Registry {}
// SAFETY: as for `Send`; what several CPUs may do at once is up to the driver.
unsafe impl Sync for Registry {}

impl Window {
    /// A range of ports. Those that configuration space or a standard names for a device that a
    /// driver has.
    pub(super) const fn ports(first: u16, count: u16) -> Self {
        Self::Ports { first, count }
    }

    /// What a base address register names.
    pub(super) fn of_bar(bar: Bar, memory: &Memory) -> Option<Self> {
        match bar {
            Bar::Ports { first, count } => Some(Self::ports(first, count)),
            Bar::Memory { start, size } => Some(Self::Memory(Registry {
                base: io::device(memory, start, size)?,
                size: usize::try_from(size).ok()?,
            })),
        }
    }

    /// A part of it, from `at` on.
    pub(super) fn part(&self, at: usize, size: usize) -> Option<Self> {
        let end = at.checked_add(size)?;
        match self {
            Self::Ports { first, count } => {
                let at = u16::try_from(at).ok()?;
                (end <= usize::from(*count)).then(|| {
                    Some(Self::ports(
                        first.checked_add(at)?,
                        u16::try_from(size).ok()?,
                    ))
                })?
            }
            Self::Memory(Registry { base, size: all }) => (end <= *all).then(|| {
                // SAFETY: the part lies inside the whole, as was just checked.
                let base = unsafe { base.add(at) };
                Self::Memory(Registry { base, size })
            }),
        }
    }

    /// The port of a register with so many bytes.
    fn port(first: u16, count: u16, at: usize, size: usize) -> Option<Port> {
        if at.checked_add(size)? > usize::from(count) {
            return None;
        }
        let number = first.checked_add(u16::try_from(at).ok()?)?;
        // SAFETY: the port is the device's whose driver made this window; a driver lets its device
        // reach memory that is for it alone.
        Some(unsafe { Port::new(number) })
    }
}

impl Registry {
    fn place<T>(&self, at: usize) -> Option<NonNull<T>> {
        let fits = at.is_multiple_of(size_of::<T>())
            && at
                .checked_add(size_of::<T>())
                .is_some_and(|end| end <= self.size);
        // SAFETY: the register lies inside the range, as was just checked.
        fits.then(|| unsafe { self.base.add(at) }.cast())
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $width:ty) => {
        fn $read(&self, at: usize) -> $width {
            match self {
                Self::Ports { first, count } => {
                    let port = Self::port(*first, *count, at, size_of::<$width>());
                    port.map_or(!0, Port::$read)
                }
                Self::Memory(registry) => registry.place(at).map_or(!0, |place| {
                    // SAFETY: a register of the device's, aligned, by the invariant on `base`.
                    let value = unsafe { place.read_volatile() };
                    // What the device wrote to memory before is read after this.
                    compiler_fence(Ordering::SeqCst);
                    value
                }),
            }
        }

        fn $write(&self, at: usize, value: $width) {
            // What was written to memory before is there when the device looks: the processor keeps
            // the order of stores.
            compiler_fence(Ordering::SeqCst);
            match self {
                Self::Ports { first, count } => {
                    let port = Self::port(*first, *count, at, size_of::<$width>());
                    if let Some(port) = port {
                        port.$write(value);
                    }
                }
                Self::Memory(registry) => {
                    if let Some(place) = registry.place(at) {
                        // SAFETY: as above; the driver answers for what the device does then.
                        unsafe { place.write_volatile(value) };
                    }
                }
            }
        }
    };
}

impl Registers for Window {
    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
