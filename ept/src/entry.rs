//! The bits of one EPT entry.
//!
//! SDM 3C, "EPT Translation Mechanism", tables "Format of an EPT PML4 Entry" to "Format of an EPT
//! Page-Table Entry".
//!
//! ```text
//!  leaf    63 ... 57 | 56..52 | 51 ... 12 | 11 | 10 | 9 8 | 7 | 6   | 5..3 | 2 1 0
//!            0       |  tag   |  frame    |  0 |  0 | D A | L | IPAT| type | X W R
//!  table   63 62 | 61 ... 52  | 51 ... 12 | 11 | 10 | 9 8 | 7 ... 3      | X W R
//!            0   |    live    |  table    |  0 |  0 | 0 A |     0        | 1 1 1
//! ```
//! Bits 56:52 of a leaf and 63:52 of an entry that points to a table are ignored by the CPU: a
//! leaf keeps its owner's *tag* there (never 0, so that a leaf without permissions differs from an
//! empty slot), a table entry the number of *live* slots of that table. An entry with R, W and X
//! clear is not present, whatever its other bits say.

use abi::Mfn;
use bitfield::bitfield;
use bitflags::bitflags;

use crate::memtype::MemType;
use crate::walk::PageSize;

/// Where the frame number begins in an entry.
const FRAME_SHIFT: u32 = 12;

bitfield! {
    /// One entry of any level.
    #[derive(Clone, Copy, PartialEq, Eq, Default)]
    pub struct Entry(pub u64);
    impl Debug;
    u64;
    /// Permissions: read, write, execute.
    pub rwx, set_rwx: 2, 0;
    /// Memory type of a leaf.
    pub memory_type, set_memory_type: 5, 3;
    /// The leaf's memory type overrides the guest's PAT.
    pub ignore_pat, set_ignore_pat: 6;
    /// A leaf above the lowest level.
    pub large, set_large: 7;
    /// Accessed flag.
    pub accessed, set_accessed: 8;
    /// Dirty flag.
    pub dirty, set_dirty: 9;
    /// Frame number of the page or table.
    pub frame, set_frame: 51, 12;
    /// Software tag of a leaf; 1 to 31.
    pub tag, set_tag: 56, 52;
    /// Slots in use in the table this entry points to.
    pub live, set_live: 61, 52;
}

bitflags! {
    /// What the guest may do with a page.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Perms: u8 {
        /// Read data.
        const READ = 1;
        /// Write data.
        const WRITE = 2;
        /// Fetch instructions.
        const EXEC = 4;
        /// Read and write.
        const RW = 3;
        /// Read, write and execute.
        const RWX = 7;
    }
}

/// Everything about a leaf but its frame and size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// What the guest may do. Empty for a leaf that holds its place but is not present.
    pub perms: Perms,
    /// Memory type; the guest's PAT is combined with it.
    pub memtype: MemType,
    /// The caller's own mark, 1 to 31.
    pub tag: u8,
}

impl Attr {
    /// Write-back memory with all permissions.
    #[must_use]
    pub const fn ram(tag: u8) -> Self {
        Self {
            perms: Perms::RWX,
            memtype: MemType::WriteBack,
            tag,
        }
    }

    /// True when the CPU can take these bits: a writable page is readable (SDM 3C, "EPT
    /// Misconfigurations"), and the tag fits. Execute-only needs a capability, so it counts as
    /// unreadable too.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        let readable = self.perms.contains(Perms::READ) || self.perms.is_empty();
        readable && self.tag > 0 && self.tag < 32
    }
}

impl Entry {
    /// An empty slot.
    pub const EMPTY: Self = Self(0);

    /// An entry that points to a table with `live` slots in use.
    #[must_use]
    pub fn table(table: Mfn, live: u64) -> Self {
        let mut entry = Self::EMPTY;
        entry.set_rwx(u64::from(Perms::RWX.bits()));
        entry.set_frame(table.raw());
        entry.set_live(live);
        entry
    }

    /// An entry that maps a page.
    #[must_use]
    pub fn leaf(mfn: Mfn, size: PageSize, attr: Attr) -> Self {
        let mut entry = Self::EMPTY;
        entry.set_rwx(u64::from(attr.perms.bits()));
        entry.set_memory_type(u64::from(attr.memtype.raw()));
        entry.set_large(size != PageSize::Size4K);
        entry.set_frame(mfn.raw());
        entry.set_tag(u64::from(attr.tag));
        entry
    }

