//! The direct map: every frame of RAM at a fixed virtual offset, and raw access through it.
//!
//! [`init`] is told once where the map starts; [`ptr`] and [`hpa_of`] translate. Memory that a
//! guest or a device may write at any time is reached through [`Window`] only: its accesses are
//! atomic or done in assembly, and no Rust reference to plain data ever points there.
//!
//! On bare metal the map is `DIRECTMAP_BASE + hpa`; host tests point it at an arena.
#![expect(
    unsafe_code,
    reason = "turns host-physical addresses into memory accesses"
)]

use core::arch::asm;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use abi::{Hpa, Mfn, PAGE_SHIFT, PAGE_SIZE};
use invariant::invariant;
use pv_drivers::bytes::copy;

/// Virtual address of host-physical address 0 in the running hypervisor.
pub const DIRECTMAP_BASE: u64 = 0xffff_8000_0000_0000;

/// Virtual address of host-physical address 0. Invariant: set by [`init`] only.
static BASE: AtomicUsize = AtomicUsize::new(0);
/// First host-physical address behind the map; 0 before [`init`].
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Tells where the direct map is and how far it reaches.
///
/// # Safety
/// Every frame of RAM below `limit` that is later given to the frame table is mapped readable
/// and writable at `base + hpa`, and stays so. The map may leave anything else unmapped.
///
/// # Panics
/// When the map would start at 0 or wrap around the address space.
pub unsafe fn init(base: u64, limit: Hpa) {
    assert!(
        base != 0 && base.checked_add(limit.raw()).is_some(),
        "a map inside the address space"
    );
    BASE.store(to_usize(base), Ordering::Relaxed);
    LIMIT.store(limit.raw(), Ordering::Release);
}

/// The first host-physical address the direct map does not cover.
#[must_use]
pub fn limit() -> Hpa {
    Hpa::new(LIMIT.load(Ordering::Acquire))
}

/// The virtual address of a host-physical address.
///
/// # Panics
/// When `hpa` lies behind the map: host-physical addresses come from the frame table, never
/// from a guest.
#[inline]
#[must_use]
pub fn ptr(hpa: Hpa) -> NonNull<u8> {
    invariant!(
        hpa.raw() < LIMIT.load(Ordering::Relaxed),
        "address inside the direct map"
    );
    let address = BASE
        .load(Ordering::Relaxed)
        .wrapping_add(to_usize(hpa.raw()));
    let pointer = core::ptr::with_exposed_provenance_mut(address);
    // SAFETY: `init` checked that the map starts behind address 0 and does not wrap, and a limit
    // above `hpa` says that it ran.
    unsafe { NonNull::new_unchecked(pointer) }
}

/// The host-physical address of a pointer into the direct map.
///
/// # Panics
/// When the pointer lies outside it.
#[must_use]
pub fn hpa_of(ptr: NonNull<u8>) -> Hpa {
    let address = ptr
        .as_ptr()
        .expose_provenance()
        .wrapping_sub(BASE.load(Ordering::Relaxed));
    let hpa = Hpa::new(address as u64);
    invariant!(hpa < limit(), "pointer into the direct map");
    hpa
}

/// A 64-bit value as an index or address: the one place that narrows, and it loses nothing on
/// the only machine this runs on.
#[inline]
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits on x86-64"
)]
pub const fn to_usize(value: u64) -> usize {
    value as usize
}

/// Zeroes `count` frames from `first`.
///
/// # Safety
/// The frames are RAM in the direct map, and nobody holds a Rust reference into them.
pub(super) unsafe fn zero(first: Mfn, count: u64) {
    // SAFETY: the caller's promise covers the whole range; a frame is 512 words.
    unsafe {
        fill(
            ptr(first.hpa()).cast(),
            0,
            to_usize(count << (PAGE_SHIFT - 3)),
        )
    };
}

