//! The p2m over the test arena: every frame comes back, whatever was done.

use core::sync::atomic::{AtomicU16, Ordering};

use super::*;
use crate::mm::frame::Owner;
use crate::mm::testing;

const LIMITS: Limits = Limits {
    address_bits: 40,
    large: true,
    giant: true,
    table_frames: u32::MAX,
};

/// A domain id no other test uses, so that its frames can be counted.
fn domain() -> DomId {
    static NEXT: AtomicU16 = AtomicU16::new(0x100);
    DomId(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn p2m() -> (P2m, DomId) {
    testing::init();
    let domain = domain();
    (P2m::new(domain, LIMITS).expect("a root"), domain)
}

fn ram(domain: DomId) -> u64 {
    frames().owned_by(domain).memory
}

fn nothing_left(domain: DomId) {
    assert_eq!(frames().owned_by(domain).memory, 0);
    assert_eq!(frames().owned_by(domain).tables, 0);
}

/// Checks and serves a token as the hypervisor does.
fn serve(flush: Flush, needed: bool) {
    assert!(flush.is_needed() || !needed);
    flush.done();
}

/// Answers an EPT violation, in as many steps as that takes.
fn fault(p2m: &P2m, gfn: Gfn, perms: Perms) -> Fault {
    let mut done = 0;
    loop {
        match p2m.fault(gfn, perms, &mut done) {
            Fault::Unfinished => {}
            found => return found,
        }
    }
}

#[test]
fn a_first_touch_goes_in_steps_and_passes_what_is_in_use() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(0), 512, Backing::OnTouch)
        .expect("room");
    let gfn = Gfn::new(77);
    let page = p2m.pin(gfn).expect("RAM");
    assert_eq!(page.u64(8).load(Ordering::Relaxed), 0);
    page.u64(8).store(1, Ordering::Relaxed);
    assert_eq!(p2m.fault(gfn, Perms::READ, &mut 0), Fault::Unfinished);
    // Whoever comes back begins anew, and whoever remembers wrongly leaves nothing out.
    let mut done = 400;
    assert_eq!(p2m.fault(gfn, Perms::READ, &mut done), Fault::Unfinished);
    let mut steps = 0;
    while p2m.fault(gfn, Perms::READ, &mut done) == Fault::Unfinished {
        let leaf = p2m.ept.lookup(gfn).expect("mapped");
        assert_eq!(leaf.attr.perms, Perms::empty());
        steps += 1;
    }
    assert!((13..=16).contains(&steps), "{steps}");
    let mfn = p2m.lookup(Gfn::new(0)).expect("mapped").mfn;
    assert!((0..512).all(|frame| frames().is_exposed(Mfn::new(mfn.raw() + frame))));
    assert_eq!(p2m.pin(gfn).expect("RAM").u64(8).load(Ordering::Relaxed), 1);
    drop((page, p2m));
    nothing_left(domain);
}

#[test]
fn ram_on_touch_is_scrubbed_at_the_first_touch() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(0), 1024 + 3, Backing::OnTouch)
        .expect("room");
    assert_eq!((p2m.ram_pages(), ram(domain)), (1027, 1027));
    assert_eq!(p2m.highest_gfn(), Gfn::new(1026));
    let gfn = Gfn::new(700);
    let leaf = p2m.ept.lookup(gfn).expect("mapped");
    assert_eq!(
        (leaf.size, leaf.attr.perms),
        (PageSize::Size2M, Perms::empty())
    );

    assert_eq!(fault(&p2m, gfn, Perms::WRITE), Fault::Resolved);
    let leaf = p2m.ept.lookup(gfn).expect("mapped");
    assert_eq!((leaf.size, leaf.attr.perms), (PageSize::Size2M, Perms::RWX));
    let cache = PageCache::new();
    let page = Pages::new(&p2m, &cache).page(gfn).expect("memory");
    let mut bytes = [1; 4096];
    page.read(0, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0));
    // A second fault finds all done and leaves the bytes alone.
    page.write(8, &[7]);
    assert_eq!(fault(&p2m, Gfn::new(701), Perms::READ), Fault::Resolved);
    page.read(8, &mut bytes[..1]);
    assert_eq!(bytes[0], 7);

    assert!(
        p2m.ept
            .lookup(Gfn::new(3))
            .expect("mapped")
            .attr
            .perms
            .is_empty()
    );
    assert_eq!(fault(&p2m, Gfn::new(5000), Perms::READ), Fault::Hole);
    assert_eq!(fault(&p2m, Gfn::new(u64::MAX), Perms::READ), Fault::Hole);
    drop(p2m);
    nothing_left(domain);
}

