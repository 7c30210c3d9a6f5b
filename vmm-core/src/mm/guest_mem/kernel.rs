//! The straight way through the page tables of a 64-bit kernel: hypercall arguments are there.
//!
//! It only follows what is in perfect order: four levels, everything present, accessed and, for a
//! write, writable and dirty. Whatever else it finds it leaves to [`Linear`](super::Linear), which
//! sets flags and names faults; so it may refuse too much but never grant what the CPU would not.

use core::sync::atomic::Ordering;

use abi::{Gpa, Gva};

use super::GuestMemory;
use super::linear::{
    ACCESSED, Access, CR4_LA57, CR4_PKE, CR4_SMAP, CR4_SMEP, DIRTY, EFER_NXE, FRAME, LARGE, NX,
    PRESENT, USER, WRITABLE,
};

/// How a 64-bit kernel translates linear addresses.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    root: u64,
    /// NX, where it is reserved.
    reserved: u64,
    /// USER, where SMEP may keep the kernel from executing a user page.
    no_code: u64,
    /// USER, where SMAP or a protection key may keep the kernel from a user page.
    guarded: u64,
}

impl Kernel {
    /// What these registers say, in 64-bit mode at privilege level 0; `None` for five levels.
    #[inline(always)]
    #[must_use]
    pub const fn new(cr3: u64, cr4: u64, efer: u64) -> Option<Self> {
        if cr4 & CR4_LA57 != 0 {
            return None;
        }
        Some(Self {
            root: cr3,
            reserved: if efer & EFER_NXE == 0 { NX } else { 0 },
            no_code: if cr4 & CR4_SMEP == 0 { 0 } else { USER },
            guarded: if cr4 & (CR4_SMAP | CR4_PKE) == 0 {
                0
            } else {
                USER
            },
        })
    }

    /// Translates a linear address for an access; `None` when there is anything to it.
    #[inline(always)]
    #[must_use]
    pub fn translate(self, memory: &GuestMemory<'_>, at: Gva, access: Access) -> Option<Gpa> {
        let at = at.raw();
        if ((at << 16).cast_signed() >> 16).cast_unsigned() != at {
            return None;
        }
        let mut wanted = PRESENT | ACCESSED;
        let mut refused = self.reserved;
        if access.writes() {
            wanted |= WRITABLE;
        }
        if access.contains(Access::EXECUTE) {
            refused |= NX;
        }
        let top = entry(memory, self.root, at >> 39, wanted, refused)
            .filter(|entry| entry & LARGE == 0)?;
        let upper = entry(memory, top, at >> 30, wanted, refused)?;
        if upper & LARGE != 0 {
            return self.leaf(upper, at, 30, access);
        }
        let lower = entry(memory, upper, at >> 21, wanted, refused)?;
        if lower & LARGE != 0 {
            return self.leaf(lower, at, 21, access);
        }
        let last = entry(memory, lower, at >> 12, wanted, refused)?;
        self.leaf(last, at, 12, access)
    }

    /// The address that an entry gives `at`, if it is a good one for a page of this size.
    #[inline(always)]
    fn leaf(self, entry: u64, at: u64, shift: u32, access: Access) -> Option<Gpa> {
        let offset = (1_u64 << shift).wrapping_sub(1);
        // The lowest address bit of a large page's entry is the PAT bit, the others are reserved.
        let mut refused = offset & FRAME & !0x1000 | self.guarded;
        if access.contains(Access::EXECUTE) {
            refused |= self.no_code;
        }
        let missing = if access.writes() { DIRTY & !entry } else { 0 };
        if entry & refused | missing != 0 {
            return None;
        }
        Some(Gpa::new(entry & FRAME & !offset | at & offset))
    }
}

/// The entry that covers an address, by its index in the table that the entry above names, if it
/// has all of `wanted` and nothing of `refused`.
#[inline(always)]
fn entry(
    memory: &GuestMemory<'_>,
    above: u64,
    index: u64,
    wanted: u64,
    refused: u64,
) -> Option<u64> {
    let gpa = Gpa::new(above & FRAME | index << 3 & 0xff8);
    let page = memory.page(gpa.gfn())?;
    let entry = page.word64(gpa.page_offset()).load(Ordering::Acquire);
    (entry & (wanted | refused) == wanted).then_some(entry)
}
