//! The guest's own paging: from a linear to a guest-physical address, as its CPU would do it.
//!
//! SDM 3A, chapter "Paging": "32-Bit Paging", "PAE Paging", "4-Level Paging and 5-Level Paging",
//! "Access Rights", "Protection Keys", "Page-Fault Exceptions", "Accessed and Dirty Flags".
//!
//! A walk reads each entry once, decides on what it read, and only then sets accessed and dirty
//! flags, by compare-and-exchange against what it read: when the guest changed an entry meanwhile
//! the walk starts over, a few times at most. A table outside the guest's memory reads as all
//! ones, like any address nobody answers.

use core::sync::atomic::Ordering;

use abi::{Gpa, Gva};
use bitflags::bitflags;
use heapless::Vec;

use super::{AccessError, GuestMemory};
use crate::bits::low32;
use crate::fault::GuestFault;

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
pub(super) const CR4_LA57: u64 = 1 << 12;
pub(super) const CR4_SMEP: u64 = 1 << 20;
pub(super) const CR4_SMAP: u64 = 1 << 21;
pub(super) const CR4_PKE: u64 = 1 << 22;
const EFER_LMA: u64 = 1 << 10;
pub(super) const EFER_NXE: u64 = 1 << 11;

pub(super) const PRESENT: u64 = 1 << 0;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
pub(super) const LARGE: u64 = 1 << 7;
pub(super) const NX: u64 = 1 << 63;

/// Bits 51:12, where a 64-bit entry has its frame.
pub(super) const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Bits 2:1, 8:5 of a PAE page-directory-pointer entry, which are reserved.
const PDPTE_RESERVED: u64 = 0x1e6;

/// How often a walk starts over because the guest changed an entry under it.
const MAX_TRIES: usize = 8;
/// Levels of the deepest paging mode.
const MAX_LEVELS: usize = 5;

/// Bits 62:59 of a 64-bit entry that maps a page: its protection key.
const KEY_SHIFT: u32 = 59;
const KEYS: u64 = 0xf << KEY_SHIFT;
/// PKRU has two bits for each key: access disabled, write disabled.
const KEY_NO_ACCESS: u32 = 1 << 0;
const KEY_NO_WRITE: u32 = 1 << 1;

/// Page-fault error code bits (SDM 3A, "Page-Fault Exceptions").
const PF_PRESENT: u32 = 1 << 0;
const PF_WRITE: u32 = 1 << 1;
const PF_USER: u32 = 1 << 2;
const PF_RESERVED: u32 = 1 << 3;
const PF_FETCH: u32 = 1 << 4;
const PF_KEY: u32 = 1 << 5;

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
    /// PKRU, or 0 when CR4.PKE is clear: it denies nothing.
    pkru: u32,
    mode: Mode,
}

/// A paging mode, with all that a walk asks of it.
#[derive(Clone, Copy, Debug)]
struct Mode {
    kind: Kind,
    /// Lowest linear-address bit of the top level's index.
    top: u32,
    /// Bits reserved in every entry.
    reserved: u64,
    /// Address bits below 52 that the guest's CPU does not have.
    beyond: u64,
}

/// The paging modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Off,
    Bits32,
    Pae,
    Level4,
    Level5,
}

impl Kind {
    /// True for entries of 64 bits.
    #[inline]
    const fn wide(self) -> bool {
        !matches!(self, Self::Bits32)
    }

    /// True for IA-32e mode, with 64-bit linear addresses.
    #[inline]
    const fn long(self) -> bool {
        matches!(self, Self::Level4 | Self::Level5)
    }
}

/// An entry used on the way.
#[derive(Clone, Copy, Default)]
struct Used {
    gpa: u64,
    entry: u64,
}

/// What a walk found.
struct Found {
    gpa: Gpa,
    /// The entry that maps the page.
    leaf: u64,
    /// Rights that all levels grant: `USER`, `WRITABLE`, and `NX` when any forbids execution.
    rights: u64,
}

impl Linear {
    /// How a vCPU with these registers translates at privilege level `cpl`, with neither SMAP nor
    /// protection keys in force until [`Linear::with_smap`] and [`Linear::with_protection_keys`]
    /// say so.
    #[inline]
    #[must_use]
    pub const fn new(cr0: u64, cr3: u64, cr4: u64, efer: u64, cpl: u8) -> Self {
        let mode = Mode::new(cr0, cr4, efer, 52);
        Self {
            cr0,
            cr3,
            cr4,
            efer,
            user: cpl == 3,
            smap_off: true,
            pkru: 0,
            mode,
        }
    }

    /// The same with SMAP as the CPU would apply it; `ac` is RFLAGS.AC.
    #[must_use]
    pub const fn with_smap(mut self, ac: bool) -> Self {
        self.smap_off = ac;
        self
    }

    /// The same with protection keys, which only IA-32e mode has.
    #[must_use]
    pub const fn with_protection_keys(mut self, pkru: u32) -> Self {
        self.pkru = if self.mode.kind.long() { pkru } else { 0 };
        self
    }