#[test]
fn no_frame_number_finds_an_empty_entry() {
    let (mut p2m, _) = p2m();
    p2m.populate(Gfn::new(0), 4, Backing::Now).expect("room");
    let cache = PageCache::new();
    let found = |p2m: &P2m, gfn: u64| Pages::new(p2m, &cache).page(Gfn::new(gfn)).is_some();
    let nowhere = |p2m: &P2m| (0..100).all(|low| !found(p2m, u64::MAX - low));
    assert!(nowhere(&p2m));
    for gfn in 0..4 {
        assert!(found(&p2m, gfn));
        // Its entry becomes empty.
        serve(p2m.remove(Gfn::new(gfn)).expect("RAM"), true);
        assert!(nowhere(&p2m) && !found(&p2m, gfn));
    }
}

#[test]
fn what_was_remembered_of_an_earlier_state_is_not_used() {
    let (mut p2m, _) = p2m();
    p2m.populate(Gfn::new(0), 4, Backing::Now).expect("room");
    let (mut other, _) = self::p2m();
    other.populate(Gfn::new(0), 4, Backing::Now).expect("room");
    let cache = PageCache::new();
    let byte = |p2m: &P2m, gfn: u64| {
        let page = Pages::new(p2m, &cache).page(Gfn::new(gfn))?;
        let mut byte = [0];
        page.read(0, &mut byte);
        Some(byte[0])
    };
    for (p2m, value) in [(&p2m, 1), (&other, 2)] {
        for gfn in 0..4 {
            let page = Pages::new(p2m, &cache)
                .writable_page(Gfn::new(gfn))
                .expect("RAM");
            page.write(0, &[value]);
        }
    }
    // Another p2m's pages are not taken for this one's, with the same cache in use for both.
    assert_eq!((byte(&p2m, 1), byte(&other, 1)), (Some(1), Some(2)));
    assert_eq!((byte(&p2m, 33), byte(&p2m, 1)), (None, Some(1)));
    serve(p2m.remove(Gfn::new(1)).expect("RAM"), true);
    assert_eq!((byte(&p2m, 1), byte(&p2m, 2)), (None, Some(1)));
    // A page in a hole changes nothing that is remembered.
    let before = p2m.state.number();
    let page = PageRef::alloc(Owner::Domain(DomId(9))).expect("room");
    page.write(0, &[4]);
    let flush = p2m.insert_page(Gfn::new(33), page, PageKind::Foreign, Perms::RW);
    serve(flush.expect("a hole"), false);
    assert_eq!((byte(&p2m, 33), byte(&p2m, 2)), (Some(4), Some(1)));
    assert_eq!(p2m.state.number(), before);
    // A page in its place is another one.
    let page = PageRef::alloc(Owner::Domain(DomId(9))).expect("room");
    page.write(0, &[3]);
    let flush = p2m.insert_page(Gfn::new(2), page, PageKind::Shared, Perms::READ);
    serve(flush.expect("no grant"), true);
    assert_eq!(byte(&p2m, 2), Some(3));
    assert!(
        Pages::new(&p2m, &cache)
            .writable_page(Gfn::new(2))
            .is_none()
    );
}

