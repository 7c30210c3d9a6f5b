//! The PVH start info and where the parts of a guest go.
//!
//! Xen, `xen/include/public/arch-x86/hvm/start_info.h`. Behind the kernel comes the start info
//! with all it points to, then the initrd on a page boundary. In this order the start info stays
//! below 1 GiB even with a huge initrd: Linux reads it through a page table of that reach.
//!
//! ```text
//! start_info (56)  module (32, with an initrd)  memory map (24 each)  command line, NUL
//! ```

use super::BuildError;
use super::memmap::{HOLE_START, MemoryMap};
use alloc::vec::Vec;
use system::Kernel;

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const HEADER_SIZE: u64 = 56;
const MODULE_SIZE: u64 = 32;
const RANGE_SIZE: u64 = 24;
const PAGE: u64 = 4096;
/// The start info with all it points to has to lie below this.
const REACH: u64 = 1 << 30;

/// Addresses for what the kernel does not place itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    start_info: u32,
    /// Address and size.
    initrd: Option<(u64, u64)>,
}

impl Placement {
    /// Finds a place for everything.
    ///
    /// # Errors
    /// [`BuildError::TooSmall`], [`BuildError::Placement`] and [`BuildError::StartInfo`].
    pub fn plan(
        map: &MemoryMap,
        kernel: &Kernel<'_>,
        initrd_size: Option<u64>,
        cmdline: &str,
    ) -> Result<Self, BuildError> {
        let end = kernel.end();
        if end > HOLE_START {
            let limit = HOLE_START;
            return Err(BuildError::Placement { end, limit });
        }
        // From here on all addresses are small, but for the initrd's size.
        let start = end.next_multiple_of(PAGE);
        let has_initrd = initrd_size.is_some();
        let size = cmdline_offset(map, has_initrd) + cmdline.len() as u64 + 1;
        let end = (start + size).next_multiple_of(PAGE);
        if end > REACH {
            return Err(BuildError::StartInfo { end, limit: REACH });
        }
        let needed = end.saturating_add(initrd_size.unwrap_or(0));
        let memory = map.low_end();
        if needed > memory {
            return Err(BuildError::TooSmall { needed, memory });
        }
        let start_info = u32::try_from(start);
        let start_info = start_info.map_err(|_| BuildError::StartInfo { end, limit: REACH })?;
        let initrd = initrd_size.map(|size| (end, size));
        Ok(Self { start_info, initrd })
    }

    /// The address of the start info.
    #[must_use]
    pub fn start_info_gpa(&self) -> u64 {
        self.start_info.into()
    }

    /// The same, as the guest gets it in a register.
    #[must_use]
    pub const fn ebx(&self) -> u32 {
        self.start_info
    }

    /// The address of the initrd.
    #[must_use]
    pub fn initrd(&self) -> Option<u64> {
        self.initrd.map(|(gpa, _)| gpa)
    }

    /// The start info with the module list, the memory map and the command line behind it.
    #[must_use]
    pub fn start_info(&self, map: &MemoryMap, cmdline: &str, rsdp: u64) -> Vec<u8> {
        let base = self.start_info_gpa();
        let has_initrd = self.initrd.is_some();
        let ranges = map.ranges();
        let mut out = Bytes::default();
        out.u32(MAGIC).u32(VERSION);
        // Flags: neither privileged nor the initial domain.
        out.u32(0).u32(u32::from(has_initrd));
        out.u64(if has_initrd { base + HEADER_SIZE } else { 0 });
        out.u64(base + cmdline_offset(map, has_initrd));
        out.u64(rsdp);
        out.u64(base + memmap_offset(has_initrd));
        out.u32(u32::try_from(ranges.len()).unwrap_or(0)).u32(0);
        if let Some((gpa, size)) = self.initrd {
            // No command line of its own.
            out.u64(gpa).u64(size).u64(0).u64(0);
        }
        for range in &ranges {
            out.u64(range.start)
                .u64(range.size)
                .u32(range.kind as u32)
                .u32(0);
        }
        out.0.extend_from_slice(cmdline.as_bytes());
        out.0.push(0);
        out.0
    }
}

const fn memmap_offset(has_initrd: bool) -> u64 {
    HEADER_SIZE + if has_initrd { MODULE_SIZE } else { 0 }
}

fn cmdline_offset(map: &MemoryMap, has_initrd: bool) -> u64 {
    memmap_offset(has_initrd) + map.ranges().len() as u64 * RANGE_SIZE
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }
}
