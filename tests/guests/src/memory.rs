//! Memory by guest-physical address: the runtime maps the first 4 GiB one to one.
#![expect(unsafe_code, reason = "views of guest-physical memory")]

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use abi::{Gfn, PAGE_SIZE};
use pv_drivers::guest::page::OwnPage;
use pv_drivers::shared_page::SharedPage;

/// First address that is not mapped.
pub const MAPPED_END: u64 = 1 << 32;

/// A page of the guest's own, to be given to the hypervisor or to another vCPU.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page(UnsafeCell<[u8; PAGE_SIZE]>);

// SAFETY: the page is reached through `SharedPage` alone, which is atomic or volatile.
unsafe impl Sync for Page {}

impl Page {
    /// A page of zeroes.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; PAGE_SIZE]))
    }

    /// Its address, guest-physical and linear.
    #[must_use]
    pub fn address(&'static self) -> u64 {
        self.0.get() as u64
    }

    /// Its frame.
    #[must_use]
    pub fn gfn(&'static self) -> Gfn {
        Gfn::new(self.address() >> abi::PAGE_SHIFT)
    }

    /// The page as front ends want it.
    #[must_use]
    pub fn own(&'static self) -> OwnPage {
        OwnPage::new(self.view(), self.gfn())
    }

    /// A view of it.
    #[must_use]
    pub fn view(&'static self) -> SharedPage {
        view(self.gfn())
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

/// A view of any frame below 4 GiB.
///
/// # Panics
/// When the frame is beyond the runtime's mapping, or frame 0.
#[must_use]
pub fn view(gfn: Gfn) -> SharedPage {
    let address = gfn
        .raw()
        .checked_mul(PAGE_SIZE as u64)
        .filter(|end| *end < MAPPED_END);
    let base = address.and_then(|at| NonNull::new(at as *mut u8));
    let Some(base) = base else {
        panic!("frame {gfn} is not mapped")
    };
    // SAFETY: the frame is mapped one to one for ever; whoever asks for the view of a frame
    // leaves plain references to it alone (the guest's statics are reached by `Page` only).
    unsafe { SharedPage::new(base) }
}

/// Copies a plain value out of guest-physical memory.
#[must_use]
pub fn read<T: zerocopy::FromBytes>(gpa: u64) -> Option<T> {
    let end = gpa.checked_add(size_of::<T>() as u64)?;
    if gpa == 0 || end > MAPPED_END {
        return None;
    }
    // SAFETY: mapped one to one by the check; any bytes are a valid `T`.
    Some(unsafe { (gpa as *const T).read_unaligned() })
}

/// The bytes at `gpa` up to a NUL or the end of `buffer`.
#[must_use]
pub fn read_string(gpa: u64, buffer: &mut [u8]) -> &str {
    let mut length = 0;
    for (place, address) in buffer.iter_mut().zip(gpa..) {
        match read::<u8>(address) {
            None | Some(0) => break,
            Some(byte) => *place = byte,
        }
        length += 1;
    }
    buffer
        .get(..length)
        .and_then(|text| core::str::from_utf8(text).ok())
        .unwrap_or("")
}

/// Copies code or data to guest-physical memory that belongs to nothing else.
pub fn write(gpa: u64, data: &[u8]) {
    for (byte, address) in data.iter().zip(gpa..) {
        if address == 0 || address >= MAPPED_END {
            return;
        }
        // SAFETY: mapped one to one by the check; the caller names memory nothing else uses.
        unsafe { (address as *mut u8).write_volatile(*byte) };
    }
}