/// The arena has one block of 1 GiB: who uses it holds this.
static GIANT: Mutex<()> = Mutex::new(());

const fn counts(giant: u64, large: u64, small: u64) -> PageCounts {
    PageCounts {
        giant,
        large,
        small,
    }
}

#[test]
fn best_page_sizes_are_used() {
    let _giant = GIANT.lock();
    let (mut p2m, domain) = p2m();
    let giant = PageSize::Size1G.frames();
    let on_touch = |p2m: &mut P2m, gfn, count| {
        p2m.populate_in_steps(Gfn::new(gfn), count, Backing::OnTouch, &mut || ())
    };
    assert_eq!(on_touch(&mut p2m, 3 * giant, 1025), Ok(counts(0, 2, 1)));
    assert_eq!(
        on_touch(&mut p2m, 4 * giant + 511, 514),
        Ok(counts(0, 1, 2))
    );
    assert_eq!(on_touch(&mut p2m, 5 * giant, 511), Ok(counts(0, 0, 511)));
    drop(p2m);
    nothing_left(domain);

    let no_giant = Limits {
        giant: false,
        ..LIMITS
    };
    let mut p2m = P2m::new(domain, no_giant).expect("a root");
    let placed = p2m.populate_in_steps(Gfn::new(0), 1025, Backing::Now, &mut || ());
    assert_eq!(placed, Ok(counts(0, 2, 1)));
    drop(p2m);
    nothing_left(domain);

    let no_large = Limits {
        large: false,
        giant: false,
        ..LIMITS
    };
    let mut p2m = P2m::new(domain, no_large).expect("a root");
    assert_eq!(on_touch(&mut p2m, 0, 512), Ok(counts(0, 0, 512)));
    drop(p2m);
    nothing_left(domain);
}

#[test]
fn ram_from_the_start_is_one_giant_page_until_a_part_of_it_changes() {
    let _giant = GIANT.lock();
    let (mut p2m, domain) = p2m();
    let giant = PageSize::Size1G.frames();
    // 2 MiB and a page below the first border, and more above than there is a second block for.
    let (start, count) = (Gfn::new(giant - 513), 513 + giant + 512 + 7);
    let mut steps = 0;
    let placed = p2m.populate_in_steps(start, count, Backing::Now, &mut || steps += 1);
    assert_eq!(placed, Ok(counts(1, 2, 8)));
    // A step writes 2,048 records or zeroes 32 frames.
    assert!(steps > count / 2048 + count / 32, "{steps} steps");
    assert_eq!(p2m.ram_pages(), count);
    assert_eq!(ram(domain), count);
    let size = |p2m: &P2m, gfn| p2m.ept.entry(Gfn::new(gfn)).expect("mapped").1;
    assert_eq!(size(&p2m, giant + 4321), PageSize::Size1G);
    for gfn in [start.raw(), giant, 2 * giant - 1, 2 * giant + 518].map(Gfn::new) {
        assert_eq!(fault(&p2m, gfn, Perms::RWX), Fault::Resolved);
        let page = p2m.pin(gfn).expect("RAM");
        assert_eq!(page.u32(8).load(Ordering::Relaxed), 0, "{gfn:?}");
        page.u32(8).store(7, Ordering::Relaxed);
    }

    // One page goes, another's page comes where it was: the rest stays what it was.
    let hole = Gfn::new(giant + 4321);
    serve(p2m.remove(hole).expect("RAM"), true);
    assert_eq!(size(&p2m, giant + 4322), PageSize::Size4K);
    assert_eq!(size(&p2m, giant), PageSize::Size2M);
    assert_eq!((p2m.lookup(hole), ram(domain)), (None, count - 1));
    let mut flush = p2m.batch();
    let foreign = testing::page(Owner::Hypervisor);
    p2m.insert_foreign(hole, foreign, Perms::RW, &mut flush)
        .expect("room");
    p2m.remove_foreign(hole, &mut flush).expect("mapped");
    serve(flush, true);
    for gfn in [giant, 2 * giant - 1].map(Gfn::new) {
        let page = p2m.pin(gfn).expect("RAM");
        assert_eq!(page.u32(8).load(Ordering::Relaxed), 7);
    }
    drop(p2m);
    nothing_left(domain);
}

