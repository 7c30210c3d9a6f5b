//! The tree against a map from guest frames to mappings.

extern crate std;

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use abi::{Gfn, Mfn};
use proptest::prelude::*;

use crate::entry::Entry;
use crate::{Attr, Ept, EptError, Flush, Gap, Leaf, MemType, PageSize, Perms, TableMem};

/// Tables in a map of arrays, and a limit on how many there may be.
#[derive(Debug, Default)]
struct Tables {
    frames: RefCell<BTreeMap<u64, [u64; 512]>>,
    next: Cell<u64>,
    limit: Cell<Option<usize>>,
}

impl TableMem for &Tables {
    fn alloc(&self) -> Option<Mfn> {
        let mut frames = self.frames.borrow_mut();
        if self.limit.get().is_some_and(|limit| frames.len() >= limit) {
            return None;
        }
        self.next.set(self.next.get() + 1);
        frames.insert(self.next.get(), [0; 512]);
        Some(Mfn::new(self.next.get()))
    }

    fn free(&self, table: Mfn) {
        let slots = self
            .frames
            .borrow_mut()
            .remove(&table.raw())
            .expect("allocated");
        assert!(slots.iter().all(|slot| *slot == 0), "freed empty");
    }

    fn read(&self, table: Mfn, index: usize) -> u64 {
        self.frames.borrow()[&table.raw()][index]
    }

    fn write(&self, table: Mfn, index: usize, entry: u64) {
        self.frames
            .borrow_mut()
            .get_mut(&table.raw())
            .expect("allocated")[index] = entry;
    }
}

/// What one guest frame is mapped to.
type Model = BTreeMap<u64, (u64, Attr)>;

#[derive(Clone, Debug)]
enum Op {
    Map(u64, PageSize, u64, Attr),
    Replace(u64, u64, Attr, bool),
    Vacate(u64, bool),
    UnmapSmall(u64, bool),
    Unmap(u64, PageSize),
    Protect(u64, PageSize, Perms),
    Reveal(u64, Perms),
    MapRun(u64, u64, u64, Attr),
    UnmapRun(u64, u64),
}

fn sizes() -> impl Strategy<Value = PageSize> {
    prop_oneof![
        4 => Just(PageSize::Size4K),
        2 => Just(PageSize::Size2M),
    ]
}

fn perms() -> impl Strategy<Value = Perms> {
    prop_oneof![
        Just(Perms::READ),
        Just(Perms::RW),
        Just(Perms::RWX),
        Just(Perms::empty())
    ]
}

fn attrs() -> impl Strategy<Value = Attr> {
    (perms(), 1_u8..4).prop_map(|(perms, tag)| Attr {
        perms,
        ..Attr::ram(tag)
    })
}

/// Frames around the borders of a few 2 MiB pages in two far-off places.
fn gfns() -> impl Strategy<Value = u64> {
    let place = prop_oneof![Just(0_u64), Just(0x7ff_fe00), Just(0xf_ffff_f800)];
    (place, 0_u64..4, prop_oneof![0_u64..3, 510_u64..512])
        .prop_map(|(p, big, small)| p + big * 512 + small)
}

fn runs() -> impl Strategy<Value = u64> {
    prop_oneof![1_u64..4, Just(509), Just(512)]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (gfns(), sizes(), 0_u64..8, attrs()).prop_map(|(g, s, m, a)| Op::Map(g, s, m, a)),
        2 => (gfns(), 0_u64..4096, attrs(), any::<bool>())
            .prop_map(|(g, m, a, may_go)| Op::Replace(g, m, a, may_go)),
        2 => (gfns(), any::<bool>()).prop_map(|(g, may_go)| Op::Vacate(g, may_go)),
        2 => (gfns(), any::<bool>()).prop_map(|(g, may_go)| Op::UnmapSmall(g, may_go)),
        3 => (gfns(), sizes()).prop_map(|(g, s)| Op::Unmap(g, s)),
        2 => (gfns(), sizes(), perms()).prop_map(|(g, s, p)| Op::Protect(g, s, p)),
        1 => (gfns(), perms()).prop_map(|(g, p)| Op::Reveal(g, p)),
        2 => (gfns(), runs(), 0_u64..4096, attrs()).prop_map(|(g, n, m, a)| Op::MapRun(g, n, m, a)),
        1 => (gfns(), runs()).prop_map(|(g, n)| Op::UnmapRun(g, n)),
    ]
}

