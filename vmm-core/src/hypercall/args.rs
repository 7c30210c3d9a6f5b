//! What a hypercall works on: the running vCPU, and its memory by linear address.

use abi::{DomId, Errno, Gpa, Gva, PAGE_SIZE};
use heapless::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::domain::{Domain, list};
use crate::mm::directmap::Window;
use crate::mm::guest_mem::{Access, GuestMemory, Linear};
use crate::mm::page::PageRef;
use crate::vcpu::Running;

use alloc::sync::Arc;

/// A hypercall being carried out.
#[derive(Debug)]
pub struct Ctx<'a, 'v> {
    /// The calling vCPU.
    pub v: &'a mut Running<'v>,
    /// True when it called from 64-bit code.
    pub wide: bool,
}

/// Guest memory that stays where it is: one page or two, and where in the first it starts.
#[derive(Debug)]
pub struct Pinned {
    /// The pages.
    pub pages: Vec<PageRef, 2>,
    /// Offset in the first page.
    pub offset: usize,
}

impl<'a, 'v> Ctx<'a, 'v> {
    /// A call by the vCPU `v`.
    #[inline(always)]
    pub fn new(v: &'a mut Running<'v>, wide: bool) -> Self {
        v.cpu.pages.look_anew();
        Self { v, wide }
    }