    /// The same for a guest whose CPUID reports this many physical address bits: those above are
    /// reserved in its page tables.
    #[must_use]
    pub const fn with_address_bits(mut self, bits: u32) -> Self {
        self.mode = Mode::new(self.cr0, self.cr4, self.efer, bits);
        self
    }

    /// The first address of the page after the one of `at`; wraps as the CPU does.
    #[inline]
    pub(super) const fn next_page(&self, at: Gva) -> Gva {
        let next = (at.raw() | 0xfff).wrapping_add(1);
        Gva::new(if self.mode.kind.long() {
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
        let at = match self.mode.kind {
            Kind::Off => return Ok(Gpa::new(at.raw() & 0xffff_ffff)),
            Kind::Level4 => canonical::<16>(at)?,
            Kind::Level5 => canonical::<7>(at)?,
            Kind::Bits32 | Kind::Pae => Gva::new(at.raw() & 0xffff_ffff),
        };
        let mut all = ACCESSED;
        let found = self.walk(memory, at, access, |used: Used| all &= used.entry)?;
        self.check_rights(&found, at, access)?;
        let flagged = all != 0 && (!access.writes() || found.leaf & DIRTY != 0);
        if flagged {
            Ok(found.gpa)
        } else {
            self.translate_and_flag(memory, at, access)
        }
    }

    /// Translates once more, and sets the flags that are missing.
    #[cold]
    fn translate_and_flag(
        &self,
        memory: &GuestMemory<'_>,
        at: Gva,
        access: Access,
    ) -> Result<Gpa, AccessError> {
        for _ in 0..MAX_TRIES {
            let mut path: Vec<Used, MAX_LEVELS> = Vec::new();
            // A walk is no longer than its mode's levels.
            let found = self.walk(memory, at, access, |used| {
                let _ = path.push(used);
            })?;
            self.check_rights(&found, at, access)?;
            if set_flags(memory, &path, access.writes(), self.mode.kind.wide()) {
                return Ok(found.gpa);
            }
        }
        // The guest keeps changing its tables under the walk: the access is as good as not there.
        Err(self.fault(at, access, 0))
    }

    /// Follows the entries from CR3 to the page, showing each that has flags.
    fn walk(
        &self,
        memory: &GuestMemory<'_>,
        at: Gva,
        access: Access,
        mut see: impl FnMut(Used),
    ) -> Result<Found, AccessError> {
        let Mode { kind, reserved, .. } = self.mode;
        let wide = kind.wide();
        let (mask, entry_shift, step) = if wide { (0x1ff, 3, 9) } else { (0x3ff, 2, 10) };
        let mut shift = self.mode.top;
        let mut table = match kind {
            Kind::Pae => self.directory_of_pae(memory, at, access)?,
            Kind::Bits32 => self.cr3 & 0xffff_f000,
            Kind::Off | Kind::Level4 | Kind::Level5 => self.cr3 & FRAME,
        };
        let mut rights = USER | WRITABLE;
        loop {
            let gpa = table | (at.raw().unbounded_shr(shift) & mask) << entry_shift;
            let entry = load(memory, gpa, wide);
            if entry & PRESENT == 0 {
                return Err(self.fault(at, access, 0));
            }
            if entry & reserved != 0 {
                return Err(self.fault(at, access, PF_PRESENT | PF_RESERVED));
            }
            rights = rights & (entry | NX) | entry & NX;
            see(Used { gpa, entry });
            let large = shift > 12 && entry & LARGE != 0;
            if large && self.large_is_reserved(shift, entry) {
                return Err(self.fault(at, access, PF_PRESENT | PF_RESERVED));
            }
            if shift <= 12 || large && (wide || self.cr4 & CR4_PSE != 0) {
                let offset = 1_u64.unbounded_shl(shift).wrapping_sub(1);
                let gpa = Gpa::new(frame(entry, wide, large) & !offset | at.raw() & offset);
                return Ok(Found {
                    gpa,
                    leaf: entry,
                    rights,
                });
            }
            table = entry & FRAME;
            shift = shift.saturating_sub(step);
        }
    }

    /// The page directory a PAE directory-pointer entry names. It has neither rights nor flags.
    /// (The CPU reads these entries when CR3 is loaded; a guest that changes one must load CR3
    /// again anyway.)
    fn directory_of_pae(
        &self,
        memory: &GuestMemory<'_>,
        at: Gva,
        access: Access,
    ) -> Result<u64, AccessError> {
        let gpa = self.cr3 & 0xffff_ffe0 | (at.raw() >> 30 & 3) << 3;
        let entry = load(memory, gpa, true);
        if entry & PRESENT == 0 {
            return Err(self.fault(at, access, 0));
        }
        if entry & (self.mode.reserved | NX | PDPTE_RESERVED) != 0 {
            return Err(self.fault(at, access, PF_PRESENT | PF_RESERVED));
        }
        Ok(entry & FRAME)
    }

    /// True when an entry with bit 7 set, above the lowest level, breaks a rule: the level has no
    /// large pages, or low address bits are set. The lowest of those is the PAT bit.
    fn large_is_reserved(&self, shift: u32, entry: u64) -> bool {
        match (self.mode.kind, shift) {
            // A 4 MiB page has address bits 39:32 in 20:13 (PSE-36), and bit 21 is reserved.
            (Kind::Bits32, _) => {
                let beyond = self.mode.beyond >> 32 << 13 & 0x1f_e000 | 1 << 21;
                self.cr4 & CR4_PSE != 0 && entry & beyond != 0
            }
            (_, 21) => entry & 0x1f_e000 != 0,
            (_, 30) => entry & 0x3fff_e000 != 0,
            _ => true,
        }
    }

    /// Compares what the tables grant with what the access needs (SDM 3A, "Determination of
    /// Access Rights").
    fn check_rights(&self, found: &Found, at: Gva, access: Access) -> Result<(), AccessError> {
        if self.is_denied(found.rights, access) {
            Err(self.fault(at, access, PF_PRESENT))
        } else if self.key_denies(found, access) {
            Err(self.fault(at, access, PF_PRESENT | PF_KEY))
        } else {
            Ok(())
        }
    }

    #[inline(always)]
    fn is_denied(&self, rights: u64, access: Access) -> bool {
        let user_access = self.user && !access.contains(Access::IMPLICIT);
        let user_page = rights & USER != 0;
        let write = access.contains(Access::WRITE);
        let fetch = access.contains(Access::EXECUTE);
        let writable = rights & WRITABLE != 0 || (!user_access && self.cr0 & CR0_WP == 0);
        (user_access && !user_page)
            || (write && !writable)
            || (fetch && rights & NX != 0)
            || (!user_access && user_page && self.guards_user_page(access))
    }

    /// True when the protection key of a user page forbids the access (SDM 3A, "Protection
    /// Keys"): of data alone, at any privilege.
    fn key_denies(&self, found: &Found, access: Access) -> bool {
        if self.pkru == 0 || found.rights & USER == 0 || access.contains(Access::EXECUTE) {
            return false;
        }
        // Four bits, shifted down to be twice the key.
        let shift = (found.leaf & KEYS) >> (KEY_SHIFT - 1);
        let rights = self.pkru.checked_shr(low32(shift)).unwrap_or(0);
        let user_access = self.user && !access.contains(Access::IMPLICIT);
        let guards_writes = user_access || self.cr0 & CR0_WP != 0;
        rights & KEY_NO_ACCESS != 0
            || (rights & KEY_NO_WRITE != 0 && access.writes() && guards_writes)
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

impl Mode {
    #[inline]
    const fn new(cr0: u64, cr4: u64, efer: u64, address_bits: u32) -> Self {
        let (kind, top) = if cr0 & CR0_PG == 0 {
            (Kind::Off, 12)
        } else if efer & EFER_LMA != 0 {
            if cr4 & CR4_LA57 != 0 {
                (Kind::Level5, 48)
            } else {
                (Kind::Level4, 39)
            }
        } else if cr4 & CR4_PAE != 0 {
            (Kind::Pae, 21)
        } else {
            (Kind::Bits32, 22)
        };
        let bits = if address_bits < 52 { address_bits } else { 52 };
        let beyond = FRAME & !(1_u64 << bits).wrapping_sub(1);
        let nx = if efer & EFER_NXE == 0 { NX } else { 0 };
        let reserved = match kind {
            Kind::Off | Kind::Bits32 => 0,
            // PAE has no ignored bits above the address.
            Kind::Pae => beyond | nx | 0x7ff0_0000_0000_0000,
            Kind::Level4 | Kind::Level5 => beyond | nx,
        };
        Self {
            kind,
            top,
            reserved,
            beyond,
        }
    }
}

/// Refuses an address whose upper bits do not repeat the highest translated one.
#[inline]
fn canonical<const UNUSED: u32>(at: Gva) -> Result<Gva, AccessError> {
    let extended = (at.raw() << UNUSED).cast_signed() >> UNUSED;
    if extended.cast_unsigned() == at.raw() {
        Ok(at)
    } else {
        Err(AccessError::Fault(GuestFault::GP0))
    }
}

/// The address of the page an entry maps.
#[inline]
const fn frame(entry: u64, wide: bool, large: bool) -> u64 {
    if large && !wide {
        entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
    } else {
        entry & FRAME
    }
}

/// Reads an entry, once. One that lies outside memory reads as all ones.
#[inline(always)]
fn load(memory: &GuestMemory<'_>, gpa: u64, wide: bool) -> u64 {
    let gpa = Gpa::new(gpa);
    let Some(page) = memory.page(gpa.gfn()) else {
        return if wide { u64::MAX } else { u32::MAX.into() };
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
fn set_flags(memory: &GuestMemory<'_>, path: &[Used], write: bool, wide: bool) -> bool {
    let last = path.len().saturating_sub(1);
    path.iter().enumerate().all(|(level, used)| {
        let dirty = if write && level == last { DIRTY } else { 0 };
        let wanted = used.entry | ACCESSED | dirty;
        wanted == used.entry || exchange(memory, *used, wanted, wide)
    })
}

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
