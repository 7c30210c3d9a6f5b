//! The guest's own paging: from a linear to a guest-physical address, as its CPU would do it.
//!
//! SDM 3A, chapter "Paging": "32-Bit Paging", "PAE Paging", "4-Level Paging and 5-Level Paging",
//! "Access Rights", "Page-Fault Exceptions", "Accessed and Dirty Flags".
//!
//! A walk reads each entry once, decides on what it read, and only then sets accessed and dirty
//! flags, by compare-and-exchange against what it read: when the guest changed an entry meanwhile
//! the walk starts over, a few times at most. A table outside the guest's memory reads as all
//! ones, like any address nobody answers.

use core::sync::atomic::Ordering;

use abi::{Gpa, Gva};
use bitflags::bitflags;

use super::{AccessError, GuestMemory};
use crate::fault::GuestFault;

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;

/// Bits 51:12, where a 64-bit entry has its frame.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Bits 2:1, 8:5 of a PAE page-directory-pointer entry, which are reserved.
const PDPTE_RESERVED: u64 = 0x1e6;

/// How often a walk starts over because the guest changed an entry under it.
const MAX_TRIES: usize = 8;
/// Levels of the deepest paging mode.
const MAX_LEVELS: usize = 5;

/// Page-fault error code bits (SDM 3A, "Page-Fault Exceptions").
const PF_PRESENT: u32 = 1 << 0;
const PF_WRITE: u32 = 1 << 1;
const PF_USER: u32 = 1 << 2;
const PF_RESERVED: u32 = 1 << 3;
const PF_FETCH: u32 = 1 << 4;

bitflags! {
    /// What an access does.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u8 {
        /// Reads data.
        const READ = 1;
        /// Writes data.
        const WRITE = 2;
        /// Fetches instructions.
        const EXECUTE = 4;
        /// Reads and writes data, like a read-modify-write instruction.
        const MODIFY = 3;
        /// An access at supervisor level whatever the privilege, as to a descriptor table.
        const IMPLICIT = 8;
    }
}

impl Access {
    /// True when memory changes.
    #[inline]
    #[must_use]
    pub const fn writes(self) -> bool {
        self.contains(Self::WRITE)
    }
}

/// How a vCPU translates linear addresses: its control registers and privilege.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    user: bool,
    /// Supervisor accesses to user pages are let through although CR4.SMAP is set.
    smap_off: bool,
    /// Physical address bits the guest knows of.
    address_bits: u32,
}

/// One paging mode: its levels and entries.
struct Mode {
    levels: u32,
    /// Linear-address bits each level takes, as a number and as a mask.
    index_bits: u32,
    index_mask: u64,
    wide: bool,
}

/// An entry used on the way, for setting flags later.
#[derive(Clone, Copy, Default)]
struct Used {
    gpa: u64,
    entry: u64,
}

/// What a walk found.
struct Found {
    gpa: Gpa,
    used: [Used; MAX_LEVELS],
    count: usize,
    /// Rights that all levels grant: `USER`, `WRITABLE`, and `NX` when any forbids execution.
    rights: u64,
}

impl Linear {
    /// How a vCPU with these registers translates at privilege level `cpl`.
    ///
    /// Hypercall arguments are read at level 0; SMAP, which guards against mistakes of the guest's
    /// kernel, is not applied unless [`Linear::with_smap`] asks for it.
    #[inline]
    #[must_use]
    pub const fn new(cr0: u64, cr3: u64, cr4: u64, efer: u64, cpl: u8) -> Self {
        Self {
            cr0,
            cr3,
            cr4,
            efer,
            user: cpl == 3,
            smap_off: true,
            address_bits: 52,
        }
    }

    /// The same with SMAP as the CPU would apply it; `ac` is RFLAGS.AC.
    #[must_use]
    pub const fn with_smap(mut self, ac: bool) -> Self {
        self.smap_off = ac;
        self
    }

    /// The same for a guest whose CPUID reports this many physical address bits: those above are
    /// reserved in its page tables.
    #[must_use]
    pub const fn with_address_bits(mut self, bits: u32) -> Self {
        self.address_bits = if bits < 52 { bits } else { 52 };
        self
    }

    /// True while the vCPU is in IA-32e mode, with 64-bit linear addresses.
    #[inline]
    const fn is_long(&self) -> bool {
        self.cr0 & CR0_PG != 0 && self.efer & EFER_LMA != 0
    }

    /// The first address of the page after the one of `at`; wraps as the CPU does.
    #[inline]
    pub(super) const fn next_page(&self, at: Gva) -> Gva {
        let next = (at.raw() | 0xfff).wrapping_add(1);
        Gva::new(if self.is_long() {
            next
        } else {
            next & 0xffff_ffff
        })
    }

