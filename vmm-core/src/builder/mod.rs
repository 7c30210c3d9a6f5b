//! The domain builder: from files in the boot archive to a guest that can be entered.
//!
//! ```text
//! DomainImage::open   archive entries, checked against their checksums; kernel recognised
//!   .scratch_size     how large a buffer unpacking takes
//!   .unpack           compressed kernel -> ELF file in that buffer -> Kernel
//!   .load             Kernel, initrd, start info and ACPI tables -> guest memory -> Entry
//! ```
//!
//! Called by `domain::lifecycle` when a domain is created and whenever it restarts. Nothing here
//! knows page tables or CPUs: guest memory is behind [`GuestWriter`], and what the memory looks
//! like is in [`memmap`].

pub mod acpi;
mod error;
pub mod memmap;
pub mod pvh;

pub use self::error::BuildError;

use self::memmap::{ACPI_GFN, MemoryMap};
use abi::{Errno, Gpa};
use system::{Archive, DomainConfig, Image, Kernel};

/// The memory of a domain under construction. All of it reads as zero at first: frames are
/// scrubbed before a domain gets them.
pub trait GuestWriter {
    /// Copies `bytes` to guest memory.
    ///
    /// # Errors
    /// An [`Errno`] when the range is not all RAM of the domain.
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno>;
}

/// Where a built domain's first vCPU starts, in 32-bit protected mode without paging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The kernel's PVH entry.
    pub eip: u32,
    /// The address of the start info.
    pub ebx: u32,
    /// Bytes copied into the guest, for the statistics.
    pub copied: u64,
}

/// The files of one domain, found intact.
#[derive(Clone, Copy, Debug)]
pub struct DomainImage<'a> {
    config: &'a DomainConfig,
    kernel: Image<'a>,
    initrd: Option<&'a [u8]>,
}

impl<'a> DomainImage<'a> {
    /// Looks up a domain's files, checks them against their checksums and recognises the kernel.
    /// Calls `give_way` between steps.
    ///
    /// # Errors
    /// [`BuildError::Archive`] and [`BuildError::Kernel`].
    pub fn open(
        archive: &Archive<'a>,
        config: &'a DomainConfig,
        give_way: &mut dyn FnMut(),
    ) -> Result<Self, BuildError> {
        let kernel = Image::identify(archive.file(config.kernel, give_way)?)?;
        let initrd = config.initrd.map(|id| archive.file(id, give_way));
        let initrd = initrd.transpose()?;
        Ok(Self {
            config,
            kernel,
            initrd,
        })
    }

    /// The size of the buffer that [`DomainImage::unpack`] wants; zero when the kernel is not
    /// compressed.
    ///
    /// # Errors
    /// [`BuildError::Kernel`] when the image cannot be right.
    pub fn scratch_size(&self) -> Result<usize, BuildError> {
        Ok(self.kernel.scratch_size()?)
    }

    /// Unpacks and reads the kernel. `heap` is the most that may be taken from the heap at once
    /// besides; XZ and zstd want a window of that, LZ4 and gzip do not. Calls `give_way` between
    /// steps.
    ///
    /// # Errors
    /// [`BuildError::Kernel`].
    pub fn unpack<'s>(
        &self,
        scratch: &'s mut [u8],
        heap: usize,
        give_way: &mut dyn FnMut(),
    ) -> Result<Kernel<'s>, BuildError>
    where
        'a: 's,
    {
        let elf = self.kernel.unpack(scratch, heap, give_way)?;
        Ok(Kernel::parse(elf)?)
    }

    /// Puts everything into the memory of the guest, which has all that [`MemoryMap`] lists.
    ///
    /// # Errors
    /// [`BuildError`] when it does not fit, before anything is written.
    pub fn load(
        &self,
        kernel: &Kernel<'_>,
        guest: &mut dyn GuestWriter,
    ) -> Result<Entry, BuildError> {
        let map = MemoryMap::new(self.config.memory_pages);
        let initrd_size = self.initrd.map(|initrd| initrd.len() as u64);
        let placement = pvh::Placement::plan(&map, kernel, initrd_size, &self.config.cmdline)?;

        let mut guest = Counted { guest, copied: 0 };
        for segment in kernel.segments() {
            guest.write(segment.gpa, segment.bytes)?;
        }
        if let (Some(initrd), Some(gpa)) = (self.initrd, placement.initrd()) {
            guest.write(gpa, initrd)?;
        }
        let acpi = ACPI_GFN.gpa().raw();
        let start_info = placement.start_info(&map, &self.config.cmdline, acpi);
        guest.write(placement.start_info_gpa(), &start_info)?;
        guest.write(acpi, &acpi::tables(self.config.vcpus, acpi))?;
        Ok(Entry {
            eip: kernel.entry(),
            ebx: placement.ebx(),
            copied: guest.copied,
        })
    }
}

struct Counted<'g> {
    guest: &'g mut dyn GuestWriter,
    copied: u64,
}

impl Counted<'_> {
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), BuildError> {
        self.copied = self.copied.saturating_add(bytes.len() as u64);
        let result = self.guest.write(Gpa::new(gpa), bytes);
        result.map_err(|errno| BuildError::Write { gpa, errno })
    }
}

#[cfg(test)]
mod tests;