    /// The caller's domain.
    #[must_use]
    pub const fn domain(&self) -> &'v Arc<Domain> {
        self.v.domain
    }

    /// Copies a value in from the address `at`.
    ///
    /// # Errors
    /// [`Errno::Efault`].
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, at: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// What all copies in have in common, kept apart so that there is one of it.
    #[inline(never)]
    fn read_bytes(&self, at: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let p2m = self.v.domain.p2m.read();
        self.read_bytes_in(&GuestMemory::new(&p2m, &self.v.cpu.pages), at, bytes)
    }

    #[inline(always)]
    fn read_bytes_in(
        &self,
        memory: &GuestMemory<'_>,
        at: u64,
        bytes: &mut [u8],
    ) -> Result<(), Errno> {
        let at = Gva::new(at);
        if let Some((page, offset)) = self.straight(memory, at, bytes.len(), Access::READ) {
            page.read(offset, bytes);
            return Ok(());
        }
        self.read_otherwise(memory, at, bytes)
    }

    #[inline(never)]
    fn read_otherwise(
        &self,
        memory: &GuestMemory<'_>,
        at: Gva,
        bytes: &mut [u8],
    ) -> Result<(), Errno> {
        Ok(memory.read_linear(&self.linear(), at, bytes, Access::READ)?)
    }

    /// Copies a value in that 32-bit callers lay out otherwise.
    ///
    /// # Errors
    /// [`Errno::Efault`].
    pub fn read_either<Wide, Compat>(&self, at: u64) -> Result<Wide, Errno>
    where
        Wide: FromBytes + IntoBytes + From<Compat>,
        Compat: FromBytes + IntoBytes,
    {
        if self.wide {
            self.read(at)
        } else {
            self.read::<Compat>(at).map(Wide::from)
        }
    }

    /// Copies element `index` of an array of `Wide` in; 32-bit callers have one of `Compat`.
    ///
    /// # Errors
    /// [`Errno::Efault`].
    pub fn read_element<Wide, Compat>(&self, array: u64, index: u64) -> Result<Wide, Errno>
    where
        Wide: FromBytes + IntoBytes + From<Compat>,
        Compat: FromBytes + IntoBytes,
    {
        let p2m = self.v.domain.p2m.read();
        let memory = GuestMemory::new(&p2m, &self.v.cpu.pages);
        self.read_element_in::<Wide, Compat>(&memory, array, index)
    }

    /// The same, with the domain's memory open already.
    ///
    /// # Errors
    /// [`Errno::Efault`].
    pub fn read_element_in<Wide, Compat>(
        &self,
        memory: &GuestMemory<'_>,
        array: u64,
        index: u64,
    ) -> Result<Wide, Errno>
    where
        Wide: FromBytes + IntoBytes + From<Compat>,
        Compat: FromBytes + IntoBytes,
    {
        if self.wide {
            self.element_in(memory, array, index)
        } else {
            self.element_in::<Compat>(memory, array, index)
                .map(Wide::from)
        }
    }

    #[inline]
    fn element_in<T: FromBytes + IntoBytes>(
        &self,
        memory: &GuestMemory<'_>,
        array: u64,
        index: u64,
    ) -> Result<T, Errno> {
        let offset = index.checked_mul(size_of::<T>() as u64);
        let at = offset.and_then(|offset| array.checked_add(offset));
        let mut value = T::new_zeroed();
        self.read_bytes_in(memory, at.ok_or(Errno::Efault)?, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a slice in.
    ///
    /// # Errors
    /// [`Errno::Efault`].
    pub fn read_slice<T>(&self, at: u64, values: &mut [T]) -> Result<(), Errno>
    where
        T: FromBytes + IntoBytes,
    {
        self.read_bytes(at, values.as_mut_bytes())
    }

    /// Copies a value out to the address `at`.
    ///
    /// # Errors
    /// [`Errno::Efault`].
    pub fn write<T>(&self, at: u64, value: &T) -> Result<(), Errno>
    where
        T: IntoBytes + Immutable + ?Sized,
    {
        self.write_bytes(at, value.as_bytes())
    }

    #[inline(never)]
    fn write_bytes(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let p2m = self.v.domain.p2m.read();
        let memory = GuestMemory::new(&p2m, &self.v.cpu.pages);
        let at = Gva::new(at);
        if let Some((page, offset)) = self.straight(&memory, at, bytes.len(), Access::WRITE) {
            page.write(offset, bytes);
            return Ok(());
        }
        self.write_otherwise(&memory, at, bytes)
    }

    #[inline(never)]
    fn write_otherwise(
        &self,
        memory: &GuestMemory<'_>,
        at: Gva,
        bytes: &[u8],
    ) -> Result<(), Errno> {
        Ok(memory.write_linear(&self.linear(), at, bytes)?)
    }

    /// Copies one field out of a structure that starts at `at`.
    ///
    /// # Errors
    /// [`Errno::Efault`].
    pub fn write_field<T>(&self, at: u64, offset: usize, value: &T) -> Result<(), Errno>
    where
        T: IntoBytes + Immutable,
    {
        let field = at.checked_add(offset as u64).ok_or(Errno::Efault)?;
        self.write(field, value)
    }

    /// Pins the memory behind `len` bytes at a linear address, to be written later.
    ///
    /// # Errors
    /// [`Errno::Efault`] when it is not all writable memory.
    pub fn pin_linear(&self, at: u64, len: usize) -> Result<Pinned, Errno> {
        let linear = self.linear();
        self.pin(at, len, |memory, at| {
            Ok(linear.translate(memory, Gva::new(at), Access::WRITE)?)
        })
    }

    /// Pins the memory behind `len` bytes at a guest-physical address.
    ///
    /// # Errors
    /// As [`Ctx::pin_linear`].
    pub fn pin_physical(&self, at: u64, len: usize) -> Result<Pinned, Errno> {
        self.pin(at, len, |_, at| Ok(Gpa::new(at)))
    }

    fn pin(
        &self,
        at: u64,
        len: usize,
        translate: impl Fn(&GuestMemory<'_>, u64) -> Result<Gpa, Errno>,
    ) -> Result<Pinned, Errno> {
        let p2m = self.v.domain.p2m.read();
        let memory = GuestMemory::new(&p2m, &self.v.cpu.pages);
        let offset = Gva::new(at).page_offset();
        let mut pages = Vec::new();
        let mut covered = 0;
        while covered < offset.saturating_add(len) {
            let address = at.saturating_sub(offset as u64).checked_add(covered as u64);
            let gpa = translate(&memory, address.ok_or(Errno::Efault)?)?;
            let page = p2m.pin(gpa.gfn()).map_err(|_| Errno::Efault)?;
            pages.push(page).map_err(|_| Errno::Einval)?;
            covered = covered.saturating_add(PAGE_SIZE);
        }
        Ok(Pinned { pages, offset })
    }

    /// Checks that a domain named in an argument is the caller's own.
    ///
    /// # Errors
    /// [`Errno::Eperm`] for another domain, [`Errno::Esrch`] for none.
    pub fn check_own(&self, dom: u16) -> Result<(), Errno> {
        let dom = DomId(dom);
        if dom == DomId::SELF || dom == self.v.domain.id {
            return Ok(());
        }
        Err(if list::by_id(dom).is_some() {
            Errno::Eperm
        } else {
            Errno::Esrch
        })
    }

    fn linear(&self) -> Linear {
        self.v.supervisor_linear()
    }

    /// The bytes that a 64-bit kernel has at a linear address, when there is nothing to it; else
    /// [`Self::linear`] tells.
    #[inline(always)]
    fn straight<'m>(
        &self,
        memory: &GuestMemory<'m>,
        at: Gva,
        len: usize,
        access: Access,
    ) -> Option<(Window<'m>, usize)> {
        if self.wide {
            memory.kernel_window(at, len, access, || self.v.kernel())
        } else {
            None
        }
    }
}
