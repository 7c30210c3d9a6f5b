//! A guest's memory and grant table for host tests, as its back end sees them.

extern crate std;
use core::sync::atomic::Ordering::SeqCst;
use std::vec::Vec;

use abi::grant_table::{flags, v1};
use abi::{DomId, Gfn, GrantRef};

use crate::grants::Grants;
use crate::guest::gnttab;
use crate::guest::page::OwnPage;
use crate::shared_page::SharedPage;
use crate::test_page::TestPage;

/// Who the guest's pages are granted to.
pub(crate) const PEER: DomId = DomId(0);

/// The memory: page 0 is the grant table.
pub(crate) struct TestGuest(Vec<TestPage>);

impl TestGuest {
    pub(crate) fn new(pages: usize) -> Self {
        Self((0..=pages).map(|_| TestPage::new()).collect())
    }

    /// A page, from 1 on.
    pub(crate) fn page(&self, number: usize) -> OwnPage {
        assert_ne!(number, 0);
        OwnPage::new(self.0[number].view(), Gfn::new(number as u64))
    }

    /// Its grant table.
    pub(crate) fn grants(&self) -> gnttab::Grants<[SharedPage; 1]> {
        gnttab::Grants::v1([self.0[0].view()])
    }

    /// Says that the peer uses a page, or not any more.
    pub(crate) fn mark_used(&self, gref: GrantRef, used: bool) {
        let at = gref.0 as usize * v1::ENTRY_SIZE;
        let word = self.0[0].view();
        let word = word.u16(at + v1::FLAGS);
        if used {
            word.fetch_or(flags::READING, SeqCst);
        } else {
            word.fetch_and(!flags::READING, SeqCst);
        }
    }
}

impl Grants for TestGuest {
    fn with_page<R>(
        &self,
        gref: GrantRef,
        write: bool,
        act: impl FnOnce(&SharedPage) -> R,
    ) -> Option<R> {
        let at = gref.0 as usize * v1::ENTRY_SIZE;
        let table = self.0[0].view();
        let bits = table.u16(at + v1::FLAGS).load(SeqCst);
        let frame = table.u32(at + v1::FRAME).load(SeqCst) as usize;
        let is_to_peer = table.u16(at + v1::DOMID).load(SeqCst) == PEER.0;
        let is_granted = bits & flags::PERMIT_ACCESS != 0 && is_to_peer;
        if !is_granted || write && bits & flags::READONLY != 0 {
            return None;
        }
        Some(act(&self.0.get(frame)?.view()))
    }
}
