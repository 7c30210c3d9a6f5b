//! Uses what `grantor` (domain `peer=`) grants it: maps, reads, writes, copies, unmaps; and finds
//! a page it has mapped as it was when its domain has ended.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use abi::grant_table::{MAP_GRANT_REF, UNMAP_GRANT_REF, map_flags, status};
use abi::{DomId, Gfn, GrantRef};
use guests::grants::{self, HOLE, Side};
use guests::mailbox::{self, Mailbox, wait};
use guests::memory::{self, Page};
use guests::report::Report;
use guests::{check, check_eq, cpu, runtime};

guests::main!(run);

static OWN: Page = Page::new();

const MARK: u64 = 0x1122_3344_5566_0000;
const MAIL_AT: Gfn = Gfn::new(0x2_1000);
/// More mappings than one invalidation serves.
const MANY: usize = 70;

fn at(index: u64) -> Gfn {
    Gfn::new(HOLE.raw() + index)
}

fn address(gfn: Gfn) -> u64 {
    gfn.gpa().raw()
}

fn run(t: &mut Report) {
    let peer = runtime::domain("peer");
    let mut handle = Err(0);
    let mapped = wait(|| {
        handle = grants::map(peer, mailbox::GREF, MAIL_AT, false);
        handle.is_ok()
    });
    check!(t, mapped, "mapping the mailbox ({handle:?})");
    let Ok(mail_handle) = handle else { return };
    let mail = Mailbox::grantee(memory::view(MAIL_AT));
    check!(t, mail.wait(1), "grants");
    mistakes(t, peer);
    let [first, second] = mapping(t, peer);
    mail.reach(1);
    check!(t, mail.wait(2), "the granter looks");
    unmapping(t, first, second);
    many(t, peer);
    mail.reach(2);
    check!(t, mail.wait(3), "grants are taken back");
    check_eq!(
        t,
        grants::map(peer, GrantRef(8), at(0), true),
        Err(status::GENERAL_ERROR),
        "a grant taken back"
    );
    copying(t, peer);
    mail.reach(3);
    check!(t, mail.wait(4), "version 2");
    second_version(t, peer, mail);
    check!(t, mail.wait(9), "the granter is done");
    let gone = || grants::map(peer, mailbox::GREF, at(0), true) == Err(status::BAD_DOMAIN);
    check!(t, wait(gone), "the granter ends");
    check!(t, mail.wait(9), "its page is still there");
    check_eq!(t, cpu::write64(address(MAIL_AT), 77), Ok(()), "writing it");
    check_eq!(t, cpu::read64(address(MAIL_AT)), Ok(77), "reading it");
    check_eq!(
        t,
        grants::unmap(mail_handle, MAIL_AT),
        status::OKAY,
        "unmapping it"
    );
    check_eq!(t, cpu::read64(address(MAIL_AT)), Ok(u64::MAX), "it is gone");
}

fn mistakes(t: &mut Report, peer: DomId) {
    let tries = [
        (DomId(999), 8, map_flags::HOST_MAP, status::BAD_DOMAIN),
        (DomId::SELF, 8, map_flags::HOST_MAP, status::BAD_DOMAIN),
        (peer, 512, map_flags::HOST_MAP, status::BAD_GNTREF),
        (peer, u32::MAX, map_flags::HOST_MAP, status::BAD_GNTREF),
        (peer, 8, 0, status::BAD_GNTREF),
        (peer, 8, map_flags::READONLY, status::BAD_GNTREF),
        (peer, 8, map_flags::DEVICE_MAP, status::GENERAL_ERROR),
        (
            peer,
            8,
            map_flags::HOST_MAP | map_flags::CONTAINS_PTE,
            status::GENERAL_ERROR,
        ),
        (
            peer,
            8,
            map_flags::HOST_MAP | map_flags::APPLICATION_MAP,
            status::GENERAL_ERROR,
        ),
        (peer, 9, map_flags::HOST_MAP, status::GENERAL_ERROR),
        (peer, 11, map_flags::HOST_MAP, status::GENERAL_ERROR),
        (peer, 300, map_flags::HOST_MAP, status::GENERAL_ERROR),
    ];
    let mut array =
        tries.map(|(dom, gref, flags, _)| grants::map_request(dom, GrantRef(gref), at(0), flags));
    check_eq!(
        t,
        grants::operate(MAP_GRANT_REF, &mut array),
        Ok(0),
        "an array of mistakes"
    );
    for (done, (dom, gref, flags, expected)) in array.iter().zip(tries) {
        check_eq!(
            t,
            done.status,
            expected,
            "mapping {gref} of {dom} with {flags:#x}"
        );
    }
    check_eq!(
        t,
        grants::unmap(999, at(0)),
        status::BAD_HANDLE,
        "no handle"
    );
    let beyond = Gfn::new(1 << 44);
    let far = grants::map(peer, GrantRef(8), beyond, false);
    check_eq!(t, far, Err(status::GENERAL_ERROR), "no such frame");
}

