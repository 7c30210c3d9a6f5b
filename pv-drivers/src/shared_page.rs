//! A page shared with a peer that may write it at any time.
//!
//! [`SharedPage`] is the only way this project touches such memory: every access is an atomic or
//! a volatile copy, so no Rust reference to plain data ever aliases a peer's writes.
#![expect(
    unsafe_code,
    reason = "shared memory is reached through raw pointers, here only"
)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use abi::PAGE_SIZE;

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

// SAFETY: all accesses are atomic or volatile, and the invariant on `base` is not bound to a
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
            assert!(offset <= PAGE_SIZE - size && offset % size == 0, "offset inside the page");
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

    /// Copies bytes out of the page.
    ///
    /// # Panics
    /// When `offset + out.len()` leaves the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(
            offset <= PAGE_SIZE && out.len() <= PAGE_SIZE - offset,
            "range inside the page"
        );
        for (index, byte) in out.iter_mut().enumerate() {
            // SAFETY: `offset + index` stays inside the page by the check above.
            let source = unsafe { self.base.add(offset + index) };
            // SAFETY: valid for reads by the invariant on `base`; volatile, since a peer may
            // write.
            *byte = unsafe { source.read_volatile() };
        }
    }

    /// Copies bytes into the page.
    ///
    /// # Panics
    /// When `offset + data.len()` leaves the page.
    pub fn write(&self, offset: usize, data: &[u8]) {
        assert!(
            offset <= PAGE_SIZE && data.len() <= PAGE_SIZE - offset,
            "range inside the page"
        );
        for (index, byte) in data.iter().enumerate() {
            // SAFETY: `offset + index` stays inside the page by the check above.
            let target = unsafe { self.base.add(offset + index) };
            // SAFETY: valid for writes by the invariant on `base`; volatile, since a peer may
            // read.
            unsafe { target.write_volatile(*byte) };
        }
    }
}
