//! A page shared with a peer that may write it at any time.
//!
//! [`SharedPage`] is the only way this project touches such memory: every access is an atomic or
//! a [copy](crate::bytes), so no Rust reference to plain data ever aliases a peer's writes.
#![expect(
    unsafe_code,
    reason = "shared memory is reached through raw pointers, here only"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use abi::PAGE_SIZE;
use invariant::invariant;

use crate::bytes::{copy, zero};

/// A view of one 4 KiB page that a peer shares.
///
/// Offsets are in bytes. Accessors panic on an offset that is out of the page or misaligned:
/// offsets come from our own layout constants or from values validated before, never straight
/// from a guest.
#[derive(Clone, Copy, Debug)]
pub struct SharedPage {
    /// Invariant: page-aligned, valid for reads and writes of `PAGE_SIZE` bytes for as long as
    /// the view lives; nobody holds a Rust reference to non-atomic data in it.
    base: NonNull<u8>,
}

// SAFETY: all accesses are atomic, and the invariant on `base` is not bound to a
// thread.
unsafe impl Send for SharedPage {}
// SAFETY: as for `Send`.
unsafe impl Sync for SharedPage {}

macro_rules! atomic {
    ($(#[$doc:meta])* $name:ident, $atomic:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self, offset: usize) -> &$atomic {
            let size = size_of::<$atomic>();
            invariant!(
                offset <= PAGE_SIZE - size && offset % size == 0,
                "offset inside the page"
            );
            // SAFETY: the offset was just checked to stay inside the page.
            let field = unsafe { self.base.add(offset) };
            // SAFETY: valid and aligned by the check and the invariant on `base`; atomics may
            // alias a peer's accesses.
            unsafe { field.cast::<$atomic>().as_ref() }
        }
    };
}

/// One byte of a [`SharedPage`]; to be used as long as that may be.
#[derive(Clone, Copy, Debug)]
pub struct SharedByte(
    /// Invariant: a byte of a page for which [`SharedPage`]'s own invariant holds.
    NonNull<AtomicU8>,
);

// SAFETY: as for `SharedPage`.
unsafe impl Send for SharedByte {}
// SAFETY: as for `SharedPage`.
unsafe impl Sync for SharedByte {}

impl SharedByte {
    /// The byte.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> &AtomicU8 {
        // SAFETY: valid by the invariant; atomics may alias a peer's accesses.
        unsafe { self.0.as_ref() }
    }
}

impl SharedPage {
    /// Wraps a page.
    ///
    /// # Safety
    /// `base` is page-aligned and valid for reads and writes of `PAGE_SIZE` bytes for as long as
    /// the view and its copies are used, and nobody holds a reference to plain data in the page.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self { base }
    }

    atomic!(
        /// The byte at `offset`.
        u8, AtomicU8
    );
    atomic!(
        /// The 16-bit word at `offset`.
        u16, AtomicU16
    );
    atomic!(
        /// The 32-bit word at `offset`.
        u32, AtomicU32
    );
    atomic!(
        /// The 64-bit word at `offset`.
        u64, AtomicU64
    );

    /// The byte at `offset`, found once for many looks.
    ///
    /// # Panics
    /// When `offset` leaves the page.
    #[must_use]
    pub fn byte(&self, offset: usize) -> SharedByte {
        SharedByte(NonNull::from(self.u8(offset)))
    }

    /// Copies `len` bytes from another page, or within this one.
    ///
    /// # Panics
    /// When a range leaves its page.
    pub fn copy_from(&self, offset: usize, source: &Self, source_offset: usize, len: usize) {
        let (target, source) = (self.at(offset, len), source.at(source_offset, len));
        // SAFETY: `at` checked that both ranges stay inside their pages, which are readable and
        // writable by the invariant on `base` and hold no plain Rust data.
        unsafe { copy(target.as_ptr(), source.as_ptr(), len) };
    }

    /// Zeroes `len` bytes.
    ///
    /// # Panics
    /// When the range leaves the page.
    pub fn zero(&self, offset: usize, len: usize) {
        let target = self.at(offset, len);
        // SAFETY: as in `copy_from`, for the one range.
        unsafe { zero(target.as_ptr(), len) };
    }

    /// The address of `len` bytes inside the page.
    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        // SAFETY: the range was just checked to stay inside the page.
        unsafe { self.base.add(checked(offset, len)) }
    }

    /// Copies bytes out of the page.
    ///
    /// # Panics
    /// When `offset + out.len()` leaves the page.
    #[inline]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let source = self.at(offset, out.len());
        // SAFETY: `at` checked the range, which is readable by the invariant on `base`; `out` is Rust
        // memory and so no part of a shared page.
        unsafe { copy(out.as_mut_ptr(), source.as_ptr(), out.len()) };
    }

    /// Copies bytes into the page.
    ///
    /// # Panics
    /// When `offset + data.len()` leaves the page.
    #[inline]
    pub fn write(&self, offset: usize, data: &[u8]) {
        let target = self.at(offset, data.len());
        // SAFETY: `at` checked the range, which is writable by the invariant on `base`; `data` is
        // Rust memory and so no part of a shared page.
        unsafe { copy(target.as_ptr(), data.as_ptr(), data.len()) };
    }
}

/// The offset, when `len` bytes from there stay inside the page.
fn checked(offset: usize, len: usize) -> usize {
    invariant!(
        offset <= PAGE_SIZE && len <= PAGE_SIZE - offset,
        "range inside the page"
    );
    offset
}

#[cfg(test)]
mod tests {
    extern crate std;
    use crate::test_page::TestPage;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        /// Copies are bytes in their places, however they are aligned.
        #[test]
        fn copies_put_every_byte_in_its_place(
            data in proptest::collection::vec(any::<u8>(), 0..400),
            offset in 0usize..64,
            other in 0usize..64,
        ) {
            let (source, page) = (TestPage::new(), TestPage::new());
            source.view().write(other, &data);
            page.view().write(0, &[7; 500]);
            page.view().zero(0, 499);
            page.view().copy_from(offset, &source.view(), other, data.len());
            prop_assert_eq!(page.view().u8(499).load(core::sync::atomic::Ordering::Relaxed), 7);
            let mut all = [0; 499];
            for (at, byte) in all.iter_mut().enumerate() {
                *byte = page.view().u8(at).load(core::sync::atomic::Ordering::Relaxed);
            }
            prop_assert_eq!(&all[offset..offset + data.len()], &data[..]);
            prop_assert_eq!(all.iter().filter(|byte| **byte != 0).count(), data.iter().filter(|byte| **byte != 0).count());
            let mut back = std::vec![0; data.len()];
            page.view().read(offset, &mut back);
            prop_assert_eq!(back, data);
        }
    }
}