    /// Translates a linear address for an access, setting accessed and dirty flags.
    ///
    /// # Errors
    /// The page fault or general protection the access would raise.
    pub fn translate(
        &self,
        memory: &GuestMemory<'_>,
        at: Gva,
        access: Access,
    ) -> Result<Gpa, AccessError> {
        if self.cr0 & CR0_PG == 0 {
            return Ok(Gpa::new(at.raw() & 0xffff_ffff));
        }
        let mode = self.mode();
        let at = if self.is_long() {
            canonical(at, &mode)?
        } else {
            Gva::new(at.raw() & 0xffff_ffff)
        };
        for _ in 0..MAX_TRIES {
            let found = self.walk(memory, &mode, at, access)?;
            self.check_rights(found.rights, at, access)?;
            if set_flags(memory, &found, access.writes(), mode.wide) {
                return Ok(found.gpa);
            }
        }
        // The guest keeps changing its tables under the walk: the access is as good as not there.
        Err(self.fault(at, access, 0))
    }

    #[inline]
    const fn mode(&self) -> Mode {
        if self.is_long() {
            let levels = if self.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
            Mode {
                levels,
                index_bits: 9,
                index_mask: 0x1ff,
                wide: true,
            }
        } else if self.cr4 & CR4_PAE != 0 {
            Mode {
                levels: 3,
                index_bits: 9,
                index_mask: 0x1ff,
                wide: true,
            }
        } else {
            Mode {
                levels: 2,
                index_bits: 10,
                index_mask: 0x3ff,
                wide: false,
            }
        }
    }

    /// Follows the entries from CR3 to the page.
    #[inline]
    fn walk(
        &self,
        memory: &GuestMemory<'_>,
        mode: &Mode,
        at: Gva,
        access: Access,
    ) -> Result<Found, AccessError> {
        let pae = mode.levels == 3;
        let mut found = Found {
            gpa: Gpa::new(0),
            used: [Used::default(); MAX_LEVELS],
            count: 0,
            rights: USER | WRITABLE,
        };
        let mut table = self.root(mode);
        let mut level = mode.levels;
        while level > 0 {
            level = level.saturating_sub(1);
            let shift = 12_u32.saturating_add(level.saturating_mul(mode.index_bits));
            let index = at.raw() >> shift & mode.index_mask;
            let gpa = table | index << if mode.wide { 3 } else { 2 };
            let entry = load(memory, gpa, mode.wide);
            if entry & PRESENT == 0 {
                return Err(self.fault(at, access, 0));
            }
            let top_of_pae = pae && level == 2;
            let large = level > 0 && entry & LARGE != 0 && self.large_allowed(mode, level);
            if entry & self.reserved(mode, level, large) != 0 {
                return Err(self.fault(at, access, PF_PRESENT | PF_RESERVED));
            }
            // A PAE directory-pointer entry has neither rights nor flags. (The CPU reads these
            // when CR3 is loaded; a guest that changes one must load CR3 again anyway.)
            if !top_of_pae {
                found.rights = found.rights & (entry | NX) | entry & NX;
                if let Some(used) = found.used.get_mut(found.count) {
                    *used = Used { gpa, entry };
                    found.count = found.count.saturating_add(1);
                }
            }
            if large || level == 0 {
                let offset = (1_u64 << shift).wrapping_sub(1);
                found.gpa = Gpa::new(frame(entry, mode.wide, large) & !offset | at.raw() & offset);
                return Ok(found);
            }
            table = entry & if mode.wide { FRAME } else { 0xffff_f000 };
        }
        Ok(found)
    }

    /// Where the first table starts.
    #[inline]
    const fn root(&self, mode: &Mode) -> u64 {
        match mode.levels {
            2 => self.cr3 & 0xffff_f000,
            3 => self.cr3 & 0xffff_ffe0,
            _ => self.cr3 & FRAME,
        }
    }

    /// True when bit 7 of an entry at this level means a large page.
    #[inline]
    const fn large_allowed(&self, mode: &Mode, level: u32) -> bool {
        match (mode.levels, level) {
            (2, _) => self.cr4 & CR4_PSE != 0,
            (_, 1) => true,
            (4 | 5, 2) => true,
            _ => false,
        }
    }

    /// The bits that must be clear in an entry.
    #[inline]
    const fn reserved(&self, mode: &Mode, level: u32, large: bool) -> u64 {
        if !mode.wide {
            // A 4 MiB page has address bits 39:32 in 20:13 (PSE-36), and bit 21 is reserved.
            return if large {
                self.high_bits() >> 32 << 13 & 0x1f_e000 | 1 << 21
            } else {
                0
            };
        }
        let mut bits = self.high_bits();
        if self.efer & EFER_NXE == 0 {
            bits |= NX;
        }
        if mode.levels == 3 {
            // PAE has no ignored bits above the address.
            bits |= 0x7ff0_0000_0000_0000;
            if level == 2 {
                return bits | NX | PDPTE_RESERVED;
            }
        }
        if large {
            // The low address bits of a large page, but for its PAT bit.
            bits |= if level == 2 { 0x3fff_e000 } else { 0x1f_e000 };
        } else if level > 2 {
            bits |= LARGE;
        }
        bits
    }

