//! The hypervisor's access to guest memory: by guest-physical and by linear address.
//!
//! Everything is copied, once; no reference into guest memory exists. Addresses and page tables
//! are the guest's, so every step checks and every loop is bounded by the length asked for.
//!
//! ```text
//!  Gva --(Linear: the guest's page tables)--> Gpa --(P2m)--> bytes
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod kernel;
mod linear;

use abi::{Errno, Gfn, Gpa, Gva, PAGE_SIZE};

pub use self::kernel::Kernel;
pub use self::linear::{Access, Linear};
use super::directmap::Window;
use super::p2m::{P2m, PageCache, Pages};
use crate::fault::GuestFault;

/// Why an access by linear address did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessError {
    /// The guest's page tables or the address itself forbid it.
    Fault(GuestFault),
    /// The address is allowed, but its frame has no memory the access could go to: an emulated
    /// device, nothing at all, or a read-only page.
    NotMemory(Gpa),
}

impl From<AccessError> for Errno {
    /// A hypercall reports either as a bad address.
    fn from(_: AccessError) -> Self {
        Self::Efault
    }
}

/// A domain's memory, open for reading and writing. It borrows the p2m, so no page it touches
/// goes away meanwhile.
#[derive(Debug)]
pub struct GuestMemory<'a> {
    pages: Pages<'a>,
}

impl<'a> GuestMemory<'a> {
    /// Opens a domain's memory; `cache` remembers pages from one time to the next.
    #[inline(always)]
    #[must_use]
    pub fn new(p2m: &'a P2m, cache: &'a PageCache) -> Self {
        Self {
            pages: Pages::new(p2m, cache),
        }
    }

    /// Reads guest-physical memory.
    ///
    /// # Errors
    /// [`Errno::Efault`] when a byte of it is not backed; the bytes before it may have been read.
    pub fn read_gpa(&self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut at = gpa;
        for piece in Pieces::new(gpa.page_offset(), bytes) {
            let page = self.page(at.gfn()).ok_or(Errno::Efault)?;
            page.read(at.page_offset(), piece);
            at = next_page(at)?;
        }
        Ok(())
    }