fn mapping(t: &mut Report, peer: DomId) -> [u32; 2] {
    let first = grants::map(peer, GrantRef(8), at(0), false);
    check!(t, first.is_ok(), "mapping to write ({first:?})");
    check_eq!(t, cpu::read64(address(at(0))), Ok(MARK), "the page's bytes");
    check_eq!(t, cpu::write64(address(at(0)) + 8, MARK), Ok(()), "writing");
    let second = grants::map(peer, GrantRef(9), at(1), true);
    check!(t, second.is_ok(), "mapping to read ({second:?})");
    check_eq!(
        t,
        cpu::read64(address(at(1))),
        Ok(MARK + 1),
        "the other page's bytes"
    );
    // Such a write is lost, as with Xen.
    check_eq!(
        t,
        cpu::write64(address(at(1)) + 8, MARK),
        Ok(()),
        "a write to it"
    );
    check_eq!(t, cpu::read64(address(at(1)) + 8), Ok(0), "is lost");
    check_eq!(
        t,
        grants::map(peer, GrantRef(8), at(1), false),
        Err(status::GENERAL_ERROR),
        "over another grant"
    );
    [first.unwrap_or(u32::MAX), second.unwrap_or(u32::MAX)]
}

fn unmapping(t: &mut Report, first: u32, second: u32) {
    check_eq!(
        t,
        grants::unmap(first, at(1)),
        status::GENERAL_ERROR,
        "not there"
    );
    let mut array = [
        grants::unmap_request(first, at(0)),
        grants::unmap_request(second, at(1)),
        grants::unmap_request(first, at(0)),
        grants::unmap_request(second, Gfn::new(0)),
    ];
    check_eq!(
        t,
        grants::operate(UNMAP_GRANT_REF, &mut array),
        Ok(0),
        "unmapping"
    );
    let statuses = array.map(|done| done.status);
    check_eq!(
        t,
        statuses,
        [0, 0, status::BAD_HANDLE, status::BAD_HANDLE],
        "each once"
    );
    check_eq!(
        t,
        cpu::read64(address(at(0))),
        Ok(u64::MAX),
        "the page is gone"
    );
    check_eq!(
        t,
        cpu::read64(address(at(1))),
        Ok(u64::MAX),
        "and the other"
    );
}

/// Arrays too long for one turn.
fn many(t: &mut Report, peer: DomId) {
    let mut index = 0;
    let mut maps = [(); MANY].map(|()| {
        index += 1;
        grants::map_request(peer, GrantRef(8), at(index), map_flags::HOST_MAP)
    });
    check_eq!(
        t,
        grants::operate(MAP_GRANT_REF, &mut maps),
        Ok(0),
        "many mappings"
    );
    let good = maps.iter().all(|done| done.status == status::OKAY);
    check!(t, good, "all of them");
    check_eq!(
        t,
        cpu::read64(address(at(MANY as u64))),
        Ok(MARK),
        "the last one"
    );
    let mut unmaps =
        maps.map(|done| grants::unmap_request(done.handle, abi::Gpa::new(done.host_addr).gfn()));
    check_eq!(
        t,
        grants::operate(UNMAP_GRANT_REF, &mut unmaps),
        Ok(0),
        "unmapping them"
    );
    let good = unmaps.iter().all(|done| done.status == status::OKAY);
    check!(t, good, "all of them");
    for index in 1..=MANY as u64 {
        check_eq!(
            t,
            cpu::read64(address(at(index))),
            Ok(u64::MAX),
            "mapping {index} is gone"
        );
    }
}

