//! Mapping and copying between domains: rights, statuses, ownership, ends.

use super::super::ops::{Side, Span};
use super::*;
use crate::grant::testing::{Dom, RAM, doms, end_use};
use abi::grant_table::{flags, status, v1};

use crate::mm::frame::Owner;

const HOLE: u64 = 0x4000;
const BUSY: u16 = flags::READING | flags::WRITING;

fn two() -> (Dom, Dom) {
    (Dom::new(), Dom::new())
}

fn span(source: u16, dest: u16, length: u16) -> Span {
    Span {
        source,
        dest,
        length,
    }
}

#[test]
fn a_mapped_page_is_shared_until_it_is_unmapped() {
    let (a, b) = two();
    a.write(3, 77);
    a.grant(9, b.id, 3, false);
    let handle = b.map(&a, 9, HOLE, true).unwrap();
    assert_eq!(b.read(HOLE), Some(77));
    assert!(b.write(HOLE, 78));
    assert_eq!(
        (a.read(3), b.owner_of(HOLE)),
        (Some(78), Some(Owner::Domain(a.id)))
    );
    assert_eq!(a.flags(9) & BUSY, BUSY);
    assert!(!a.end(9), "in use");
    assert_eq!((a.busy(), b.mappings()), (1, 1));
    assert_eq!(b.unmap(&[&a], handle, HOLE + 1), Err(status::GENERAL_ERROR));
    assert_eq!(b.unmap(&[&a], handle, HOLE), Ok(()));
    assert_eq!(b.unmap(&[&a], handle, HOLE), Err(status::BAD_HANDLE));
    assert_eq!((b.read(HOLE), a.busy(), b.mappings()), (None, 0, 0));
    assert!(a.end(9));
}

#[test]
fn a_read_only_mapping_cannot_be_written() {
    let (a, b) = two();
    a.grant(9, b.id, 3, true);
    assert_eq!(b.map(&a, 9, HOLE, true), Err(status::GENERAL_ERROR));
    assert_eq!(a.flags(9) & BUSY, 0, "a refused use leaves no mark");
    let handle = b.map(&a, 9, HOLE, false).unwrap();
    assert!(!b.write(HOLE, 1));
    assert_eq!(a.flags(9) & BUSY, flags::READING);
    // More rights while it is in use, where the entry says so.
    assert_eq!(b.map(&a, 9, HOLE + 1, true), Err(status::GENERAL_ERROR));
    a.entries
        .u16(9 * v1::ENTRY_SIZE)
        .fetch_and(!flags::READONLY, SeqCst);
    let second = b.map(&a, 9, HOLE + 1, true).unwrap();
    assert_eq!(a.flags(9) & BUSY, BUSY);
    b.unmap(&[&a], second, HOLE + 1).unwrap();
    assert_eq!(a.flags(9) & BUSY, flags::READING);
    b.unmap(&[&a], handle, HOLE).unwrap();
    assert_eq!(a.flags(9) & BUSY, 0);
}

#[test]
fn what_a_vcpu_remembers_of_a_mapping_goes_with_it() {
    let (a, b) = two();
    a.write(3, 33);
    a.write(4, 44);
    a.grant(9, b.id, 3, false);
    a.grant(10, b.id, 4, true);
    // In a hole; the same place without the right to write, or nothing at all.
    let handle = b.map(&a, 9, HOLE, true).unwrap();
    assert!(b.write(HOLE, 34));
    b.unmap(&[&a], handle, HOLE).unwrap();
    assert_eq!((b.read(HOLE), b.write(HOLE, 1)), (None, false));
    let handle = b.map(&a, 10, HOLE, false).unwrap();
    assert_eq!((b.read(HOLE), b.write(HOLE, 1)), (Some(44), false));
    b.unmap(&[&a], handle, HOLE).unwrap();
    // In place of the mapper's own memory.
    assert!(b.write(5, 55));
    let handle = b.map(&a, 10, 5, false).unwrap();
    assert_eq!((b.read(5), b.write(5, 1)), (Some(44), false));
    let (mapping, flush) = b.take_out(handle, 5).unwrap();
    assert_eq!(b.read(5), None, "before the invalidation");
    flush.done();
    end_use(&[&a], mapping);
    // What the granter gives up while it is mapped.
    let handle = b.map(&a, 9, HOLE, true).unwrap();
    a.party().p2m.write().remove(Gfn::new(3)).unwrap().done();
    assert_eq!((a.read(3), b.read(HOLE)), (None, Some(34)));
    b.die(&[&a]);
    assert_eq!((b.read(HOLE), b.read(2), handle), (None, None, 0));
}

