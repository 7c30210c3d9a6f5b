//! What a packer and the hypervisor agree on: the system configuration, the boot archive that
//! carries it together with the guest images, and how a kernel image is taken apart.
//!
//! * [`config`]: the domains to build and the host's options, as plain data with its limits.
//! * [`archive`]: one file with the configuration and every guest image, each under a checksum.
//! * [`disk`]: a domain's disks.
//! * [`share`]: a domain's claim on CPU time.
//! * [`network`]: addresses and packet filters of network interfaces.
//! * [`kernel`]: bzImage and ELF, their compressions, and the PVH entry note.
//!
//! Used by `xtask` (writes) and `vmm-core` (reads), hence `no_std`. Every byte that is read is
//! taken for hostile: nothing here panics on a damaged or malicious file.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod archive;
pub mod config;
pub mod disk;
pub mod kernel;
pub mod network;
pub mod quotas;
pub mod share;
#[cfg(any(test, feature = "synthetic"))]
pub mod synthetic;

pub use archive::{Archive, ArchiveError, File, write_archive};
pub use config::{
    Config, ConfigError, DomainConfig, End, FileId, HostConfig, LogLevel, MemoryBacking, OnReboot,
};
pub use disk::{DiskConfig, DiskName, DiskPart, DiskSource};
pub use kernel::{Format, Image, Kernel, KernelError};
pub use quotas::{GrantLimits, QuotaError, Quotas};
pub use share::Share;

use crc::{CRC_32_ISO_HDLC, Crc, Table};

/// The checksum of the archive and of gzip; sixteen tables, for speed over tens of megabytes.
static CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// The checksum of many bytes; calls `give_way` between steps.
fn checksum(bytes: &[u8], give_way: &mut dyn FnMut()) -> u32 {
    const STEP: usize = 4096;
    let mut digest = CRC32.digest();
    for part in bytes.chunks(STEP) {
        digest.update(part);
        give_way();
    }
    digest.finalize()
}
