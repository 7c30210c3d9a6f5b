//! The lock-free half of a pin: what we and the granting guest do to one shared entry at the same
//! time (`public/grant_table.h`, "GRANT TABLE REPRESENTATION").
//!
//! The guest may write the entry whenever it likes. We and it agree on two orders of steps, and
//! an access that keeps to them never meets a guest that has taken its grant back:
//!
//! ```text
//!              we, to begin                            the guest, to take it back
//! version 1    flags, domid: check, then exchange      flags without reading and writing:
//!              them for the same with reading set      exchange them for 0
//! version 2    status: set reading; flags, domid:      flags: store 0; status: is it clear of
//!              check again                             reading and writing?
//! ```
//!
//! Whatever goes wrong is the entry's fault and ends in `GNTST_general_error`.

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU16, AtomicU32, fence};

use abi::DomId;
use abi::grant_table::flags;

/// How often we start over because the guest changed an entry under our hands; some changes are
/// legal, such as making it read-only.
const MAX_TRIES: usize = 5;

/// Flags and domain of an entry, which change together: one 32-bit word of shared memory.
pub(super) trait HeaderWord {
    fn load(&self) -> u32;
    /// Stores `new` if the word is `current`, or answers with what it is.
    fn exchange(&self, current: u32, new: u32) -> Result<(), u32>;
}

/// The word that holds the reading and writing flags.
pub(super) trait StatusWord {
    /// Sets bits; whatever is loaded afterwards is loaded after the guest can see them.
    fn set(&self, bits: u16);
    fn clear(&self, bits: u16);
}

impl HeaderWord for AtomicU32 {
    fn load(&self) -> u32 {
        self.load(SeqCst)
    }

    fn exchange(&self, current: u32, new: u32) -> Result<(), u32> {
        self.compare_exchange(current, new, SeqCst, SeqCst)
            .map(drop)
    }
}

impl StatusWord for AtomicU16 {
    fn set(&self, bits: u16) {
        self.fetch_or(bits, SeqCst);
        fence(SeqCst);
    }

    fn clear(&self, bits: u16) {
        self.fetch_and(!bits, SeqCst);
    }
}

/// What an entry said when it was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header(u32);

impl Header {
    pub(super) const fn flags(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    const fn domid(self) -> DomId {
        let [.., low, high] = self.0.to_le_bytes();
        DomId(u16::from_le_bytes([low, high]))
    }

    const fn with(self, bits: u16) -> Self {
        Self(self.0 | bits as u32)
    }
}

/// What is wanted of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    /// Who wants it.
    pub(super) grantee: DomId,
    /// Whether to write.
    pub(super) write: bool,
    /// Whether the whole page is needed, as for a mapping.
    pub(super) whole: bool,
    /// Whether the entry is in use by `grantee` already: then only the right to write is new.
    pub(super) pinned: bool,
}

impl Wish {
    fn allowed_by(self, header: Header) -> bool {
        let mut kind = flags::TYPE_MASK;
        if self.whole {
            kind |= flags::SUB_PAGE;
        }
        let fits = header.flags() & kind == flags::PERMIT_ACCESS && header.domid() == self.grantee;
        let writable = header.flags() & flags::READONLY == 0;
        (self.pinned || fits) && (writable || !self.write)
    }

    const fn bits(self) -> u16 {
        if self.write {
            flags::READING | flags::WRITING
        } else {
            flags::READING
        }
    }
}

/// Begins an access to a version 1 entry: checks it and marks it in one step. `None` when it
/// does not allow that, or does not hold still.
pub(super) fn begin_v1(word: &impl HeaderWord, wish: Wish) -> Option<Header> {
    let mut seen = word.load();
    for _ in 0..MAX_TRIES {
        let header = Header(seen);
        if !wish.allowed_by(header) {
            return None;
        }
        match word.exchange(seen, header.with(wish.bits()).0) {
            Ok(()) => return Some(header),
            Err(changed) => seen = changed,
        }
    }
    None
}

/// Begins an access to a version 2 entry: marks it, and looks whether it still allows that.
pub(super) fn begin_v2(
    word: &impl HeaderWord,
    status: &impl StatusWord,
    wish: Wish,
) -> Option<Header> {
    if !wish.allowed_by(Header(word.load())) {
        return None;
    }
    status.set(wish.bits());
    let header = Header(word.load());
    if wish.allowed_by(header) {
        return Some(header);
    }
    status.clear(if wish.pinned {
        flags::WRITING
    } else {
        flags::READING | flags::WRITING
    });
    None
}

