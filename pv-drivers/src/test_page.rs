//! A page for host tests.
#![expect(unsafe_code, reason = "makes a shared view of memory of its own")]

extern crate std;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use std::boxed::Box;

use abi::PAGE_SIZE;

use crate::shared_page::SharedPage;

#[repr(C, align(4096))]
struct Aligned(UnsafeCell<[u8; PAGE_SIZE]>);

/// A zeroed page.
pub(crate) struct TestPage(Box<Aligned>);

impl TestPage {
    pub(crate) fn new() -> Self {
        Self(Box::new(Aligned(UnsafeCell::new([0; PAGE_SIZE]))))
    }

    /// The page; the view must not outlive it.
    pub(super) fn view(&self) -> SharedPage {
        let base = NonNull::from(&self.0.0).cast();
        // SAFETY: (1) page-aligned and valid by its type, for as long as `self` lives, which
        // tests see to; (2) in an `UnsafeCell` that nobody borrows.
        unsafe { SharedPage::new(base) }
    }
}