#[test]
fn a_giant_page_goes_in_steps() {
    let _giant = GIANT.lock();
    let giant = PageSize::Size1G.frames();
    let (mut p2m, domain) = p2m();
    let mapped = p2m.place(Gfn::new(giant), PageSize::Size1G, &mut || ());
    assert_eq!(mapped, Ok(true));
    p2m.ram = giant;

    // By a guest's own hand: not more than 2 MiB at once, until the budget is used up.
    let (mut budget, mut flush) = (20_000, p2m.batch());
    let gone = p2m.remove_extent(Gfn::new(giant), giant, &mut budget, &mut flush);
    assert_eq!((gone, budget), (Ok(1024), 0));
    serve(flush, false);
    assert_eq!(ram(domain), giant - 1024);
    drop(p2m);
    nothing_left(domain);

    // At the end of the domain, whole or cut short.
    for steps in [512, 3] {
        let mut p2m = P2m::new(domain, LIMITS).expect("a root");
        let mapped = p2m.place(Gfn::new(giant), PageSize::Size1G, &mut || ());
        assert_eq!(mapped, Ok(true));
        let mut from = Gfn::new(0);
        assert!(!p2m.release(&mut from));
        for step in 1..=steps {
            assert_eq!(ram(domain), giant - (step - 1) * 512);
            let _ = p2m.release(&mut from);
        }
        drop(p2m);
        nothing_left(domain);
    }
}

#[test]
fn populate_refuses_what_is_mapped_or_outside() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(100), 1, Backing::Now).expect("room");
    let mut populate = |gfn, count| p2m.populate(Gfn::new(gfn), count, Backing::Now);
    assert_eq!(populate(0, 101), Err(Errno::Eexist));
    assert_eq!(populate(1 << 28, 1), Err(Errno::Einval));
    assert_eq!(populate((1 << 28) - 1, 2), Err(Errno::Einval));
    assert_eq!(populate(u64::MAX, 1), Err(Errno::Einval));
    assert_eq!(populate(5, u64::MAX), Err(Errno::Einval));
    assert_eq!(populate(5, 0), Ok(()));
    assert_eq!(populate((1 << 28) - 1, 1), Ok(()));
    assert_eq!(ram(domain), 2);
}

#[test]
fn shared_info_over_ram_frees_the_ram() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(0), 512, Backing::Now).expect("room");
    let page = testing::page(Owner::Hypervisor);
    let gfn = Gfn::new(0x42);
    let flush = p2m
        .insert_page(gfn, page.clone(), PageKind::Shared, Perms::RW)
        .expect("placed");
    // The old page waits for the invalidation.
    assert_eq!(ram(domain), 512);
    serve(flush, true);
    assert_eq!((p2m.ram_pages(), ram(domain)), (511, 511));
    let entry = P2mEntry {
        mfn: page.mfn(),
        kind: PageKind::Shared,
        writable: true,
    };
    assert_eq!(p2m.lookup(gfn), Some(entry));
    assert_eq!(fault(&p2m, gfn, Perms::EXEC), Fault::Denied(entry));
    assert_eq!(p2m.pin(gfn).err(), Some(Errno::Eacces));
    // Moving it: the page survives, since it is also held elsewhere.
    serve(p2m.remove(gfn).expect("there"), true);
    assert_eq!(p2m.remove(gfn).err(), Some(Errno::Enoent));
    let flush = p2m.insert_page(
        Gfn::new(0x8_0000),
        page.clone(),
        PageKind::Shared,
        Perms::RW,
    );
    serve(flush.expect("placed"), false);
    assert_eq!(p2m.highest_gfn(), Gfn::new(0x8_0000));
    drop(p2m);
    nothing_left(domain);
    assert_eq!(page.owner(), Some(Owner::Hypervisor));
}

