//! Grants pages to two other domains and watches what becomes of them, in both versions.
//!
//! `grantee` (domain `peer=`) maps, copies and unmaps in step with it; `leaver` (domain `leaver=`)
//! maps a page and ends without unmapping it. Last this guest ends, with a page still mapped.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use abi::grant_table::{SWAP_GRANT_REF, SwapGrantRef, flags, status};
use abi::hypercall::GRANT_TABLE_OP;
use abi::{DomId, Errno, GrantRef};
use guests::grants::{self, Table};
use guests::mailbox::{self, Mailbox, wait};
use guests::memory::Page;
use guests::report::Report;
use guests::{check, check_eq, runtime, xen};
use pv_drivers::guest::gnttab::{self, Access, InUse};
use zerocopy::FromZeros;

guests::main!(run);

static MAIL: Page = Page::new();
static PAGES: [Page; 4] = [const { Page::new() }; 4];

const FIRST: GrantRef = GrantRef(8);
/// What the pages hold, and what the peer writes.
const MARK: u64 = 0x1122_3344_5566_0000;

fn run(t: &mut Report) {
    let (peer, leaver) = (runtime::domain("peer"), runtime::domain("leaver"));
    for (page, mark) in PAGES.iter().zip(MARK..) {
        page.view().u64(0).store(mark, SeqCst);
    }
    let Ok(mut table) = grants::table() else {
        check!(t, false, "the table's first frame");
        return;
    };
    let size = gnttab::query_size();
    check!(
        t,
        size.is_ok_and(|size| (size.nr_frames, size.max_nr_frames) == (1, 64)),
        "the table's size ({size:?})"
    );
    refused(t);
    grants::write_entry(mailbox::GREF, flags::PERMIT_ACCESS, peer, MAIL.gfn());
    let mail = Mailbox::granter(MAIL.view());
    first_version(t, &mut table, mail, peer, leaver);
    second_version(t, mail, peer);
    mail.reach(9);
}

/// What there is for PV guests only, and calls that make no sense.
fn refused(t: &mut Report) {
    for cmd in [3, 4, 7, 9, 12, 13, 1 << 12] {
        let reply = xen::call(GRANT_TABLE_OP, [cmd, 0, 0, 0, 0]);
        check!(t, is(reply, Errno::Enosys), "command {cmd} ({reply:?})");
    }
    let reply = xen::call(GRANT_TABLE_OP, [0, 0, 1 << 31, 0, 0]);
    check!(t, is(reply, Errno::Einval), "a negative count ({reply:?})");
    let reply = xen::call(GRANT_TABLE_OP, [0, 1 << 62, 1, 0, 0]);
    check!(t, is(reply, Errno::Efault), "no address ({reply:?})");
    check_eq!(
        t,
        xen::call(GRANT_TABLE_OP, [0, 1 << 62, 0, 0, 0]),
        Ok(0),
        "an empty array"
    );
    let version = gnttab::set_version(3);
    check!(t, version.is_err_and(|e| e == Errno::Einval), "version 3");
}

fn is(reply: pv_drivers::hypercall::Reply, errno: Errno) -> bool {
    reply.is_err_and(|refused| refused == errno)
}