#[test]
fn each_mistake_has_its_status() {
    let (a, b) = two();
    let c = Dom::new();
    a.grant(9, b.id, 3, false);
    a.grant(10, b.id, u32::MAX, false);
    a.grant(11, b.id, u32::try_from(RAM).unwrap(), false);
    assert_eq!(b.map(&a, 512, HOLE, true), Err(status::BAD_GNTREF));
    assert_eq!(b.map(&a, u32::MAX, HOLE, true), Err(status::BAD_GNTREF));
    assert_eq!(b.map(&a, 8, HOLE, true), Err(status::GENERAL_ERROR));
    assert_eq!(c.map(&a, 9, HOLE, true), Err(status::GENERAL_ERROR));
    assert_eq!(b.map(&a, 10, HOLE, true), Err(status::BAD_PAGE));
    assert_eq!(b.map(&a, 11, HOLE, true), Err(status::BAD_PAGE));
    assert_eq!(b.map(&a, 9, 1 << 50, true), Err(status::GENERAL_ERROR));
    assert_eq!([9, 10, 11].map(|gref| a.flags(gref) & BUSY), [0; 3]);
    let handle = b.map(&a, 9, HOLE, true).unwrap();
    // Where a grant is mapped, no other page comes in its place.
    assert_eq!(b.map(&a, 9, HOLE, true), Err(status::GENERAL_ERROR));
    // What is mapped is not the mapper's to grant.
    b.grant(9, c.id, u32::try_from(HOLE).unwrap(), false);
    assert_eq!(c.map(&b, 9, HOLE, true), Err(status::BAD_PAGE));
    b.unmap(&[&a], handle, HOLE).unwrap();
    assert_eq!((a.busy(), b.mappings()), (0, 0));
}

#[test]
fn handles_run_out_and_come_back() {
    let (a, b) = two();
    a.grant(9, b.id, 3, false);
    for number in 0..256 {
        assert_eq!(b.map(&a, 9, HOLE + u64::from(number), true), Ok(number));
    }
    assert_eq!(b.map(&a, 9, 1 << 20, true), Err(status::NO_SPACE));
    b.unmap(&[&a], 7, HOLE + 7).unwrap();
    assert_eq!(b.map(&a, 9, 1 << 20, false), Ok(7));
    b.die(&[&a]);
    assert_eq!((a.busy(), a.flags(9) & BUSY), (0, 0));
    a.die(&[]);
    assert_eq!((a.owned(), b.owned()), (0, 0));
}

#[test]
fn later_uses_see_the_page_of_the_first() {
    let (a, b) = two();
    a.write(3, 33);
    a.write(4, 44);
    a.grant(9, b.id, 3, false);
    let first = b.map(&a, 9, HOLE, false).unwrap();
    a.grant(9, b.id, 4, false);
    let second = b.map(&a, 9, HOLE + 1, false).unwrap();
    assert_eq!(b.read(HOLE + 1), Some(33));
    b.unmap(&[&a], first, HOLE).unwrap();
    b.unmap(&[&a], second, HOLE + 1).unwrap();
    a.grant(9, b.id, 4, false);
    b.map(&a, 9, HOLE, false).unwrap();
    assert_eq!(b.read(HOLE), Some(44));
}

#[test]
fn a_page_outlives_its_granter_while_it_is_mapped() {
    let (a, b) = two();
    a.write(3, 77);
    a.grant(9, b.id, 3, false);
    let handle = b.map(&a, 9, HOLE, true).unwrap();
    a.die(&[&b]);
    assert_eq!((b.read(HOLE), a.owned()), (Some(77), 1));
    assert_eq!(b.map(&a, 9, HOLE + 1, true), Err(status::BAD_DOMAIN));
    b.unmap(&[], handle, HOLE).unwrap();
    assert_eq!(a.owned(), 0);
}

#[test]
fn an_end_in_the_middle_of_an_unmapping_ends_the_use_once() {
    let (a, b) = two();
    a.grant(9, b.id, 3, false);
    let handle = b.map(&a, 9, HOLE, true).unwrap();
    let (mapping, flush) = b.take_out(handle, HOLE).unwrap();
    a.die(&[&b]);
    assert_eq!(a.owned(), 1, "a pCPU may still reach it");
    flush.done();
    end_use(&[&a], mapping);
    assert_eq!((a.owned(), b.mappings()), (0, 0));
}

#[test]
fn copies_go_between_grants_and_frames() {
    let dom = doms::<3>();
    let [a, b, c] = &dom[..] else { unreachable!() };
    a.write(3, 0x1122_3344_5566_7788);
    a.grant(9, c.id, 3, true);
    b.grant(9, c.id, 5, false);
    // Between two others, to its own, from its own, and in one page.
    assert_eq!(c.copy(a.side(9), b.side(9), span(0, 8, 8)), Ok(()));
    assert_eq!(c.copy(b.side(9), b.side(9), span(8, 0, 4)), Ok(()));
    assert_eq!(b.read(5), Some(0x5566_7788));
    let own = Side::Frame(Gfn::new(2));
    assert_eq!(c.copy(a.side(9), own, span(2, 0, 6)), Ok(()));
    assert_eq!(c.read(2), Some(0x1122_3344_5566));
    assert_eq!(c.copy(own, b.side(9), span(0, 1, 3)), Ok(()));
    assert_eq!(b.read(5), Some(0x4455_6688));
    assert_eq!([a.flags(9), b.flags(9)].map(|flags| flags & BUSY), [0; 2]);
}