    /// Address bits below 52 that the guest's CPU does not have.
    #[inline]
    const fn high_bits(&self) -> u64 {
        FRAME & !(1_u64 << self.address_bits).wrapping_sub(1)
    }

    /// Compares what the tables grant with what the access needs (SDM 3A, "Determination of
    /// Access Rights").
    #[inline]
    fn check_rights(&self, rights: u64, at: Gva, access: Access) -> Result<(), AccessError> {
        let user_access = self.user && !access.contains(Access::IMPLICIT);
        let user_page = rights & USER != 0;
        let write = access.contains(Access::WRITE);
        let fetch = access.contains(Access::EXECUTE);
        let writable = rights & WRITABLE != 0 || (!user_access && self.cr0 & CR0_WP == 0);
        let denied = (user_access && !user_page)
            || (write && !writable)
            || (fetch && rights & NX != 0)
            || (!user_access && user_page && self.guards_user_page(access));
        if denied {
            Err(self.fault(at, access, PF_PRESENT))
        } else {
            Ok(())
        }
    }

    /// True when SMEP or SMAP keeps the supervisor off a user page.
    #[inline]
    const fn guards_user_page(&self, access: Access) -> bool {
        if access.contains(Access::EXECUTE) {
            return self.cr4 & CR4_SMEP != 0;
        }
        // RFLAGS.AC does not lift SMAP for implicit accesses made at level 3.
        let lifted = self.smap_off && !(access.contains(Access::IMPLICIT) && self.user);
        self.cr4 & CR4_SMAP != 0 && !lifted
    }

    /// The page fault for an access, with the error code the CPU would push.
    #[cold]
    fn fault(&self, at: Gva, access: Access, cause: u32) -> AccessError {
        let mut code = cause;
        if access.contains(Access::WRITE) {
            code |= PF_WRITE;
        }
        if self.user && !access.contains(Access::IMPLICIT) {
            code |= PF_USER;
        }
        // The fetch bit is reported only where NX or SMEP is in force.
        let nx = self.efer & EFER_NXE != 0 && self.cr4 & CR4_PAE != 0;
        if access.contains(Access::EXECUTE) && (nx || self.cr4 & CR4_SMEP != 0) {
            code |= PF_FETCH;
        }
        AccessError::Fault(GuestFault::Pf { address: at, code })
    }
}

/// Refuses an address whose upper bits do not repeat the highest translated one.
#[inline]
fn canonical(at: Gva, mode: &Mode) -> Result<Gva, AccessError> {
    let unused = if mode.levels == 5 { 7 } else { 16 };
    let extended = (at.raw() << unused).cast_signed() >> unused;
    if extended.cast_unsigned() == at.raw() {
        Ok(at)
    } else {
        Err(AccessError::Fault(GuestFault::GP0))
    }
}

/// The address of the page an entry maps.
#[inline]
const fn frame(entry: u64, wide: bool, large: bool) -> u64 {
    if wide {
        entry & FRAME
    } else if large {
        entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
    } else {
        entry & 0xffff_f000
    }
}

/// Reads an entry, once. One that lies outside memory reads as all ones.
#[inline]
fn load(memory: &GuestMemory<'_>, gpa: u64, wide: bool) -> u64 {
    let gpa = Gpa::new(gpa);
    let Some(page) = memory.page(gpa.gfn()) else {
        return u64::MAX;
    };
    if wide {
        page.word64(gpa.page_offset()).load(Ordering::Acquire)
    } else {
        page.word32(gpa.page_offset())
            .load(Ordering::Acquire)
            .into()
    }
}

/// Sets the accessed flag in all entries used and the dirty flag in the last; false when one has
/// changed since it was read. Tables the guest cannot write keep their flags.
#[inline]
fn set_flags(memory: &GuestMemory<'_>, found: &Found, write: bool, wide: bool) -> bool {
    let last = found.count.saturating_sub(1);
    for (level, used) in found.used.iter().take(found.count).enumerate() {
        let dirty = if write && level == last { DIRTY } else { 0 };
        let wanted = used.entry | ACCESSED | dirty;
        if wanted != used.entry && !exchange(memory, *used, wanted, wide) {
            return false;
        }
    }
    true
}

#[cold]
fn exchange(memory: &GuestMemory<'_>, used: Used, wanted: u64, wide: bool) -> bool {
    let gpa = Gpa::new(used.gpa);
    let Some(page) = memory.writable_page(gpa.gfn()) else {
        return true;
    };
    let offset = gpa.page_offset();
    let order = Ordering::AcqRel;
    if wide {
        let word = page.word64(offset);
        word.compare_exchange(used.entry, wanted, order, Ordering::Relaxed)
            .is_ok()
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "32-bit entries")]
        let (old, new) = (used.entry as u32, wanted as u32);
        page.word32(offset)
            .compare_exchange(old, new, order, Ordering::Relaxed)
            .is_ok()
    }
}
