//! A place in guest memory that stays where it is.

use abi::PAGE_SIZE;
use heapless::Vec;

use super::page::PageRef;

/// Bytes in one or two pages that need not lie beside each other, held as long as this lives.
///
/// For what the hypervisor writes at times when other page tables may be in use than those by
/// which the guest named the place.
#[derive(Clone, Debug)]
pub struct Span {
    pages: Vec<PageRef, 2>,
    offset: usize,
    size: usize,
}

impl Span {
    /// `size` bytes that begin at `offset` of the first page. `None` when they do not fit into
    /// the pages.
    #[must_use]
    pub fn new(pages: Vec<PageRef, 2>, offset: usize, size: usize) -> Option<Self> {
        let room = pages.len().checked_mul(PAGE_SIZE)?;
        (offset < PAGE_SIZE && offset.checked_add(size)? <= room).then_some(Self {
            pages,
            offset,
            size,
        })
    }

    /// Writes at a place in it; what does not fit is left out.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let bytes = bytes.get(..bytes.len().min(self.size.saturating_sub(at)));
        let mut rest = bytes.unwrap_or_default();
        let mut at = self.offset.saturating_add(at);
        while let Some(page) = self.pages.get(at / PAGE_SIZE) {
            let offset = at % PAGE_SIZE;
            let here = rest.len().min(PAGE_SIZE.saturating_sub(offset));
            let (piece, after) = rest.split_at(here);
            page.write(offset, piece);
            if after.is_empty() {
                return;
            }
            rest = after;
            at = at.saturating_add(here);
        }
    }
}
