//! Pages that the hypervisor itself has in use.

use abi::grant_table::{flags, status};

use super::super::testing::Dom;
use super::super::{HeldPage, Use};
use super::*;

const BACK_END: DomId = DomId(0);
const BUSY: u16 = flags::READING | flags::WRITING;

const fn wish(gref: u32, write: bool) -> Use {
    Use {
        gref: GrantRef(gref),
        grantee: BACK_END,
        write,
        whole: true,
    }
}

#[test]
fn a_held_page_is_in_use_until_it_is_dropped() {
    let a = Dom::new();
    a.write(3, 7);
    a.grant(9, BACK_END, 3, false);
    let held = HeldPage::new(a.party(), wish(9, true)).unwrap();
    assert_eq!((a.flags(9) & BUSY, a.end(9)), (BUSY, false));
    let word = held.page().unwrap().u64(0);
    assert_eq!(word.swap(9, SeqCst), 7);
    assert_eq!(a.read(3), Some(9));
    // A second use beside it, which may only read.
    let second = HeldPage::new(a.party(), wish(9, false)).unwrap();
    drop(held);
    assert_eq!((a.flags(9) & BUSY, a.busy()), (flags::READING, 1));
    drop(second);
    assert_eq!((a.busy(), a.end(9)), (0, true));
}

#[test]
fn a_held_page_gives_no_more_than_was_granted() {
    let a = Dom::new();
    a.grant(9, BACK_END, 3, true);
    let refused = HeldPage::new(a.party(), wish(9, true)).map(drop);
    assert_eq!(refused, Err(status::GENERAL_ERROR));
    let held = HeldPage::new(a.party(), wish(9, false)).unwrap();
    let granted = |offset, length| held.bytes(offset, length).is_ok();
    assert!(granted(0, 4096) && granted(4080, 16) && granted(4096, 0));
    assert!(!granted(4081, 16) && !granted(4097, 0) && !granted(usize::MAX, 16));
    assert!(!granted(0, 4097) && !granted(16, usize::MAX));
}

#[test]
fn a_held_page_outlives_its_granter() {
    let a = Dom::new();
    a.write(3, 7);
    a.grant(9, BACK_END, 3, false);
    let held = HeldPage::new(a.party(), wish(9, true)).unwrap();
    a.die(&[]);
    assert_eq!(a.owned(), 1);
    assert_eq!(held.page().unwrap().u64(0).load(SeqCst), 7);
    drop(held);
    assert_eq!(a.owned(), 0);
}
