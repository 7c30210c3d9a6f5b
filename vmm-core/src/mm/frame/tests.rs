//! The frame table against a plain model of who owns what.
#![expect(
    unsafe_code,
    reason = "makes tables over test memory and looks at bare frames"
)]

extern crate std;

use std::collections::BTreeMap;
use std::vec::Vec;

use abi::DomId;
use proptest::prelude::*;

use super::*;
use crate::mm::testing;

const RAM: u64 = 4096;

/// Fills a frame with a byte, as an owner would.
fn scribble(mfn: Mfn) {
    // SAFETY: the test owns the frame, and `fill` stays inside it.
    unsafe { directmap::fill(directmap::ptr(mfn.hpa()).cast(), 0x5a5a_5a5a_5a5a_5a5a, 512) };
}

fn clear(mfn: Mfn) {
    // SAFETY: the test owns the frame.
    unsafe { directmap::zero(mfn, 1) };
}

fn is_zero(mfn: Mfn) -> bool {
    // SAFETY: the test owns the frame; nobody writes it meanwhile.
    let bytes =
        unsafe { core::slice::from_raw_parts(directmap::ptr(mfn.hpa()).as_ptr(), PAGE_SIZE) };
    bytes == [0; PAGE_SIZE]
}

#[derive(Clone, Debug)]
enum Op {
    Alloc { order: u8, owner: Owner, lazy: bool },
    Free(usize),
    FreeOne(usize, u64),
    Hold(usize, u64),
    Release(usize),
    Expose(usize),
}

fn ops() -> impl Strategy<Value = Op> {
    let owner = prop_oneof![
        Just(Owner::Hypervisor),
        Just(Owner::Heap),
        Just(Owner::Cpu),
        (0_u16..3).prop_map(|d| Owner::Tables(DomId(d))),
        (0_u16..3).prop_map(|d| Owner::Shared(DomId(d))),
        (0_u16..3).prop_map(|d| Owner::Domain(DomId(d))),
        (0_u16..3).prop_map(|d| Owner::Disk(DomId(d))),
    ];
    prop_oneof![
        4 => (0_u8..=8, owner, any::<bool>())
            .prop_map(|(order, owner, lazy)| Op::Alloc { order, owner, lazy }),
        2 => any::<usize>().prop_map(Op::Free),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(b, f)| Op::FreeOne(b, f)),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(b, f)| Op::Hold(b, f)),
        2 => any::<usize>().prop_map(Op::Release),
        1 => any::<usize>().prop_map(Op::Expose),
    ]
}

#[derive(Debug, Default)]
struct Model {
    /// Blocks as allocated: first frame, order.
    blocks: Vec<(u64, u8)>,
    /// Extra holds taken with `get`.
    holds: Vec<u64>,
    /// Owner and number of holds of every allocated frame.
    frames: BTreeMap<u64, (Owner, u32)>,
}

impl Model {
    fn drop_hold(&mut self, frame: u64) {
        let entry = self.frames.get_mut(&frame).expect("held");
        entry.1 -= 1;
        if entry.1 == 0 {
            self.frames.remove(&frame);
        }
    }

    fn step(&mut self, table: &FrameTable, op: &Op) {
        match *op {
            Op::Alloc { order, owner, lazy } => self.alloc(table, order, owner, lazy),
            Op::Free(pick) if !self.blocks.is_empty() => {
                let (mfn, order) = self.blocks.swap_remove(pick % self.blocks.len());
                table.free(Mfn::new(mfn), order);
                (mfn..mfn + (1 << order)).for_each(|frame| self.drop_hold(frame));
            }
            Op::FreeOne(pick, frame) if !self.blocks.is_empty() => {
                // A block broken up, as when one page of a large mapping goes: free one frame,
                // keep the others as blocks of their own.
                let (mfn, order) = self.blocks.swap_remove(pick % self.blocks.len());
                let gone = mfn + frame % (1 << order);
                table.free(Mfn::new(gone), 0);
                self.drop_hold(gone);
                let rest = (mfn..mfn + (1 << order)).filter(|frame| *frame != gone);
                self.blocks.extend(rest.map(|frame| (frame, 0)));
            }
            Op::Hold(pick, frame) if !self.blocks.is_empty() => {
                let (mfn, order) = self.blocks[pick % self.blocks.len()];
                let frame = mfn + frame % (1 << order);
                table.get(Mfn::new(frame));
                self.frames.get_mut(&frame).expect("allocated").1 += 1;
                self.holds.push(frame);
            }
            Op::Release(pick) if !self.holds.is_empty() => {
                let frame = self.holds.swap_remove(pick % self.holds.len());
                table.put(Mfn::new(frame));
                self.drop_hold(frame);
            }
            Op::Expose(pick) if !self.blocks.is_empty() => {
                let (mfn, order) = self.blocks[pick % self.blocks.len()];
                // Its owner has seen it already, so nothing happens.
                assert_eq!(table.expose(Mfn::new(mfn), order, 0), 1 << order);
            }
            _ => {}
        }
    }