    /// Writes guest-physical memory.
    ///
    /// # Errors
    /// [`Errno::Efault`] when a byte of it is not writable memory; the bytes before it may have
    /// been written.
    pub fn write_gpa(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        let mut at = gpa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(room(at.page_offset()).min(rest.len()));
            let page = self.writable_page(at.gfn()).ok_or(Errno::Efault)?;
            page.write(at.page_offset(), piece);
            at = next_page(at)?;
            rest = after;
        }
        Ok(())
    }

    /// Reads memory by linear address, with the rights of `access`.
    ///
    /// # Errors
    /// [`AccessError`] of the first page that fails. An access that touches two pages fails
    /// before it reads anything.
    #[inline]
    pub fn read_linear(
        &self,
        linear: &Linear,
        at: Gva,
        bytes: &mut [u8],
        access: Access,
    ) -> Result<(), AccessError> {
        if bytes.len() > room(at.page_offset()) || bytes.is_empty() {
            return self.read_pages(linear, at, bytes, access);
        }
        let (page, offset) = self.linear_page(linear, at, access)?;
        page.read(offset, bytes);
        Ok(())
    }

    /// Reads what may lie in several pages.
    #[inline(never)]
    fn read_pages(
        &self,
        linear: &Linear,
        at: Gva,
        bytes: &mut [u8],
        access: Access,
    ) -> Result<(), AccessError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let last = self.last_page(linear, at, bytes.len(), access)?;
        let mut at = at;
        let mut left = bytes.len();
        for piece in Pieces::new(at.page_offset(), bytes) {
            left = left.saturating_sub(piece.len());
            let (page, offset) = match last {
                Some(last) if left == 0 => last,
                _ => self.linear_page(linear, at, access)?,
            };
            page.read(offset, piece);
            at = linear.next_page(at);
        }
        Ok(())
    }

    /// Writes memory by linear address, with the rights of `linear`.
    ///
    /// # Errors
    /// [`AccessError`] of the first page that fails. An access that touches two pages fails
    /// before it writes anything.
    #[inline]
    pub fn write_linear(&self, linear: &Linear, at: Gva, bytes: &[u8]) -> Result<(), AccessError> {
        if bytes.len() > room(at.page_offset()) || bytes.is_empty() {
            return self.write_pages(linear, at, bytes);
        }
        let (page, offset) = self.linear_page(linear, at, Access::WRITE)?;
        page.write(offset, bytes);
        Ok(())
    }

    /// Writes what may lie in several pages.
    #[inline(never)]
    fn write_pages(&self, linear: &Linear, at: Gva, bytes: &[u8]) -> Result<(), AccessError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let last = self.last_page(linear, at, bytes.len(), Access::WRITE)?;
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(room(at.page_offset()).min(rest.len()));
            let (page, offset) = match last {
                Some(last) if after.is_empty() => last,
                _ => self.linear_page(linear, at, Access::WRITE)?,
            };
            page.write(offset, piece);
            at = linear.next_page(at);
            rest = after;
        }
        Ok(())
    }

    /// The bytes of the page a linear address is in, and the offset in it.
    #[inline]
    fn linear_page(
        &self,
        linear: &Linear,
        at: Gva,
        access: Access,
    ) -> Result<(Window<'a>, usize), AccessError> {
        let gpa = linear.translate(self, at, access)?;
        let page = self.frame(gpa.gfn(), access.writes());
        Ok((page.ok_or(AccessError::NotMemory(gpa))?, gpa.page_offset()))
    }

    /// The second page of an access that touches two. It is looked at first after the first one,
    /// so that the fault of the lower address comes first.
    fn last_page(
        &self,
        linear: &Linear,
        at: Gva,
        len: usize,
        access: Access,
    ) -> Result<Option<(Window<'a>, usize)>, AccessError> {
        if len > PAGE_SIZE {
            return Ok(None);
        }
        self.linear_page(linear, at, access)?;
        self.linear_page(linear, linear.next_page(at), access)
            .map(Some)
    }

    /// The bytes of a guest frame, be it the guest's own, shared or mapped by grant; `None` for a
    /// hole, and for a page that is to be written but may not.
    #[inline(always)]
    #[must_use]
    pub fn frame(&self, gfn: Gfn, writes: bool) -> Option<Window<'a>> {
        if writes {
            self.writable_page(gfn)
        } else {
            self.page(gfn)
        }
    }

    /// The bytes of a guest frame, if it has any.
    #[inline(always)]
    fn page(&self, gfn: Gfn) -> Option<Window<'a>> {
        self.pages.page(gfn)
    }

    /// The bytes of a guest frame that the guest may write.
    #[inline(always)]
    fn writable_page(&self, gfn: Gfn) -> Option<Window<'a>> {
        self.pages.writable_page(gfn)
    }
}

/// The bytes from an offset to the end of its page.
#[inline]
const fn room(offset: usize) -> usize {
    PAGE_SIZE.saturating_sub(offset)
}

/// The first address of the page after the one of `gpa`.
#[inline]
fn next_page(gpa: Gpa) -> Result<Gpa, Errno> {
    gpa.checked_add(room(gpa.page_offset()) as u64)
        .ok_or(Errno::Efault)
}

/// A buffer cut at the page borders of the address it goes with.
struct Pieces<'b> {
    rest: &'b mut [u8],
    first: usize,
}

impl<'b> Pieces<'b> {
    #[inline]
    fn new(offset: usize, bytes: &'b mut [u8]) -> Self {
        Self {
            rest: bytes,
            first: room(offset),
        }
    }
}

impl<'b> Iterator for Pieces<'b> {
    type Item = &'b mut [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b mut [u8]> {
        let rest = core::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let (piece, rest) = rest.split_at_mut(self.first.min(rest.len()));
        self.rest = rest;
        self.first = PAGE_SIZE;
        Some(piece)
    }
}

#[cfg(test)]
mod tests;
