//! The duty to invalidate, as a value.

use abi::Mfn;

use crate::entry::Entry;
use crate::mem::TableMem;

/// What is left to do after a change: invalidate where [`Flush::is_needed`] says so, then
/// [`Flush::done`].
///
/// SDM 3C, "Guidelines for Use of the INVEPT Instruction": entries that became not present, less
/// permissive or point elsewhere must be invalidated; those that became present, or more
/// permissive, need nothing, since CPUs do not cache what is not present and an EPT violation
/// drops what they had cached for its address.
///
/// Tables taken out of use hang on the token, chained through their first slot: a chained table is
/// empty and the link has no permission bits, so a CPU that still walks there finds nothing.
#[must_use = "the CPUs that ran the domain may still use the old translation"]
#[derive(Debug)]
pub struct Flush {
    needed: bool,
    /// The chain of tables to free: first and last.
    tables: Option<(Mfn, Mfn)>,
}

impl Flush {
    /// Nothing to do.
    pub const fn none() -> Self {
        Self {
            needed: false,
            tables: None,
        }
    }

    /// Something to invalidate, if `needed`.
    pub(crate) const fn when(needed: bool) -> Self {
        Self {
            needed,
            tables: None,
        }
    }

    /// True when a CPU may still use what was changed.
    #[must_use]
    pub const fn is_needed(&self) -> bool {
        self.needed
    }

    /// True when there is nothing to do, neither to invalidate nor to free.
    #[inline]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        !self.needed && self.tables.is_none()
    }

    /// Takes on another token's duty as well.
    #[inline]
    pub fn merge(&mut self, mem: &impl TableMem, mut other: Self) {
        self.needed |= core::mem::take(&mut other.needed);
        if let Some((first, last)) = other.tables.take() {
            self.append(mem, first, last);
        }
    }

    /// Puts an empty table, which the tree no longer points to, on the chain.
    pub(crate) fn retire(&mut self, mem: &impl TableMem, table: Mfn) {
        self.needed = true;
        self.append(mem, table, table);
    }

    fn append(&mut self, mem: &impl TableMem, first: Mfn, last: Mfn) {
        self.tables = match self.tables {
            None => Some((first, last)),
            Some((head, tail)) => {
                let mut link = Entry::EMPTY;
                link.set_frame(first.raw());
                mem.write(tail, 0, link.0);
                Some((head, last))
            }
        };
    }

    /// Says that the invalidation is over on every CPU; frees the tables.
    pub fn done(mut self, mem: &impl TableMem) {
        self.needed = false;
        let Some((first, last)) = self.tables.take() else {
            return;
        };
        let mut table = first;
        while table != last {
            let next = Entry(mem.read(table, 0)).mfn();
            mem.write(table, 0, Entry::EMPTY.0);
            mem.free(table);
            table = next;
        }
        mem.free(last);
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        // In release builds a lost token leaks its tables, which is safe.
        debug_assert!(!self.needed && self.tables.is_none(), "a flush left undone");
    }
}
