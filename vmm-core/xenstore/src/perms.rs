//! Who may read and write a node.

use core::fmt::Write as _;

use abi::DomId;
use bitflags::bitflags;
use heapless::Vec;

use crate::Error;

/// Entries a node can have; a domain may set as many.
const MAX: usize = 5;

bitflags! {
    /// What a domain may do with a node.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u8 {
        /// See its value and its children.
        const READ = 1 << 0;
        /// Set its value, create and remove children.
        const WRITE = 1 << 1;
        /// Set its permissions.
        const OWN = 1 << 2;
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// The hypervisor, which may do everything.
    Control,
    /// A domain.
    Domain(DomId),
}

impl Who {
    /// True for whom no quota and no permission holds.
    pub(crate) const fn privileged(self) -> bool {
        matches!(self, Self::Control)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Perm {
    id: DomId,
    access: Access,
}

/// A node's permissions: the owner with what everybody may, then single domains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Perms {
    owner: DomId,
    /// Of all that are not listed.
    others: Access,
    listed: Vec<Perm, { MAX - 1 }>,
}

impl Perms {
    /// A node of `owner`, where all others may do `others`.
    #[must_use]
    pub const fn new(owner: DomId, others: Access) -> Self {
        Self {
            owner,
            others,
            listed: Vec::new(),
        }
    }

    /// The same, where `id` may do `access`. At most four domains can be listed; more change
    /// nothing.
    #[must_use]
    pub fn with(mut self, id: DomId, access: Access) -> Self {
        // The callers are our own and list one domain, the other end of a device.
        let _ = self.listed.push(Perm { id, access });
        self
    }

    /// The owner.
    #[must_use]
    pub const fn owner(&self) -> DomId {
        self.owner
    }

    /// The same permissions on a node that `owner` makes.
    pub(crate) fn inherited(&self, creator: Who) -> Self {
        let mut perms = self.clone();
        if let Who::Domain(id) = creator {
            perms.owner = id;
        }
        perms
    }

    /// What `who` may do.
    pub(crate) fn of(&self, who: Who) -> Access {
        let Who::Domain(id) = who else {
            return Access::all();
        };
        if id == self.owner {
            return Access::all();
        }
        let listed = self.listed.iter().find(|perm| perm.id == id);
        listed.map_or(self.others, |perm| perm.access)
    }

    /// Takes the permissions from the words of a request, such as `n5`, `r0`. A listed domain that
    /// `known` does not know is left out.
    ///
    /// # Errors
    /// [`Error::Einval`] for a word that is none, [`Error::Enospc`] for too many,
    /// [`Error::Enoent`] for an unknown owner.
    pub(crate) fn parse<'a>(
        mut words: impl Iterator<Item = &'a [u8]>,
        known: impl Fn(DomId) -> bool,
    ) -> Result<Self, Error> {
        let first = words.next().ok_or(Error::Einval)?;
        let Perm { id, access } = Perm::parse(first)?;
        let mut perms = Self::new(id, access);
        for (seen, word) in (0..usize::MAX).zip(words) {
            if seen >= perms.listed.capacity() {
                return Err(Error::Enospc);
            }
            let perm = Perm::parse(word)?;
            if known(perm.id) {
                perms.listed.push(perm).map_err(|_| Error::Enospc)?;
            }
        }
        if known(id) {
            Ok(perms)
        } else {
            Err(Error::Enoent)
        }
    }

    /// The words of a reply, each with a NUL behind it.
    pub(crate) fn words(&self) -> heapless::String<{ MAX * 8 }> {
        let owner = Perm {
            id: self.owner,
            access: self.others,
        };
        let mut out = heapless::String::new();
        for perm in core::iter::once(&owner).chain(&self.listed) {
            // A letter, five digits and the NUL fit.
            let _ = write!(out, "{}{}\0", perm.letter(), perm.id);
        }
        out
    }
}

impl Perm {
    fn parse(word: &[u8]) -> Result<Self, Error> {
        let (letter, number) = word.split_first().ok_or(Error::Einval)?;
        let access = match letter {
            b'n' => Access::empty(),
            b'r' => Access::READ,
            b'w' => Access::WRITE,
            b'b' => Access::READ | Access::WRITE,
            _ => return Err(Error::Einval),
        };
        let number = core::str::from_utf8(number).map_err(|_| Error::Einval)?;
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::Einval);
        }
        let id = number.parse().map_err(|_| Error::Einval)?;
        Ok(Self {
            id: DomId(id),
            access,
        })
    }

    fn letter(self) -> char {
        match (
            self.access.contains(Access::READ),
            self.access.contains(Access::WRITE),
        ) {
            (false, false) => 'n',
            (true, false) => 'r',
            (false, true) => 'w',
            (true, true) => 'b',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Perms, Who};
    use crate::Error;
    use abi::DomId;

    fn parse(text: &str) -> Result<Perms, Error> {
        Perms::parse(text.split(' ').map(str::as_bytes), |id| id.0 < 10)
    }

    #[test]
    fn words_are_read_and_written_alike() {
        for text in ["n5", "r0 w3", "b1 n2 r3 w4 b6"] {
            let perms = parse(text).unwrap();
            let words = perms.words();
            let back: std::string::String = words.trim_end_matches('\0').replace('\0', " ");
            assert_eq!(back, text);
        }
    }

    #[test]
    fn what_is_no_permission_is_refused() {
        for bad in ["", "x1", "r", "r-1", "r70000", "r1x", "r1 ", "r+1"] {
            assert_eq!(parse(bad), Err(Error::Einval), "{bad}");
        }
        assert_eq!(parse("r1 r1 r1 r1 r1 r1"), Err(Error::Enospc));
        assert_eq!(parse("r99"), Err(Error::Enoent));
        assert_eq!(parse("r1 b99"), parse("r1"));
    }

    #[test]
    fn the_owner_may_all_and_the_first_entry_is_for_the_rest() {
        let perms = parse("r1 w2 n3").unwrap();
        let of = |id| perms.of(Who::Domain(DomId(id)));
        assert_eq!(of(1), Access::all());
        assert_eq!(of(2), Access::WRITE);
        assert_eq!(of(3), Access::empty());
        assert_eq!(of(4), Access::READ);
        assert_eq!(perms.of(Who::Control), Access::all());
        assert_eq!(perms.inherited(Who::Domain(DomId(4))).owner(), DomId(4));
        assert_eq!(perms.inherited(Who::Control).owner(), DomId(1));
    }
}