    fn alloc(&mut self, table: &FrameTable, order: u8, owner: Owner, lazy: bool) {
        let mfn = if lazy {
            table.alloc_unscrubbed(order, owner, &mut || ())
        } else {
            table.alloc_zeroed(order, owner)
        };
        let Some(mfn) = mfn else { return };
        let (mfn, size) = (mfn.raw(), 1 << order);
        assert!(mfn.is_multiple_of(size), "aligned");
        // Its own traces the hypervisor may see.
        let zeroed = !lazy || owner.domain().is_some();
        if lazy {
            // One in the middle first, as the hypervisor touches it.
            let early = Mfn::new(mfn + size / 2);
            assert_eq!(table.expose(early, 0, 0), 1);
            assert!(is_zero(early) || !zeroed, "scrubbed");
            scribble(early);
            let mut done = 0;
            while done < size {
                let reached = table.expose(Mfn::new(mfn), order, done);
                assert!(done < reached && reached <= size, "a step on");
                done = reached;
            }
            assert!(!is_zero(early), "scrubbed once");
            clear(early);
        }
        for frame in mfn..mfn + size {
            assert!(table.is_exposed(Mfn::new(frame)));
            assert!(is_zero(Mfn::new(frame)) || !zeroed, "scrubbed");
            scribble(Mfn::new(frame));
            assert!(
                self.frames.insert(frame, (owner, 1)).is_none(),
                "single owner"
            );
        }
        self.blocks.push((mfn, order));
    }