#[test]
fn pinned_ram_outlives_its_mapping_and_its_domain() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(0), 512, Backing::OnTouch)
        .expect("room");
    let page = p2m.pin(Gfn::new(9)).expect("RAM");
    page.u64(0).store(99, Ordering::Relaxed);
    // The guest has not touched it yet.
    serve(p2m.remove(Gfn::new(9)).expect("there"), false);
    assert_eq!(p2m.pin(Gfn::new(9)).err(), Some(Errno::Enoent));
    assert_eq!(ram(domain), 512);
    drop(p2m);
    assert_eq!(ram(domain), 1);
    assert_eq!(page.u64(0).load(Ordering::Relaxed), 99);
    assert_eq!(page.owner(), Some(Owner::Domain(domain)));
    drop(page);
    nothing_left(domain);
}

#[test]
fn what_stays_is_remembered_and_what_went_is_not() {
    const PAGES: u64 = 1024 + 32;
    let (mut p2m, _) = p2m();
    p2m.populate(Gfn::new(0), PAGES, Backing::Now)
        .expect("room");
    let cache = PageCache::new();
    let is_there = |p2m: &P2m, gfn| Pages::new(p2m, &cache).page(gfn).is_some();
    // Few enough to be known one by one, too many for that, and one page of many frames.
    for (first, count) in [(1024, 3), (1030, 20), (0, 512), (600, 1)] {
        for gfn in (0..PAGES).map(Gfn::new) {
            assert_eq!(is_there(&p2m, gfn), p2m.lookup(gfn).is_some());
        }
        let (mut flush, first) = (p2m.batch(), Gfn::new(first));
        let gone = p2m.remove_extent(first, count, &mut { u64::MAX }, &mut flush);
        assert_eq!(gone, Ok(count));
        flush.done();
        // The cache has the last frames: they are looked at as they are remembered.
        for gfn in (0..PAGES).rev().map(Gfn::new) {
            assert_eq!(is_there(&p2m, gfn), p2m.lookup(gfn).is_some());
        }
    }
}

#[test]
fn memory_comes_where_grants_were_mapped() {
    let (mut p2m, domain) = p2m();
    let map = |p2m: &mut P2m, gfn| {
        let page = testing::page(Owner::Hypervisor);
        let placed = p2m.insert_page(Gfn::new(gfn), page, PageKind::Foreign, Perms::RW);
        serve(placed.expect("placed"), false);
    };
    map(&mut p2m, 512);
    let tables = frames().owned_by(domain).tables;
    serve(
        remove_foreign(&mut p2m, Gfn::new(512)).expect("there"),
        true,
    );
    map(&mut p2m, 513);
    assert_eq!(frames().owned_by(domain).tables, tables, "the same table");
    serve(
        remove_foreign(&mut p2m, Gfn::new(513)).expect("there"),
        true,
    );
    // A large page takes the empty table's place; that is let go by the next token.
    p2m.populate(Gfn::new(512), 512, Backing::Now)
        .expect("nothing is there");
    let leaf = p2m.ept.lookup(Gfn::new(512)).expect("mapped");
    assert_eq!(leaf.size, PageSize::Size2M);
    assert_eq!(frames().owned_by(domain).tables, tables);
    let mut flush = p2m.batch();
    let gone = p2m.remove_extent(Gfn::new(512), 512, &mut { u64::MAX }, &mut flush);
    assert_eq!(gone, Ok(512));
    serve(flush, true);
    assert_eq!(frames().owned_by(domain).tables, 1, "only the root is left");
}