/// What was free is mapped now. Nothing was present, so only tables that were left empty may wait for
/// an invalidation, where a `large` page took their place.
fn mapped(
    ept: &Ept<&Tables>,
    model: &mut Model,
    flush: Flush,
    frames: impl Iterator<Item = (u64, u64)>,
    attr: Attr,
    large: bool,
) {
    assert!(!flush.is_needed() || large);
    flush.done(ept.mem());
    for (gfn, mfn) in frames {
        assert!(model.insert(gfn, (mfn, attr)).is_none(), "was free");
    }
}

fn unmap_run(ept: &mut Ept<&Tables>, model: &mut Model, gfn: u64, count: u64) {
    match ept.unmap_run(Gfn::new(gfn), count) {
        Ok(flush) => {
            let gone = (gfn..gfn + count).map(|gfn| model.remove(&gfn).expect("mapped"));
            let gone = gone.collect();
            check_flush(ept, flush, gone);
        }
        Err(EptError::OutOfRange) => assert!(gfn + count > ept.gfn_end().raw()),
        Err(error) => assert!(matches!(error, EptError::Hole | EptError::Misaligned)),
    }
}

fn replace(
    ept: &mut Ept<&Tables>,
    model: &mut Model,
    gfn: u64,
    (mfn, attr): (u64, Attr),
    may_go: bool,
) {
    let was = model.get(&gfn).copied();
    let goes = |entry: Entry| {
        assert_eq!(Some(entry.attr()), was.map(|(_, attr)| attr));
        may_go
    };
    match ept.replace(Gfn::new(gfn), Mfn::new(mfn), attr, goes) {
        Ok((old, flush)) => {
            assert!(may_go || was.is_none());
            model.insert(gfn, (mfn, attr));
            assert_eq!(old.map(|l| (l.mfn.raw(), l.attr)), was);
            check_flush(ept, flush, was.into_iter().collect());
        }
        Err(EptError::Refused) => assert!(!may_go && was.is_some()),
        Err(error) => assert_eq!(error, EptError::NoMemory),
    }
}

