//! Single words of pages shared with the guest.

use core::sync::atomic::Ordering::SeqCst;

use pv_drivers::shared_page::SharedPage;

/// An aligned 32-bit word in a shared page; used only while the page is held.
#[derive(Clone, Copy)]
pub(super) struct Word {
    pub(super) page: SharedPage,
    pub(super) offset: usize,
}

impl Word {
    pub(super) fn load(self) -> u32 {
        self.page.u32(self.offset).load(SeqCst)
    }

    pub(super) fn store(self, value: u32) {
        self.page.u32(self.offset).store(value, SeqCst);
    }

    pub(super) fn fetch_or(self, bits: u32) -> u32 {
        self.page.u32(self.offset).fetch_or(bits, SeqCst)
    }

    pub(super) fn fetch_and(self, bits: u32) -> u32 {
        self.page.u32(self.offset).fetch_and(bits, SeqCst)
    }

    /// Stores `new` if the word still is `current`, or answers with what it is instead.
    pub(super) fn compare_exchange(self, current: u32, new: u32) -> Result<(), u32> {
        self.page
            .u32(self.offset)
            .compare_exchange(current, new, SeqCst, SeqCst)
            .map(drop)
    }
}