fn copying(t: &mut Report, peer: DomId) {
    let grant = |offset| Side::Grant(peer, GrantRef(10), offset);
    let own = |offset| Side::Frame(OWN.gfn(), offset);
    check_eq!(t, grants::copy(grant(0), own(0), 8), 0, "copying in");
    check_eq!(t, OWN.view().u64(0).load(SeqCst), MARK + 2, "the bytes");
    check_eq!(t, grants::copy(grant(0), grant(16), 8), 0, "copying within");
    OWN.view().u64(8).store(!MARK, SeqCst);
    check_eq!(t, grants::copy(own(8), grant(24), 8), 0, "copying out");
    check_eq!(t, grants::copy(own(0), own(100), 9), 0, "copying at home");
    check_eq!(
        t,
        OWN.view().u8(108).load(SeqCst),
        (!MARK).to_le_bytes()[0],
        "the bytes"
    );
    check_eq!(t, grants::copy(grant(0), own(0), 0), 0, "copying nothing");
    let nobody = Side::Grant(DomId(999), GrantRef(10), 0);
    check_eq!(
        t,
        grants::copy(nobody, own(0), 0),
        0,
        "nothing, from nobody"
    );
    refused_copies(t, peer);
    let mut whole = [(); 20].map(|()| grants::copy_request(grant(0), own(0), 4096));
    check_eq!(
        t,
        grants::operate(abi::grant_table::COPY, &mut whole),
        Ok(0),
        "many copies"
    );
    check!(t, whole.iter().all(|done| done.status == 0), "all of them");
}

fn refused_copies(t: &mut Report, peer: DomId) {
    let grant = |offset| Side::Grant(peer, GrantRef(10), offset);
    let own = |offset| Side::Frame(OWN.gfn(), offset);
    let nobody = Side::Grant(DomId(999), GrantRef(10), 0);
    let tries = [
        (grant(0), own(1), 4096, status::BAD_COPY_ARG),
        (grant(4096), own(0), 1, status::BAD_COPY_ARG),
        (nobody, own(0), 1, status::BAD_DOMAIN),
        (Side::Frame(at(0), 0), own(0), 1, status::BAD_PAGE),
        (
            Side::Grant(peer, GrantRef(8), 0),
            own(0),
            1,
            status::GENERAL_ERROR,
        ),
        (
            Side::Grant(peer, GrantRef(512), 0),
            own(0),
            1,
            status::BAD_GNTREF,
        ),
        (
            Side::Grant(DomId::SELF, GrantRef(8), 0),
            own(0),
            1,
            status::GENERAL_ERROR,
        ),
    ];
    let mut array = tries.map(|(source, dest, len, _)| grants::copy_request(source, dest, len));
    check_eq!(
        t,
        grants::operate(abi::grant_table::COPY, &mut array),
        Ok(0),
        "copies"
    );
    for (done, (source, .., expected)) in array.iter().zip(tries) {
        check_eq!(t, done.status, expected, "copying from {source:?}");
    }
    let mut foreign = [grants::copy_request(own(0), own(8), 1)];
    foreign[0].source.domid = peer.0;
    let called = grants::operate(abi::grant_table::COPY, &mut foreign);
    check_eq!(t, called, Ok(0), "a frame of another");
    check_eq!(
        t,
        foreign[0].status,
        status::PERMISSION_DENIED,
        "is not to be had"
    );
}

fn second_version(t: &mut Report, peer: DomId, mail: Mailbox) {
    let part = |offset| Side::Grant(peer, GrantRef(8), offset);
    let own = Side::Frame(OWN.gfn(), 0);
    check_eq!(t, grants::copy(part(32), own, 16), 0, "a part");
    check_eq!(
        t,
        grants::copy(part(31), own, 2),
        status::GENERAL_ERROR,
        "before it"
    );
    check_eq!(
        t,
        grants::copy(part(40), own, 9),
        status::GENERAL_ERROR,
        "beyond it"
    );
    let mapped = grants::map(peer, GrantRef(8), at(0), true);
    check_eq!(
        t,
        mapped,
        Err(status::GENERAL_ERROR),
        "a part is not mapped"
    );
    let handle = grants::map(peer, GrantRef(9), at(0), false);
    check!(t, handle.is_ok(), "a whole page ({handle:?})");
    check_eq!(t, cpu::read64(address(at(0))), Ok(MARK + 1), "its bytes");
    mail.reach(4);
    check!(t, mail.wait(5), "the granter looks");
    let unmapped = grants::unmap(handle.unwrap_or(u32::MAX), at(0));
    check_eq!(t, unmapped, status::OKAY, "unmapping it");
    mail.reach(5);
}