/// Stores `word` into `count` consecutive 64-bit words.
///
/// # Safety
/// The words are valid for writes, and nobody holds a reference to plain data among them.
pub(super) unsafe fn fill(first: NonNull<u64>, word: u64, count: usize) {
    // SAFETY: writes exactly the words of the caller's promise; the direction flag is clear on
    // entry to an asm block.
    unsafe {
        asm!(
            "rep stosq",
            inout("rcx") count => _,
            inout("rdi") first.as_ptr() => _,
            in("rax") word,
            options(nostack, preserves_flags),
        );
    }
}

/// One frame of RAM that somebody outside the Rust program may read and write at any time.
///
/// Offsets come from our own code, which masks or checks guest values first; a wrong one panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window<'a> {
    /// Invariant: page-aligned, valid for reads and writes of `PAGE_SIZE` bytes during `'a`; no
    /// Rust reference to plain data points there.
    base: NonNull<u8>,
    lives: PhantomData<&'a ()>,
}

macro_rules! atomic {
    ($name:ident, $atomic:ty, $raw:ty) => {
        #[doc = concat!("The aligned `", stringify!($raw), "` at `offset`.")]
        #[inline]
        #[must_use]
        pub fn $name(&self, offset: usize) -> &$atomic {
            let size = size_of::<$raw>();
            invariant!(
                offset % size == 0 && offset < PAGE_SIZE,
                "offset inside the page"
            );
            // SAFETY: the offset was just checked to stay inside the page.
            let field = unsafe { self.base.add(offset) };
            // SAFETY: valid by the invariant on `base` and aligned like the offset; atomics may
            // alias a peer's accesses.
            unsafe { field.cast::<$atomic>().as_ref() }
        }
    };
}

impl<'a> Window<'a> {
    /// Opens a window on the frame at `base`.
    ///
    /// # Safety
    /// `base` is the first byte of a frame in the direct map. During `'a` the frame belongs to a
    /// guest or to page tables, and nobody holds a Rust reference to plain data in it.
    #[inline]
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self {
            base,
            lives: PhantomData,
        }
    }

    atomic!(word32, AtomicU32, u32);
    atomic!(word64, AtomicU64, u64);

    /// Copies bytes out of the frame.
    ///
    /// # Panics
    /// When the range leaves the frame.
    #[inline]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        // SAFETY: `at` checked that the range stays inside the frame, which is readable by the
        // invariant on `base`; `out` is Rust memory and so never part of a window.
        unsafe {
            copy(
                out.as_mut_ptr(),
                self.at(offset, out.len()).as_ptr(),
                out.len(),
            )
        };
    }

    /// Copies bytes into the frame.
    ///
    /// # Panics
    /// When the range leaves the frame.
    #[inline]
    pub fn write(&self, offset: usize, data: &[u8]) {
        // SAFETY: `at` checked that the range stays inside the frame, which is writable by the
        // invariant on `base`; `data` is Rust memory and so never part of a window.
        unsafe {
            copy(
                self.at(offset, data.len()).as_ptr(),
                data.as_ptr(),
                data.len(),
            )
        };
    }

    /// Copies `len` bytes from another frame, or within this one.
    ///
    /// # Panics
    /// When a range leaves its frame.
    #[inline]
    pub fn copy_from(&self, offset: usize, source: &Window<'_>, source_offset: usize, len: usize) {
        let (target, source) = (self.at(offset, len), source.at(source_offset, len));
        // SAFETY: `at` checked that both ranges stay inside their frames, which are readable and
        // writable by the invariant on `base`, and no Rust memory.
        unsafe { copy(target.as_ptr(), source.as_ptr(), len) };
    }

    /// The address of `len` bytes inside the frame.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        invariant!(
            offset <= PAGE_SIZE && len <= PAGE_SIZE - offset,
            "range inside the page"
        );
        // SAFETY: the offset was just checked to stay inside the page.
        unsafe { self.base.add(offset) }
    }
}
