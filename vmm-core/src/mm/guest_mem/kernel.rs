//! The straight way through the page tables of a 64-bit kernel: hypercall arguments are there.
//!
//! It only follows what is in perfect order: four levels, everything present, accessed and, for a
//! write, writable and dirty. Whatever else it finds it leaves to [`Linear`](super::Linear), which
//! sets flags and names faults; so it may refuse too much but never grant what the CPU would not.

use abi::{Gpa, Gva, PAGE_SIZE};

use super::linear::{
    ACCESSED, Access, CR4_LA57, CR4_PKE, CR4_SMAP, CR4_SMEP, DIRTY, EFER_NXE, FRAME, LARGE, NX,
    PRESENT, USER, WRITABLE,
};
use super::{GuestMemory, room};
use crate::mm::directmap::Window;
use crate::mm::p2m::{Pages, Start, Trail};

/// The offset in a page.
const PAGE_MASK: u64 = PAGE_SIZE as u64 - 1;
/// What a page is accessed for, in its address.
const FETCH: u64 = 1;

/// How a 64-bit kernel translates linear addresses: these registers, in 64-bit mode at privilege
/// level 0.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// CR3.
    pub cr3: u64,
    /// CR4, at least what translation looks at.
    pub cr4: u64,
    /// IA32_EFER, likewise.
    pub efer: u64,
}

impl<'a> GuestMemory<'a> {
    /// The bytes of a small access by a 64-bit kernel, if it stays in one page and there is nothing
    /// to it; and the offset in the page. The registers are asked for when they matter.
    ///
    /// The processor, too, may go on using a translation until the guest invalidates it; so what
    /// was found since [`PageCache::look_anew`](crate::mm::p2m::PageCache::look_anew) still holds.
    #[inline(always)]
    pub fn kernel_window(
        &self,
        at: Gva,
        len: usize,
        access: Access,
        kernel: impl Fn() -> Kernel,
    ) -> Option<(Window<'a>, usize)> {
        let offset = at.page_offset();
        if len > room(offset) {
            return None;
        }
        let fetches = access.contains(Access::EXECUTE);
        let page = at.raw() & !PAGE_MASK | if fetches { FETCH } else { 0 };
        let start = || kernel().start(page);
        let window = match self.pages.along(page, access.writes(), start) {
            Some(window) => window,
            None => kernel().find(&self.pages, page, access)?,
        };
        Some((window, offset))
    }
}

impl Kernel {
    #[inline(always)]
    const fn start(self, page: u64) -> Start {
        Start {
            cr3: self.cr3,
            root: entry_address(self.cr3, page >> 39),
            registers: [self.cr4, self.efer],
        }
    }

    /// Finds the page of a linear one, and remembers the way.
    #[cold]
    #[inline(never)]
    fn find<'a>(self, pages: &Pages<'a>, page: u64, access: Access) -> Option<Window<'a>> {
        let trail = pages.set_out(page, self.start(page));
        self.follow(&trail, page, access)?;
        pages.along(page, access.writes(), || self.start(page))
    }

    /// Follows the entries to the page.
    #[inline(always)]
    fn follow(self, trail: &Trail<'_, '_>, page: u64, access: Access) -> Option<()> {
        let canonical = ((page << 16).cast_signed() >> 16).cast_unsigned() == page;
        if !canonical || self.cr4 & CR4_LA57 != 0 {
            return None;
        }
        let mut wanted = PRESENT | ACCESSED;
        let mut refused = if self.efer & EFER_NXE == 0 { NX } else { 0 };
        if access.writes() {
            wanted |= WRITABLE;
        }
        if access.contains(Access::EXECUTE) {
            refused |= NX;
        }
        let next = |number: usize, above: u64, shift: u32| {
            let entry = trail.entry(number, entry_address(above, page >> shift))?;
            (entry & (wanted | refused) == wanted).then_some(entry)
        };
        let top = next(0, self.cr3, 39).filter(|entry| entry & LARGE == 0)?;
        let upper = next(1, top, 30)?;
        let mut all = top & upper;
        if upper & LARGE != 0 {
            return self.arrive(trail, (2, 30), (upper, all), page, access);
        }
        let lower = next(2, upper, 21)?;
        all &= lower;
        if lower & LARGE != 0 {
            return self.arrive(trail, (3, 21), (lower, all), page, access);
        }
        let last = next(3, lower, 12)?;
        self.arrive(trail, (4, 12), (last, all & last), page, access)
    }

    /// Ends a way of so many entries, the last of which maps a page of this size; `all` has what all
    /// entries have.
    fn arrive(
        self,
        trail: &Trail<'_, '_>,
        (entries, shift): (usize, u32),
        (last, all): (u64, u64),
        page: u64,
        access: Access,
    ) -> Option<()> {
        let leaf = self.leaf(last, page, shift, access)?;
        // The kernel may write it with nothing more to it.
        let writable = all & WRITABLE != 0 && last & DIRTY != 0;
        trail.finish(entries, page, leaf.gfn(), writable);
        Some(())
    }

    /// The address that an entry gives `at`, if it is a good one for a page of this size.
    #[inline(always)]
    fn leaf(self, entry: u64, at: u64, shift: u32, access: Access) -> Option<Gpa> {
        let offset = (1_u64 << shift).wrapping_sub(1);
        // The lowest address bit of a large page's entry is the PAT bit, the others are reserved.
        let mut refused = offset & FRAME & !0x1000;
        // A protection key, SMAP or SMEP may keep the kernel from a user page.
        if self.cr4 & (CR4_SMAP | CR4_PKE) != 0
            || access.contains(Access::EXECUTE) && self.cr4 & CR4_SMEP != 0
        {
            refused |= USER;
        }
        let missing = if access.writes() { DIRTY & !entry } else { 0 };
        if entry & refused | missing != 0 {
            return None;
        }
        Some(Gpa::new(entry & FRAME & !offset | at & offset))
    }
}

/// The address of the entry `index` of the table that the entry above it, or CR3, names.
#[inline(always)]
const fn entry_address(above: u64, index: u64) -> Gpa {
    Gpa::new(above & FRAME | index << 3 & 0xff8)
}