#[test]
fn a_grant_mapping_goes_only_by_its_own_way() {
    let (mut granter, owner) = p2m();
    let (mut mapper, domain) = p2m();
    granter
        .populate(Gfn::new(4), 1, Backing::Now)
        .expect("room");
    let page = granter.pin(Gfn::new(4)).expect("RAM");
    let (gfn, mfn) = (Gfn::new(0x7f_fff), page.mfn());
    serve(
        mapper
            .insert_page(gfn, page, PageKind::Foreign, Perms::READ)
            .expect("placed"),
        false,
    );
    assert_eq!(mapper.ram_pages(), 0);
    assert_eq!(mapper.remove(gfn).err(), Some(Errno::Eperm));
    let other = testing::page(Owner::Hypervisor);
    let refused = mapper.insert_page(gfn, other.clone(), PageKind::Shared, Perms::RW);
    assert_eq!(refused.err(), Some(Errno::Eperm));
    assert_eq!(
        remove_foreign(&mut mapper, Gfn::new(1)).err(),
        Some(Errno::Enoent)
    );
    let entry = P2mEntry {
        mfn,
        kind: PageKind::Foreign,
        writable: false,
    };
    assert_eq!(fault(&mapper, gfn, Perms::WRITE), Fault::Denied(entry));
    drop(granter);
    assert_eq!(ram(owner), 1, "the mapper still holds it");
    serve(remove_foreign(&mut mapper, gfn).expect("there"), true);
    nothing_left(owner);
    drop(mapper);
    nothing_left(domain);
}

fn remove_foreign(p2m: &mut P2m, gfn: Gfn) -> Result<Flush, Errno> {
    let mut flush = p2m.batch();
    p2m.remove_foreign(gfn, &mut flush).map(|()| flush)
}

#[test]
fn one_token_serves_many_changes() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(0), 64, Backing::Now).expect("room");
    let mut batch = p2m.batch();
    for gfn in 0..64 {
        batch
            .merge(p2m.remove(Gfn::new(gfn)).expect("there"))
            .expect("memory to remember");
    }
    assert_eq!((p2m.ram_pages(), ram(domain)), (0, 64));
    serve(batch, true);
    assert_eq!(frames().owned_by(domain).memory, 0);
    assert_eq!(frames().owned_by(domain).tables, 1, "only the root is left");
}

#[test]
fn every_failed_allocation_leaves_things_as_they_were() {
    for budget in 0..24 {
        let (mut p2m, domain) = p2m();
        p2m.populate(Gfn::new(512), 512, Backing::Now)
            .expect("room");
        testing::limit_allocations(Some(budget));
        let populated = p2m.populate(Gfn::new((1 << 18) - 4), 520, Backing::Now);
        let page = PageRef::alloc(Owner::Domain(domain));
        let placed = page.map(|page| {
            let placed = p2m.insert_page(Gfn::new(600), page, PageKind::Shared, Perms::RW);
            placed.map(|flush| flush.done())
        });
        testing::limit_allocations(None);
        let expected = 512 + if populated.is_ok() { 520 } else { 0 };
        let dropped = u64::from(placed == Some(Ok(())));
        assert_eq!(p2m.ram_pages(), expected - dropped);
        assert_eq!(
            ram(domain),
            expected,
            "the shared page took the place of one of RAM"
        );
        if populated.is_err() {
            assert_eq!(populated, Err(Errno::Enomem));
            assert_eq!(p2m.lookup(Gfn::new((1 << 18) - 4)), None);
        }
        drop(p2m);
        nothing_left(domain);
    }
}