fn first_version(t: &mut Report, table: &mut Table, mail: Mailbox, peer: DomId, leaver: DomId) {
    let given = [
        table.grant(peer, PAGES[0].gfn(), Access::Write),
        table.grant(peer, PAGES[1].gfn(), Access::Read),
        table.grant(peer, PAGES[2].gfn(), Access::Write),
        table.grant(leaver, PAGES[3].gfn(), Access::Write),
    ];
    check_eq!(
        t,
        given,
        [8, 9, 10, 11].map(|r| Some(GrantRef(r))),
        "references"
    );
    mail.reach(1);
    check!(t, mail.wait(1), "the peer maps");
    check!(t, table.is_in_use(FIRST), "a mapped grant is in use");
    check_eq!(t, table.end(FIRST), Err(InUse), "and stays");
    check_eq!(t, swap(8, 20), status::EAGAIN, "and in its place");
    check_eq!(
        t,
        PAGES[0].view().u64(8).load(SeqCst),
        MARK,
        "what the peer wrote"
    );
    check_eq!(
        t,
        PAGES[1].view().u64(8).load(SeqCst),
        0,
        "what it may not write"
    );
    mail.reach(2);
    check!(t, mail.wait(2), "the peer unmaps");
    check_eq!(t, table.end(FIRST), Ok(()), "a grant is taken back");
    check_eq!(t, table.end(GrantRef(9)), Ok(()), "and another");
    mail.reach(3);
    check!(t, mail.wait(3), "the peer copies");
    check_eq!(
        t,
        PAGES[2].view().u64(16).load(SeqCst),
        MARK + 2,
        "in the page"
    );
    check_eq!(
        t,
        PAGES[2].view().u64(24).load(SeqCst),
        !MARK,
        "into the page"
    );
    check_eq!(t, table.end(GrantRef(10)), Ok(()), "it is done with it");
    // The other one writes, and ends.
    let written = || PAGES[3].view().u64(8).load(SeqCst) == MARK;
    check!(t, wait(written), "the leaver maps");
    check!(t, wait(|| !table.is_in_use(GrantRef(11))), "its end unmaps");
    check_eq!(t, table.end(GrantRef(11)), Ok(()), "what it had mapped");
    check_eq!(t, swap(8, 20), status::OKAY, "exchanging free entries");
    check_eq!(t, swap(8, 512), status::BAD_GNTREF, "exchanging with none");
}

fn swap(a: u32, b: u32) -> i16 {
    let mut swap = SwapGrantRef::new_zeroed();
    (swap.ref_a, swap.ref_b, swap.status) = (a, b, i16::MAX);
    let mut array = [swap];
    match grants::operate(SWAP_GRANT_REF, &mut array) {
        Ok(0) => array[0].status,
        _ => 1,
    }
}

fn second_version(t: &mut Report, mail: Mailbox, peer: DomId) {
    // The mailbox stays mapped all the while.
    check_eq!(t, gnttab::set_version(2), Ok(2), "version 2");
    check_eq!(t, gnttab::version(), Ok(2), "is in force");
    let Ok(mut table) = grants::table_v2() else {
        check!(t, false, "status frames");
        return;
    };
    let busy = flags::READING | flags::WRITING;
    let reserved = mailbox::GREF.0 as usize;
    let seen = grants::status_frame().u16(reserved * 2).load(SeqCst);
    check_eq!(t, seen & busy, busy, "the mailbox's status came along");
    let part = table.grant_part(peer, PAGES[0].gfn(), Access::Read, 32, 16);
    check_eq!(t, part, Some(FIRST), "a part of a page");
    let whole = table.grant(peer, PAGES[1].gfn(), Access::Write);
    check_eq!(t, whole, Some(GrantRef(9)), "a whole page");
    mail.reach(4);
    check!(t, mail.wait(4), "the peer maps and copies");
    check!(t, table.is_in_use(GrantRef(9)), "the status says so");
    let version = gnttab::set_version(1);
    check!(
        t,
        version.is_err_and(|e| e == Errno::Ebusy),
        "no other version now"
    );
    mail.reach(5);
    check!(t, mail.wait(5), "the peer unmaps");
    check_eq!(t, table.end(GrantRef(9)), Ok(()), "the status is clear");
    check_eq!(t, gnttab::set_version(1), Ok(1), "version 1 again");
    let entry = grants::frame().u32(reserved * 8).load(SeqCst);
    let expected = u32::from(peer.0) << 16 | u32::from(flags::PERMIT_ACCESS | busy);
    check_eq!(t, entry, expected, "the mailbox's entry");
    // Gone from where it was: writing there is writing to nowhere.
    grants::status_frame().u16(0).store(1, SeqCst);
    check_eq!(
        t,
        grants::status_frame().u16(0).load(SeqCst),
        u16::MAX,
        "a status frame"
    );
}