    /// True for a slot nothing uses.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when the CPU sees a mapping or a table here.
    #[inline]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.0 & 7 != 0
    }

    /// True for a leaf found at a level whose pages have `size`.
    #[inline]
    #[must_use]
    pub fn is_leaf(self, size: PageSize) -> bool {
        !self.is_empty() && (self.large() || size == PageSize::Size4K)
    }

    /// The frame the entry points to.
    #[inline]
    #[must_use]
    pub fn mfn(self) -> Mfn {
        Mfn::new(self.frame())
    }

    /// What the guest may do with a leaf's page.
    #[inline]
    #[must_use]
    pub const fn perms(self) -> Perms {
        Perms::from_bits_retain((self.0 & 7) as u8)
    }

    /// The attributes of a leaf.
    #[inline]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "fields of five bits and less"
    )]
    pub fn attr(self) -> Attr {
        Attr {
            perms: Perms::from_bits_retain(self.rwx() as u8),
            memtype: MemType::from_raw(self.memory_type() as u8).unwrap_or(MemType::Uncacheable),
            tag: self.tag() as u8,
        }
    }

    /// The same leaf with other permissions.
    #[must_use]
    pub fn with_perms(mut self, perms: Perms) -> Self {
        self.set_rwx(u64::from(perms.bits()));
        self
    }

    /// The 512 leaves of `size` that together map what this larger leaf maps, and what would follow.
    /// Accessed and dirty flags carry over.
    #[inline]
    pub fn parts(self, size: PageSize) -> impl Iterator<Item = Self> {
        let mut first = self;
        first.set_large(size != PageSize::Size4K);
        // The leaf is aligned to its own size, so no sum of its parts carries into other fields.
        let step = size.frames() << FRAME_SHIFT;
        core::iter::successors(Some(first), move |entry| {
            Some(Self(entry.0.wrapping_add(step)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_leaf_has_the_manuals_bits() {
        let leaf = Entry::leaf(Mfn::new(0x12345), PageSize::Size4K, Attr::ram(1));
        assert_eq!(leaf.0, 1 << 52 | 0x1234_5000 | 6 << 3 | 7);
        let large = Entry::leaf(Mfn::new(0x200), PageSize::Size2M, Attr::ram(2));
        assert_eq!(large.0, 2 << 52 | 0x20_0000 | 1 << 7 | 6 << 3 | 7);
        assert_eq!(Entry::table(Mfn::new(5), 512).0, 512 << 52 | 0x5007);
    }

    #[test]
    fn parts_cover_the_whole() {
        let whole = Entry::leaf(Mfn::new(0x4_0000), PageSize::Size1G, Attr::ram(3));
        let part = whole.parts(PageSize::Size2M).nth(511).expect("endless");
        assert_eq!(part.mfn(), Mfn::new(0x4_0000 + 511 * 512));
        assert!(part.large());
        let page = part.parts(PageSize::Size4K).nth(7).expect("endless");
        assert!(!page.large());
        assert_eq!(page.mfn(), Mfn::new(0x4_0000 + 511 * 512 + 7));
        assert_eq!(page.attr(), Attr::ram(3));
    }

    #[test]
    fn a_leaf_without_permissions_is_kept_but_not_present() {
        let attr = Attr {
            perms: Perms::empty(),
            ..Attr::ram(1)
        };
        let entry = Entry::leaf(Mfn::new(0), PageSize::Size4K, attr);
        assert!(!entry.is_present());
        assert!(!entry.is_empty());
        assert!(entry.is_leaf(PageSize::Size4K));
        assert_eq!(entry.attr(), attr);
    }

    #[test]
    fn write_only_and_tagless_are_refused() {
        assert!(Attr::ram(31).is_valid());
        assert!(!Attr::ram(0).is_valid());
        assert!(!Attr::ram(32).is_valid());
        assert!(
            !Attr {
                perms: Perms::WRITE,
                ..Attr::ram(1)
            }
            .is_valid()
        );
        assert!(
            !Attr {
                perms: Perms::EXEC,
                ..Attr::ram(1)
            }
            .is_valid()
        );
    }
}