#[test]
fn a_page_moves_whole_or_not_at_all() {
    let (from, to) = (Gfn::new(700), Gfn::new(1 << 20));
    let mut moved = false;
    // Splitting and the way to the new place need at most four tables.
    for budget in 0..=4 {
        let (mut p2m, domain) = p2m();
        p2m.populate(Gfn::new(512), 512, Backing::Now)
            .expect("room");
        let mfn = p2m.lookup(from).map(|entry| entry.mfn);
        testing::limit_allocations(Some(budget));
        let result = p2m.move_page(from, to).map(Flush::done);
        testing::limit_allocations(None);
        let [left, arrived] = [from, to].map(|gfn| p2m.lookup(gfn).map(|entry| entry.mfn));
        match result {
            Ok(()) => assert_eq!((left, arrived), (None, mfn)),
            Err(error) => {
                assert_eq!((error, left, arrived), (Errno::Enomem, mfn, None));
            }
        }
        moved |= result.is_ok();
        assert_eq!((p2m.ram_pages(), ram(domain)), (512, 512));
        drop(p2m);
        nothing_left(domain);
    }
    assert!(moved);
}

#[test]
fn a_page_moves_over_another() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(0), 512, Backing::Now).expect("room");
    let mfn = p2m.lookup(Gfn::new(3)).map(|entry| entry.mfn);
    serve(
        p2m.move_page(Gfn::new(3), Gfn::new(4)).expect("moved"),
        true,
    );
    assert_eq!(p2m.lookup(Gfn::new(3)), None);
    assert_eq!(p2m.lookup(Gfn::new(4)).map(|entry| entry.mfn), mfn);
    assert_eq!((p2m.ram_pages(), ram(domain)), (511, 511));
    serve(
        p2m.move_page(Gfn::new(4), Gfn::new(4)).expect("stays"),
        false,
    );
    let hole = p2m.move_page(Gfn::new(3), Gfn::new(5)).map(Flush::done);
    assert_eq!(hole, Err(Errno::Einval));
    let far = p2m
        .move_page(Gfn::new(4), Gfn::new(1 << 40))
        .map(Flush::done);
    assert_eq!(far, Err(Errno::Einval));
    drop(p2m);
    nothing_left(domain);
}

#[test]
fn an_extent_across_a_border_comes_whole_and_goes_in_steps() {
    let first = Gfn::new(512 + 100);
    let mut came = 0;
    for budget in 0..6 {
        let (mut p2m, domain) = p2m();
        testing::limit_allocations(Some(budget));
        let populated = p2m.populate_extent(first, 9, Backing::OnTouch);
        testing::limit_allocations(None);
        let pages = if populated.is_ok() { 512 } else { 0 };
        assert_eq!((p2m.ram_pages(), ram(domain)), (pages, pages));
        if populated.is_ok() {
            came += 1;
            assert_eq!(fault(&p2m, Gfn::new(512 + 611), Perms::RW), Fault::Resolved);
            let mut left = 512;
            let mut steps = 0;
            while left > 0 {
                let (mut budget, mut flush) = (16_000, p2m.batch());
                let at = Gfn::new(first.raw() + 512 - left);
                let gone = p2m.remove_extent(at, left, &mut budget, &mut flush);
                flush.done();
                left -= gone.expect("pages");
                steps += 1;
            }
            assert!(steps > 40, "{steps}");
        } else {
            assert_eq!(populated, Err(Errno::Enomem));
            assert_eq!(p2m.lookup(first), None);
        }
        drop(p2m);
        nothing_left(domain);
    }
    assert!((1..6).contains(&came));
}

#[test]
fn release_goes_in_steps() {
    let (mut p2m, domain) = p2m();
    p2m.populate(Gfn::new(0), 4 * 512 + 70, Backing::Now)
        .expect("room");
    let mut from = Gfn::new(0);
    let mut left = std::vec![ram(domain)];
    while !p2m.release(&mut from) {
        left.push(ram(domain));
    }
    let expected = [
        2118, 1606, 1094, 582, 70, 63, 56, 49, 42, 35, 28, 21, 14, 7, 0,
    ];
    assert_eq!(left, expected, "a large page or some small ones");
    assert_eq!(ram(domain), 0);
    assert!(p2m.release(&mut Gfn::new(0)));
    drop(p2m);
    nothing_left(domain);
}