/// Takes back marks that the accesses left over no longer need.
pub(super) fn end(status: &impl StatusWord, no_reader: bool, no_writer: bool) {
    let mut bits = 0;
    if no_reader {
        bits |= flags::READING;
    }
    if no_writer {
        bits |= flags::WRITING;
    }
    if bits != 0 {
        status.clear(bits);
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering::{Relaxed, SeqCst};

    use abi::DomId;
    use abi::grant_table::flags;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, fence};
    use loom::thread;

    use super::{HeaderWord, StatusWord, Wish, begin_v1, begin_v2, end};

    const GRANTEE: DomId = DomId(5);
    const BUSY: u16 = flags::READING | flags::WRITING;
    const GRANTED: u32 = (GRANTEE.0 as u32) << 16 | flags::PERMIT_ACCESS as u32;
    const TO_WRITE: Wish = Wish {
        grantee: GRANTEE,
        write: true,
        whole: true,
        pinned: false,
    };

    impl HeaderWord for AtomicU32 {
        fn load(&self) -> u32 {
            self.load(SeqCst)
        }

        fn exchange(&self, current: u32, new: u32) -> Result<(), u32> {
            self.compare_exchange(current, new, SeqCst, SeqCst)
                .map(drop)
        }
    }

    /// Version 1 has the marks among the flags.
    impl StatusWord for AtomicU32 {
        fn set(&self, bits: u16) {
            self.fetch_or(bits.into(), SeqCst);
        }

        fn clear(&self, bits: u16) {
            self.fetch_and(!u32::from(bits), SeqCst);
        }
    }

    impl StatusWord for AtomicU16 {
        fn set(&self, bits: u16) {
            self.fetch_or(bits, SeqCst);
            fence(SeqCst);
        }

        fn clear(&self, bits: u16) {
            self.fetch_and(!bits, SeqCst);
        }
    }

    /// A mistake: a header that is exchanged in two steps.
    struct Torn<'a>(&'a AtomicU32);

    impl HeaderWord for Torn<'_> {
        fn load(&self) -> u32 {
            self.0.load(SeqCst)
        }

        fn exchange(&self, current: u32, new: u32) -> Result<(), u32> {
            let seen = self.0.load(SeqCst);
            if seen != current {
                return Err(seen);
            }
            self.0.store(new, SeqCst);
            Ok(())
        }
    }

    /// A mistake: marks that the guest may see after the next look at the header.
    struct Late<'a>(&'a AtomicU16);

    impl StatusWord for Late<'_> {
        fn set(&self, bits: u16) {
            self.0.fetch_or(bits, Relaxed);
        }

        fn clear(&self, bits: u16) {
            self.0.clear(bits);
        }
    }

    /// An entry in either version, and whether the guest knows to have taken its grant back.
    struct Entry {
        header: AtomicU32,
        status: AtomicU16,
        ended: AtomicBool,
    }

    impl Entry {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                header: AtomicU32::new(GRANTED),
                status: AtomicU16::new(0),
                ended: AtomicBool::new(false),
            })
        }

        fn end_v1(&self) {
            let seen = self.header.load(SeqCst);
            let idle = seen & u32::from(BUSY) == 0;
            if idle && self.header.exchange(seen, 0).is_ok() {
                self.ended.store(true, SeqCst);
            }
        }

        fn end_v2(&self) {
            self.header.store(0, SeqCst);
            fence(SeqCst);
            if self.status.load(SeqCst) & BUSY == 0 {
                self.ended.store(true, SeqCst);
            }
        }
    }

    /// A guest takes its grant back while we begin to use it.
    fn taken_back_v1(begin: fn(&Entry) -> bool) {
        loom::model(move || {
            let entry = Entry::new();
            let guest = Arc::clone(&entry);
            let guest = thread::spawn(move || guest.end_v1());
            let begun = begin(&entry);
            if begun {
                assert!(!entry.ended.load(SeqCst));
                end(&entry.header, true, true);
            }
            guest.join().unwrap();
            assert!(begun || entry.ended.load(SeqCst));
            let marks = entry.header.load(SeqCst) & u32::from(BUSY);
            assert_eq!(marks, 0);
        });
    }

    #[test]
    fn no_version_1_grant_is_in_use_that_was_taken_back() {
        taken_back_v1(|entry| begin_v1(&entry.header, TO_WRITE).is_some());
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_header_exchanged_in_two_steps_is_found_out() {
        taken_back_v1(|entry| begin_v1(&Torn(&entry.header), TO_WRITE).is_some());
    }

    fn taken_back_v2(begin: fn(&Entry) -> bool) {
        loom::model(move || {
            let entry = Entry::new();
            let guest = Arc::clone(&entry);
            let guest = thread::spawn(move || guest.end_v2());
            if begin(&entry) {
                assert!(!entry.ended.load(SeqCst));
                end(&entry.status, true, true);
            }
            guest.join().unwrap();
            assert_eq!(entry.status.load(SeqCst) & BUSY, 0);
        });
    }

    #[test]
    fn no_version_2_grant_is_in_use_that_was_taken_back() {
        taken_back_v2(|entry| begin_v2(&entry.header, &entry.status, TO_WRITE).is_some());
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_mark_that_comes_late_is_found_out() {
        taken_back_v2(|entry| begin_v2(&entry.header, &Late(&entry.status), TO_WRITE).is_some());
    }

    /// A guest that makes its grant read-only under the call: no use begins that could write.
    fn made_read_only(begin: fn(&Entry) -> bool) {
        loom::model(move || {
            let entry = Entry::new();
            let guest = Arc::clone(&entry);
            let guest = thread::spawn(move || {
                let readonly = u32::from(flags::READONLY);
                let seen = guest.header.fetch_or(readonly, SeqCst);
                seen & u32::from(flags::WRITING) != 0
            });
            let begun = begin(&entry);
            // Either the guest saw the mark, or there is none.
            assert_eq!(guest.join().unwrap(), begun);
        });
    }

    #[test]
    fn no_right_to_write_is_taken_that_the_entry_has_lost() {
        made_read_only(|entry| begin_v1(&entry.header, TO_WRITE).is_some());
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_right_taken_in_two_steps_is_found_out() {
        made_read_only(|entry| begin_v1(&Torn(&entry.header), TO_WRITE).is_some());
    }
}