    fn check(&self, table: &FrameTable) {
        let (census, right) = table.audit();
        assert!(right, "{census:?}, but told {:?}", table.census());
        assert_eq!(census.free, table.free_frames());
        let owned = |wanted: fn(&Owner) -> bool| {
            self.frames
                .values()
                .filter(|(owner, _)| wanted(owner))
                .count() as u64
        };
        assert_eq!(census.hypervisor, owned(|o| matches!(o, Owner::Hypervisor)));
        assert_eq!(census.heap, owned(|o| matches!(o, Owner::Heap)));
        assert_eq!(census.cpus, owned(|o| matches!(o, Owner::Cpu)));
        assert_eq!(census.tables, owned(|o| matches!(o, Owner::Tables(_))));
        assert_eq!(census.shared, owned(|o| matches!(o, Owner::Shared(_))));
        assert_eq!(census.domains, owned(|o| matches!(o, Owner::Domain(_))));
        assert_eq!(census.disks, owned(|o| matches!(o, Owner::Disk(_))));
        for id in (0..3).map(DomId) {
            let of = |wanted| self.frames.values().filter(|(o, _)| *o == wanted).count() as u64;
            let found = DomainFrames {
                memory: of(Owner::Domain(id)),
                tables: of(Owner::Tables(id)),
                shared: of(Owner::Shared(id)),
                disks: of(Owner::Disk(id)),
            };
            assert_eq!(table.owned_by(id), found);
        }
        for (frame, (owner, _)) in &self.frames {
            assert_eq!(table.owner(Mfn::new(*frame)), Some(*owner));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn agrees_with_the_model(script in proptest::collection::vec(ops(), 1..60)) {
        let start = table_ram();
        // SAFETY: one table at a time is made over these frames: the guard is held.
        let table = unsafe { FrameTable::new(&[(Mfn::new(*start), 1000), (Mfn::new(*start + 1500), RAM - 1500)]) };
        // Opens the accounts, which stay.
        let first = table.alloc(0, Owner::Domain(DomId(0))).expect("room");
        table.free(first, 0);
        let whole = table.census();
        let mut model = Model::default();
        for op in &script {
            model.step(&table, op);
            model.check(&table);
        }
        while !model.holds.is_empty() {
            model.step(&table, &Op::Release(0));
        }
        while !model.blocks.is_empty() {
            model.step(&table, &Op::Free(0));
        }
        prop_assert_eq!(table.census(), whole);
        // Everything joined again: a block as large as the second region allows is there.
        prop_assert!(table.alloc(11, Owner::Hypervisor).is_some());
    }
}

/// The frames the property test makes its tables over, one case after the other.
fn table_ram() -> spin::MutexGuard<'static, u64> {
    static START: Mutex<u64> = Mutex::new(0);
    let mut start = START.lock();
    if *start == 0 {
        *start = testing::private_ram(RAM).raw();
    }
    start
}

#[test]
fn table_is_small_and_keeps_itself() {
    let table = testing::private_table(RAM);
    let census = table.census();
    assert_eq!(census.total, RAM);
    assert_eq!(census.frame_table, RAM * 8 / 4096);
    assert!(
        census.frame_table * 400 <= census.total,
        "0.25 % of RAM at most"
    );
    assert_eq!(census.free + census.frame_table, RAM);
}

#[test]
fn runs_out_and_recovers() {
    let table = testing::private_table(RAM);
    let mut taken = Vec::new();
    while let Some(mfn) = table.alloc(0, Owner::Domain(DomId(1))) {
        taken.push(mfn);
    }
    // The table itself, and the page of the domain's account.
    assert_eq!(taken.len() as u64, RAM - 9);
    assert_eq!(
        table.owned_by(DomId(1)),
        DomainFrames {
            shared: 0,
            memory: RAM - 9,
            tables: 0,
            disks: 0
        }
    );
    taken.into_iter().for_each(|mfn| table.free(mfn, 0));
    assert_eq!(table.free_frames(), RAM - 9);
}

/// Gives a domain its first frame, for good, so that its account takes no frame later.
fn open_account(table: &FrameTable) {
    assert!(table.alloc(0, Owner::Domain(DomId(1))).is_some());
}

#[test]
fn clean_frames_are_not_zeroed_again() {
    let table = testing::private_table(64);
    open_account(&table);
    // All of RAM, so that nothing dirty is left to join or to choose.
    let all: Vec<_> = core::iter::from_fn(|| table.alloc_zeroed(0, Owner::Hypervisor)).collect();
    let before = table.scrubbed();
    table.free_zeroed(all[7]);
    assert_eq!(table.alloc_zeroed(0, Owner::Domain(DomId(1))), Some(all[7]));
    assert_eq!(table.scrubbed(), before);
    table.free(all[7], 0);
    assert_eq!(table.alloc_zeroed(0, Owner::Domain(DomId(1))), Some(all[7]));
    assert_eq!(table.scrubbed(), before + 1);
}

#[test]
fn the_hypervisor_sees_its_own_traces_only() {
    let table = testing::private_table(64);
    open_account(&table);
    let before = table.scrubbed();
    let all: Vec<_> = core::iter::from_fn(|| table.alloc(0, Owner::Hypervisor)).collect();
    assert_eq!(table.scrubbed(), before, "boot RAM holds no domain's bytes");
    table.free(all[9], 0);
    let mfn = table.alloc(0, Owner::Domain(DomId(1))).expect("just freed");
    assert_eq!((mfn, table.scrubbed()), (all[9], before + 1));
    scribble(mfn);
    table.free(mfn, 0);
    assert_eq!(table.alloc(0, Owner::Hypervisor), Some(mfn));
    assert!(is_zero(mfn));
}

#[test]
fn domains_leave_a_reserve() {
    let table = testing::private_table(256);
    table.set_reserve(32);
    let take = |owner| core::iter::from_fn(|| table.alloc(0, owner)).count();
    assert!(take(Owner::Domain(DomId(1))) > 200);
    assert_eq!((table.free_frames(), table.available()), (32, 0));
    assert!(!table.is_short());
    assert_eq!(table.alloc(0, Owner::Domain(DomId(2))), None);
    assert_eq!(take(Owner::Tables(DomId(1))), 16);
    assert!(table.is_short());
    assert_eq!(take(Owner::Hypervisor), 16);
    assert_eq!(table.free_frames(), 0);
}

#[test]
fn held_frame_outlives_its_block() {
    let table = testing::private_table(64);
    let block = table
        .alloc_zeroed(3, Owner::Domain(DomId(4)))
        .expect("room");
    let held = Mfn::new(block.raw() + 5);
    table.get(held);
    let free = table.free_frames();
    table.free(block, 3);
    assert_eq!(table.free_frames(), free + 7);
    assert_eq!(table.owner(held), Some(Owner::Domain(DomId(4))));
    table.put(held);
    assert_eq!(table.free_frames(), free + 8);
    assert_eq!(table.owner(held), None);
}

#[test]
#[should_panic(expected = "frame allocated")]
fn double_free_is_caught() {
    let table = testing::private_table(64);
    let mfn = table.alloc(0, Owner::Hypervisor).expect("room");
    table.free(mfn, 0);
    table.free(mfn, 0);
}

#[test]
#[should_panic(expected = "block of the table")]
fn foreign_free_is_caught() {
    let table = testing::private_table(64);
    table.free(Mfn::new(3), 0);
}

#[test]
#[should_panic(expected = "aligned block")]
fn misaligned_free_is_caught() {
    let table = testing::private_table(64);
    let mfn = table.alloc(2, Owner::Hypervisor).expect("room");
    table.free(Mfn::new(mfn.raw() + 1), 1);
}

#[test]
#[should_panic(expected = "frame allocated")]
fn hold_on_the_table_itself_is_caught() {
    let start = testing::private_ram(64);
    // SAFETY: the frames were just set apart for this table.
    let table = unsafe { FrameTable::new(&[(start, 64)]) };
    table.get(Mfn::new(start.raw() + 63));
}

#[test]
fn global_table_has_a_giant_block_and_pages() {
    testing::init();
    let pages = testing::frames(3);
    pages[0].u32(16).store(7, Ordering::Relaxed);
    let again = pages[0].clone();
    assert_eq!(again.u32(16).load(Ordering::Relaxed), 7);
    assert_eq!(again.mfn(), pages[0].mfn());
    let mfn = again.mfn();
    drop(pages);
    assert_eq!(again.owner(), Some(Owner::Hypervisor));
    assert_eq!(frames().owner(mfn), Some(Owner::Hypervisor));
}
