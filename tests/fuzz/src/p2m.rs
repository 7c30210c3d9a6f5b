//! A p2m against a map of what was put where.

use std::collections::{BTreeMap, BTreeSet};

use abi::{DomId, Errno, Gfn, Mfn};
use calls::Choice;
use vmm_core::mm::frame::{Owner, frames};
use vmm_core::mm::p2m::{Backing, Fault, Limits, P2m, PageKind, Perms};
use vmm_core::mm::page::PageRef;
use vmm_core::mm::testing;

use crate::Input;

const DOMAIN: DomId = DomId(31_000);
const LIMITS: Limits = Limits {
    address_bits: 40,
    large: true,
    giant: true,
    table_frames: u32::MAX,
};
/// Operations on one p2m at most.
const MOST: u64 = 200;

#[derive(Clone, Debug)]
enum Op {
    Populate(u64, u64, bool),
    Share(u64),
    Grant(u64),
    Remove(u64),
    Ungrant(u64),
    Touch(u64),
    Pin(u64),
}

/// Frames that share page tables, and one that does not.
fn gfn(input: &mut Input<'_>) -> u64 {
    match input.below(4) {
        0 => u64::from(input.below(8)),
        1 => 508 + u64::from(input.below(12)),
        2 => 1020 + u64::from(input.below(8)),
        _ => 0xff_ffff,
    }
}

fn op(input: &mut Input<'_>) -> Op {
    let gfn = gfn(input);
    match input.below(18) {
        0 => Op::Populate(0, 1024, false),
        1..=3 => {
            let count = match input.below(9) {
                0 => 512,
                1 => 1024,
                count => u64::from(count),
            };
            Op::Populate(gfn, count, input.flip())
        }
        4..=5 => Op::Share(gfn),
        6..=7 => Op::Grant(gfn),
        8..=11 => Op::Remove(gfn),
        12..=13 => Op::Ungrant(gfn),
        14..=15 => Op::Touch(gfn),
        _ => Op::Pin(gfn),
    }
}

/// The kind of every guest frame, and the frame where the test chose it.
type Model = BTreeMap<u64, (PageKind, Option<Mfn>)>;

fn step(p2m: &mut P2m, model: &mut Model, pins: &mut Vec<PageRef>, op: &Op) {
    let at = |gfn: &u64| (Gfn::new(*gfn), *gfn);
    match op {
        Op::Populate(gfn, count, now) => {
            let backing = if *now { Backing::Now } else { Backing::OnTouch };
            let busy = model.range(*gfn..*gfn + *count).next().is_some();
            let expected = if busy { Err(Errno::Eexist) } else { Ok(()) };
            assert_eq!(p2m.populate(Gfn::new(*gfn), *count, backing), expected);
            if !busy {
                model.extend((*gfn..*gfn + *count).map(|gfn| (gfn, (PageKind::Ram, None))));
            }
        }
        Op::Share(gfn) => insert(p2m, model, *gfn, PageKind::Shared),
        Op::Grant(gfn) => insert(p2m, model, *gfn, PageKind::Foreign),
        Op::Remove(gfn) => {
            let (gfn, key) = at(gfn);
            let expected = match model.get(&key) {
                None => Err(Errno::Enoent),
                Some((PageKind::Foreign, _)) => Err(Errno::Eperm),
                Some(_) => Ok(()),
            };
            assert_eq!(p2m.remove(gfn).map(|flush| flush.done()), expected);
            if expected.is_ok() {
                model.remove(&key);
            }
        }
        Op::Ungrant(gfn) => {
            let (gfn, key) = at(gfn);
            if let Some((PageKind::Foreign, Some(_))) = model.get(&key) {
                let mut flush = p2m.batch();
                p2m.remove_foreign(gfn, &mut flush).expect("mapped");
                flush.done();
                model.remove(&key);
            }
        }
        Op::Touch(gfn) => {
            let (gfn, key) = at(gfn);
            let expected = if model.contains_key(&key) {
                Fault::Resolved
            } else {
                Fault::Hole
            };
            let mut done = 0;
            let mut found = Fault::Unfinished;
            while found == Fault::Unfinished {
                found = p2m.fault(gfn, Perms::RW, &mut done);
            }
            assert_eq!(found, expected);
        }
        Op::Pin(gfn) => {
            let (gfn, key) = at(gfn);
            match p2m.pin(gfn) {
                Ok(page) => {
                    assert_eq!(model[&key].0, PageKind::Ram);
                    pins.push(page);
                }
                Err(_) => assert!(
                    model
                        .get(&key)
                        .is_none_or(|(kind, _)| *kind != PageKind::Ram)
                ),
            }
        }
    }
}

fn insert(p2m: &mut P2m, model: &mut Model, gfn: u64, kind: PageKind) {
    let page = testing::page(Owner::Hypervisor);
    let mfn = page.mfn();
    match p2m.insert_page(Gfn::new(gfn), page, kind, Perms::RW) {
        Ok(flush) => {
            flush.done();
            let old = model.insert(gfn, (kind, Some(mfn)));
            assert!(old.is_none_or(|(kind, _)| kind != PageKind::Foreign));
        }
        Err(error) => {
            assert_eq!(error, Errno::Eperm);
            assert_eq!(model[&gfn].0, PageKind::Foreign);
        }
    }
}

fn life(input: &mut Input<'_>) -> u64 {
    let mut p2m = P2m::new(DOMAIN, LIMITS).expect("a root");
    let (mut model, mut pins) = (Model::new(), Vec::new());
    let mut done = 0;
    while !input.is_empty() && done < MOST {
        step(&mut p2m, &mut model, &mut pins, &op(input));
        done += 1;
    }
    let kinds = model.values().map(|(kind, _)| *kind);
    let of_ram = kinds.filter(|kind| *kind == PageKind::Ram).count() as u64;
    assert_eq!(p2m.ram_pages(), of_ram);
    for gfn in (0..2100).chain([0xff_ffff]) {
        let (found, known) = (p2m.lookup(Gfn::new(gfn)), model.get(&gfn));
        assert_eq!(
            found.map(|entry| entry.kind),
            known.map(|(kind, _)| *kind),
            "{gfn:#x}"
        );
        if let Some((_, Some(mfn))) = known {
            assert_eq!(found.map(|entry| entry.mfn), Some(*mfn), "{gfn:#x}");
        }
    }
    drop(p2m);
    let pinned: BTreeSet<_> = pins.iter().map(PageRef::mfn).collect();
    assert_eq!(frames().owned_by(DOMAIN).memory, pinned.len() as u64);
    drop(pins);
    let left = frames().owned_by(DOMAIN);
    assert_eq!((left.memory, left.tables), (0, 0));
    done
}

pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock();
    testing::init();
    let mut done = 0;
    while !input.is_empty() {
        done += life(input);
    }
    done
}