/// Does one operation on both sides. An operation the tree refuses changes nothing.
fn step(ept: &mut Ept<&Tables>, model: &mut Model, op: &Op) {
    match *op {
        Op::Map(gfn, size, mfn, attr) => {
            let range = block(gfn, size);
            let mfn = mfn * 512;
            match ept.map(Gfn::new(range.start), Mfn::new(mfn), size, attr) {
                Ok(flush) => mapped(
                    ept,
                    model,
                    flush,
                    range.zip(mfn..),
                    attr,
                    size != PageSize::Size4K,
                ),
                Err(EptError::Occupied) => assert!(model.range(range).next().is_some()),
                Err(EptError::NoMemory) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        Op::MapRun(gfn, count, mfn, attr) => {
            let range = gfn..gfn + count;
            match ept.map_run(Gfn::new(gfn), Mfn::new(mfn), count, attr) {
                Ok(flush) => mapped(ept, model, flush, range.zip(mfn..), attr, false),
                Err(EptError::Occupied) => assert!(model.range(range).next().is_some()),
                Err(EptError::Misaligned) => assert_ne!(gfn / 512, (range.end - 1) / 512),
                Err(EptError::OutOfRange) => assert!(range.end > ept.gfn_end().raw()),
                Err(EptError::NoMemory) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        Op::UnmapRun(gfn, count) => unmap_run(ept, model, gfn, count),
        Op::Replace(gfn, mfn, attr, may_go) => replace(ept, model, gfn, (mfn, attr), may_go),
        Op::Vacate(gfn, may_go) => {
            let vacated = ept.vacate(Gfn::new(gfn), |_| may_go);
            small_unmapped(ept, model, gfn, vacated, may_go, true);
        }
        Op::UnmapSmall(gfn, may_go) => {
            let unmapped = ept.unmap_small(Gfn::new(gfn), |_| may_go);
            small_unmapped(ept, model, gfn, unmapped, may_go, false);
        }
        Op::Unmap(gfn, size) => {
            let range = block(gfn, size);
            let mut seen = Vec::new();
            match ept.unmap(Gfn::new(range.start), size, |leaf| seen.push(leaf)) {
                Ok(flush) => {
                    let gone: Model = range.filter_map(|g| Some((g, model.remove(&g)?))).collect();
                    assert_eq!(frames_of(&seen), gone);
                    check_flush(ept, flush, gone.into_values().collect());
                }
                Err(EptError::Hole) => assert!(model.range(range).next().is_none()),
                Err(error) => assert_eq!(error, EptError::NoMemory),
            }
        }
        Op::Protect(gfn, size, perms) => protect(ept, model, block(gfn, size), size, perms),
        Op::Reveal(gfn, perms) => match ept.lookup(Gfn::new(gfn)) {
            Some(before) => {
                ept.reveal(Gfn::new(gfn), perms).expect("a leaf");
                if before.attr.perms.is_empty() {
                    for gfn in before.gfn.raw()..before.gfn.raw() + before.size.frames() {
                        model.get_mut(&gfn).expect("mapped").1.perms = perms;
                    }
                }
            }
            None => assert_eq!(ept.reveal(Gfn::new(gfn), perms), Err(EptError::Hole)),
        },
    }
}

/// What came of unmapping one small page, `surely` if there is one that `may_go`.
fn small_unmapped(
    ept: &Ept<&Tables>,
    model: &mut Model,
    gfn: u64,
    unmapped: Option<(Leaf, Flush)>,
    may_go: bool,
    surely: bool,
) {
    match unmapped {
        Some((leaf, flush)) => {
            assert!(may_go);
            assert_eq!((leaf.gfn.raw(), leaf.size), (gfn, PageSize::Size4K));
            let gone = model.remove(&gfn);
            assert_eq!(gone, Some((leaf.mfn.raw(), leaf.attr)));
            check_flush(ept, flush, gone.into_iter().collect());
        }
        None => {
            let there = ept.lookup(Gfn::new(gfn));
            let small = there.is_some_and(|leaf| leaf.size == PageSize::Size4K);
            assert!(!may_go || !small || !surely);
        }
    }
}

fn protect(
    ept: &mut Ept<&Tables>,
    model: &mut Model,
    range: core::ops::Range<u64>,
    size: PageSize,
    perms: Perms,
) {
    match ept.protect(Gfn::new(range.start), size, perms) {
        Ok(flush) => {
            let mut lost = Vec::new();
            for (_, (mfn, attr)) in model.range_mut(range) {
                if !attr.perms.is_empty() {
                    if !perms.contains(attr.perms) {
                        lost.push((*mfn, *attr));
                    }
                    attr.perms = perms;
                }
            }
            check_flush(ept, flush, lost);
        }
        Err(EptError::Hole) => assert!(model.range(range).next().is_none()),
        Err(error) => assert_eq!(error, EptError::NoMemory),
    }
}

/// A change that a CPU may have cached must ask for an invalidation.
fn check_flush(ept: &Ept<&Tables>, flush: Flush, changed: Vec<(u64, Attr)>) {
    let visible = changed.iter().any(|(_, attr)| !attr.perms.is_empty());
    assert!(flush.is_needed() || !visible);
    flush.done(ept.mem());
}

fn block(gfn: u64, size: PageSize) -> core::ops::Range<u64> {
    let start = size.base(Gfn::new(gfn)).raw();
    start..start + size.frames()
}

fn frames_of(leaves: &[Leaf]) -> Model {
    let each = leaves.iter().flat_map(|leaf| {
        (0..leaf.size.frames()).map(|offset| {
            (
                leaf.gfn.raw() + offset,
                (leaf.mfn.raw() + offset, leaf.attr),
            )
        })
    });
    each.collect()
}

/// All that the tree maps, found by walking it with `next`.
fn all(ept: &Ept<&Tables>) -> Vec<Leaf> {
    let mut at = Gfn::new(0);
    let mut leaves = Vec::new();
    while let Some(leaf) = ept.next(at, ept.gfn_end()) {
        at = Gfn::new(leaf.gfn.raw() + leaf.size.frames());
        leaves.push(leaf);
    }
    leaves
}

/// Checks that every table counts its slots right, by walking the raw entries; also counts the
/// empty tables, which only page tables may be.
fn check_counts(tables: &Tables, table: u64, level: u32, empty: &mut u32) -> u64 {
    let slots = tables.frames.borrow()[&table];
    let used = slots.iter().filter(|slot| **slot != 0);
    for slot in used.clone() {
        let entry = Entry(*slot);
        if level > 0 && !(level < 3 && entry.large()) {
            let live = check_counts(tables, entry.frame(), level - 1, empty);
            assert_eq!(entry.live(), live);
            assert!(live > 0 || level == 1, "empty tables go");
            *empty += u32::from(live == 0);
        }
    }
    used.count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_the_model(
        script in proptest::collection::vec(ops(), 1..40),
        limit in proptest::option::of(1_usize..12),
    ) {
        let tables = Tables::default();
        tables.limit.set(limit);
        let mut ept = Ept::new(&tables, 48).expect("a root");
        let mut model = Model::new();
        for op in &script {
            step(&mut ept, &mut model, op);
            let mut empty = 0;
            check_counts(&tables, ept.root().mfn().raw(), 3, &mut empty);
            prop_assert_eq!(empty, ept.empty_tables());
            prop_assert!(empty <= 4);
        }
        prop_assert_eq!(&frames_of(&all(&ept)), &model);
        for (gfn, (mfn, attr)) in &model {
            let leaf = ept.lookup(Gfn::new(*gfn)).expect("mapped");
            prop_assert_eq!(leaf.mfn_of(Gfn::new(*gfn)), Mfn::new(*mfn));
            prop_assert_eq!(leaf.attr, *attr);
        }
        let mut seen = Vec::new();
        ept.clear(|leaf| seen.push(leaf)).done(ept.mem());
        prop_assert_eq!(frames_of(&seen), model);
        prop_assert_eq!(tables.frames.borrow().len(), 1);
        drop(ept);
        prop_assert!(tables.frames.borrow().is_empty(), "every table came back");
    }
}

#[test]
fn a_giant_page_splits_twice_and_goes() {
    let tables = Tables::default();
    let mut ept = Ept::new(&tables, 46).expect("a root");
    let giant = PageSize::Size1G.frames();
    let flush = ept.map(
        Gfn::new(giant),
        Mfn::new(3 * giant),
        PageSize::Size1G,
        Attr::ram(1),
    );
    flush.expect("mapped").done(ept.mem());
    assert_eq!(tables.frames.borrow().len(), 2);
    let inside = Gfn::new(giant + 5 * 512 + 77);
    assert_eq!(
        ept.lookup(inside).expect("mapped").mfn_of(inside),
        Mfn::new(3 * giant + 5 * 512 + 77)
    );

    let flush = ept
        .protect(inside, PageSize::Size4K, Perms::READ)
        .expect("mapped");
    assert!(flush.is_needed());
    flush.done(ept.mem());
    assert_eq!(tables.frames.borrow().len(), 4);
    let page = ept.lookup(inside).expect("mapped");
    assert_eq!(
        (page.size, page.attr.perms),
        (PageSize::Size4K, Perms::READ)
    );
    let next = ept.lookup(Gfn::new(giant)).expect("mapped");
    assert_eq!((next.size, next.attr.perms), (PageSize::Size2M, Perms::RWX));

    let mut count = 0;
    let flush = ept.unmap(Gfn::new(giant), PageSize::Size1G, |leaf| {
        count += leaf.size.frames()
    });
    flush.expect("mapped").done(ept.mem());
    assert_eq!(count, giant);
    assert_eq!(tables.frames.borrow().len(), 1);
    ept.clear(|_| panic!("empty")).done(ept.mem());
}

#[test]
fn only_a_few_tables_stay_empty() {
    let tables = Tables::default();
    let mut ept = Ept::new(&tables, 48).expect("a root");
    let gfns = (0..20).map(|number| Gfn::new(number * 512));
    for gfn in gfns.clone() {
        let mapped = ept.map(gfn, Mfn::new(7), PageSize::Size4K, Attr::ram(1));
        mapped.expect("room").done(&&tables);
    }
    let all = tables.frames.borrow().len();
    for gfn in gfns {
        let (leaf, flush) = ept.vacate(gfn, |_| true).expect("mapped");
        assert_eq!((leaf.gfn, flush.is_needed()), (gfn, true));
        flush.done(&&tables);
    }
    // Of twenty page tables four stay, and with them the two tables above.
    assert_eq!(
        (ept.empty_tables(), tables.frames.borrow().len()),
        (4, all - 16)
    );
    assert_eq!(ept.next(Gfn::new(0), ept.gfn_end()), None);
    // What is mapped in one of them again makes it one like any other.
    let mapped = ept.map(Gfn::new(1), Mfn::new(7), PageSize::Size4K, Attr::ram(1));
    mapped.expect("room").done(&&tables);
    assert_eq!(ept.empty_tables(), 3);
    let large = ept.map(Gfn::new(512), Mfn::new(512), PageSize::Size2M, Attr::ram(1));
    let flush = large.expect("an empty table gives way");
    assert!(flush.is_needed());
    flush.done(&&tables);
    assert_eq!(ept.empty_tables(), 2);
}

#[test]
fn raising_permissions_needs_no_invalidation() {
    let tables = Tables::default();
    let mut ept = Ept::new(&tables, 48).expect("a root");
    let gfn = Gfn::new(9);
    let attr = Attr {
        perms: Perms::READ,
        ..Attr::ram(1)
    };
    ept.map(gfn, Mfn::new(1), PageSize::Size4K, attr)
        .expect("mapped")
        .done(ept.mem());
    let flush = ept
        .protect(gfn, PageSize::Size4K, Perms::RW)
        .expect("mapped");
    assert!(!flush.is_needed());
    flush.done(ept.mem());
    assert_eq!(ept.lookup(gfn).expect("mapped").attr.perms, Perms::RW);
}

#[test]
fn bad_values_are_refused() {
    let tables = Tables::default();
    let mut ept = Ept::new(&tables, 36).expect("a root");
    let attr = Attr::ram(1);
    let mut map = |gfn, mfn, size, attr| {
        ept.map(Gfn::new(gfn), Mfn::new(mfn), size, attr)
            .map(|flush| flush.done(&&tables))
            .err()
    };
    assert_eq!(
        map(1 << 24, 0, PageSize::Size4K, attr),
        Some(EptError::OutOfRange)
    );
    assert_eq!(
        map(u64::MAX, 0, PageSize::Size4K, attr),
        Some(EptError::OutOfRange)
    );
    assert_eq!(
        map(0, 1 << 40, PageSize::Size4K, attr),
        Some(EptError::OutOfRange)
    );
    assert_eq!(
        map(1, 0, PageSize::Size2M, attr),
        Some(EptError::Misaligned)
    );
    assert_eq!(
        map(512, 1, PageSize::Size2M, attr),
        Some(EptError::Misaligned)
    );
    assert_eq!(
        map(0, 0, PageSize::Size4K, Attr::ram(0)),
        Some(EptError::BadAttr)
    );
    let device = Attr {
        memtype: MemType::Uncacheable,
        ..attr
    };
    assert_eq!(map((1 << 24) - 1, 0xfee00, PageSize::Size4K, device), None);
    assert_eq!(ept.lookup(Gfn::new(1 << 40)), None);
    assert_eq!(
        ept.lookup(Gfn::new((1 << 24) - 1)).map(|l| l.attr),
        Some(device)
    );
    assert_eq!(
        ept.reveal(Gfn::new(1 << 24), Perms::RW),
        Err(EptError::OutOfRange)
    );
    drop(ept);
    assert!(tables.frames.borrow().is_empty());
}

#[test]
#[should_panic(expected = "a flush left undone")]
fn a_forgotten_flush_is_caught() {
    let tables = Tables::default();
    let mut ept = Ept::new(&tables, 48).expect("a root");
    ept.map(Gfn::new(0), Mfn::new(1), PageSize::Size4K, Attr::ram(1))
        .expect("mapped")
        .done(ept.mem());
    drop(ept.unmap(Gfn::new(0), PageSize::Size4K, |_| ()));
}

#[test]
fn a_search_reads_one_table_at_a_time_and_nothing_behind_its_end() {
    let tables = Tables::default();
    let mut ept = Ept::new(&tables, 48).expect("room");
    let ends = ept.gfn_end();
    // The last page of one table, and the first one far behind it.
    let (near, far) = (Gfn::new(511), Gfn::new((1 << 27) + (300 << 18)));
    for gfn in [near, far] {
        let mapped = ept.map(gfn, Mfn::new(7), PageSize::Size4K, Attr::ram(1));
        mapped.expect("room").done(&&tables);
    }
    let gap = |from, end| ept.seek(from, end).expect_err("a hole");
    assert_eq!(
        gap(Gfn::new(0), ends),
        Gap {
            end: near,
            slots: 511
        }
    );
    let short = Gfn::new(9);
    assert_eq!(
        gap(Gfn::new(2), short),
        Gap {
            end: short,
            slots: 7
        }
    );
    assert_eq!(gap(short, short).slots, 0);
    // The rest of each table on the way to the other one.
    let (mut at, mut steps) = (Gfn::new(512), 0);
    let found = loop {
        match ept.seek(at, ends) {
            Ok(leaf) => break leaf,
            Err(gap) => {
                assert!(gap.end > at && gap.slots <= 512);
                at = gap.end;
                steps += 1;
            }
        }
    };
    assert_eq!((found.gfn, steps), (far, 3));
    assert_eq!(ept.next(Gfn::new(512), far), None);
    assert_eq!(
        ept.next(Gfn::new(512), Gfn::new(far.raw() + 1)),
        Some(found)
    );
}
