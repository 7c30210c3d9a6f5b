//! Why a domain cannot be built: one line each, with the cause and the remedy.

use abi::Errno;
use core::fmt;
use system::{ArchiveError, KernelError};

/// Why a domain cannot be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// A file is damaged or absent.
    Archive(ArchiveError),
    /// The kernel is no good.
    Kernel(KernelError),
    /// Kernel, initrd and start info do not fit into the domain's memory.
    TooSmall {
        /// The end of what has to fit, a guest-physical address.
        needed: u64,
        /// The end of the memory below 4 GiB.
        memory: u64,
    },
    /// The kernel wants to lie where no domain has memory.
    Placement {
        /// The end of its last segment.
        end: u64,
        /// The end of the memory below 4 GiB that a domain can have at most.
        limit: u64,
    },
    /// The kernel ends so high that the start info would lie where PVH kernels do not see it.
    StartInfo {
        /// The end of the start info.
        end: u64,
        /// Where it has to end.
        limit: u64,
    },
    /// Guest memory that must be there is not.
    Write {
        /// The address.
        gpa: u64,
        /// What the memory said.
        errno: Errno,
    },
}

impl From<ArchiveError> for BuildError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

impl From<KernelError> for BuildError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Archive(ref error) => error.fmt(f),
            Self::Kernel(ref error) => error.fmt(f),
            Self::TooSmall { needed, memory } => write!(
                f,
                "not enough memory: kernel, initrd and start info end at {needed:#x}, memory \
                 below 4 GiB ends at {memory:#x}; give the domain more than {} MiB or smaller \
                 images",
                needed.div_ceil(1 << 20)
            ),
            Self::Placement { end, limit } => write!(
                f,
                "kernel wants memory up to {end:#x}, a domain has some only up to {limit:#x}: \
                 link it to a lower physical address"
            ),
            Self::StartInfo { end, limit } => write!(
                f,
                "kernel leaves no room for the start info: it would end at {end:#x}, the limit \
                 is {limit:#x}; link the kernel to a lower physical address"
            ),
            Self::Write { gpa, errno } => {
                write!(f, "guest memory at {gpa:#x} cannot be written: {errno:?}")
            }
        }
    }
}

impl core::error::Error for BuildError {}