#[test]
fn copies_stay_within_what_is_granted() {
    let (a, b) = two();
    a.grant(9, b.id, 3, true);
    let own = Side::Frame(Gfn::new(2));
    let from = |span| b.copy(a.side(9), own, span);
    assert_eq!(from(span(0, 0, 4096)), Ok(()));
    assert_eq!(from(span(1, 0, 4096)), Err(status::BAD_COPY_ARG));
    assert_eq!(from(span(0, 4095, 2)), Err(status::BAD_COPY_ARG));
    assert_eq!(
        from(span(u16::MAX, u16::MAX, u16::MAX)),
        Err(status::BAD_COPY_ARG)
    );
    assert_eq!(
        b.copy(own, a.side(9), span(0, 0, 1)),
        Err(status::GENERAL_ERROR)
    );
    assert_eq!(
        b.copy(a.side(10), own, span(0, 0, 1)),
        Err(status::GENERAL_ERROR)
    );
    assert_eq!(
        b.copy(a.side(600), own, span(0, 0, 1)),
        Err(status::BAD_GNTREF)
    );
    let nothing = Side::Frame(Gfn::new(RAM));
    assert_eq!(
        b.copy(a.side(9), nothing, span(0, 0, 1)),
        Err(status::BAD_PAGE)
    );
    assert_eq!((a.flags(9) & BUSY, a.busy()), (0, 0));
    // A page that is mapped read-only is no destination.
    b.map(&a, 9, HOLE, false).unwrap();
    let mapped = Side::Frame(Gfn::new(HOLE));
    assert_eq!(b.copy(own, mapped, span(0, 0, 1)), Err(status::BAD_PAGE));
    assert_eq!(b.copy(mapped, own, span(0, 0, 1)), Ok(()));
}

#[test]
fn a_part_of_a_page_can_be_copied_but_not_mapped() {
    let (a, b) = two();
    a.party().table.lock().set_version(2).unwrap();
    let own = Side::Frame(Gfn::new(2));
    // 16 bytes from offset 32 of page 3.
    a.entries.u64(9 * 16 + 8).store(3, SeqCst);
    a.entries.u32(9 * 16 + 4).store(16 << 16 | 32, SeqCst);
    let header = u32::from(b.id.0) << 16 | u32::from(flags::PERMIT_ACCESS | flags::SUB_PAGE);
    a.entries.u32(9 * 16).store(header, SeqCst);
    let from = |span| b.copy(a.side(9), own, span);
    assert_eq!(from(span(32, 0, 16)), Ok(()));
    assert_eq!(from(span(31, 0, 2)), Err(status::GENERAL_ERROR));
    assert_eq!(from(span(40, 0, 9)), Err(status::GENERAL_ERROR));
    assert_eq!(b.map(&a, 9, HOLE, false), Err(status::GENERAL_ERROR));
    // A grant that stands for another's is refused.
    a.entries.u32(9 * 16).store(header | 3, SeqCst);
    assert_eq!(from(span(32, 0, 1)), Err(status::GENERAL_ERROR));
    let whole = u32::from(b.id.0) << 16 | u32::from(flags::PERMIT_ACCESS);
    a.entries.u32(9 * 16).store(whole, SeqCst);
    let handle = b.map(&a, 9, HOLE, true).unwrap();
    let table = a.party().table;
    let status_of = || {
        let (page, _) = table.lock().frame(abi::memory::GRANT_TABLE_STATUS).unwrap();
        page.u16(9 * 2).load(SeqCst)
    };
    assert_eq!(status_of(), BUSY);
    assert_eq!(table.lock().set_version(1), Err(abi::Errno::Ebusy));
    assert_eq!(
        table.lock().swap(GrantRef(9), GrantRef(10)),
        Err(status::EAGAIN)
    );
    b.unmap(&[&a], handle, HOLE).unwrap();
    assert_eq!(status_of(), 0);
    assert_eq!(table.lock().swap(GrantRef(9), GrantRef(10)), Ok(()));
    assert_eq!(a.entries.u32(10 * 16).load(SeqCst), whole);
    assert_eq!(a.entries.u64(9 * 16).load(SeqCst), 0);
    assert_eq!(
        table.lock().swap(GrantRef(9), GrantRef(256)),
        Err(status::BAD_GNTREF)
    );
}
