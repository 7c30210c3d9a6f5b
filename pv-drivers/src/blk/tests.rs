//! The back end against a front end that plays by the rules, and one that does not.

extern crate std;
use std::vec::Vec;

use abi::GrantRef;
use abi::blkif::{Request, RequestDiscard, RequestIndirect, Response, Segment, op, status};
use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering::SeqCst;
use proptest::prelude::{any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::proto::{ENTRY_MAX, Protocol};
use super::{Begun, Disk, IoError, MAX_UNDER_WAY, Piece, Queue, Served, Tag, Transfer};
use crate::grants::Grants;
use crate::ring::{Broken, Front, Memory};
use crate::shared_page::SharedPage;
use crate::test_page::TestPage;

const SECTORS: u64 = 64;
const SHARE: usize = 1000;

/// A disk in a vector; counts what it is asked.
pub(super) struct TestDisk {
    bytes: RefCell<Vec<u8>>,
    read_only: bool,
    fails: Cell<bool>,
    flushes: Cell<u32>,
    /// Answers wait for the test.
    later: Cell<bool>,
    waiting: RefCell<Vec<Tag>>,
}

impl TestDisk {
    pub(super) fn new(read_only: bool) -> Self {
        let bytes = (0..SECTORS * 512).map(|at| u8::try_from(at / 512 * 3 + at % 7).unwrap());
        Self {
            bytes: RefCell::new(bytes.collect()),
            read_only,
            fails: Cell::new(false),
            flushes: Cell::new(0),
            later: Cell::new(false),
            waiting: RefCell::default(),
        }
    }

    fn range(&self, piece: &Piece<'_>) -> core::ops::Range<usize> {
        let start = usize::try_from(piece.sector).unwrap() * 512;
        assert!(piece.len.is_multiple_of(512) && piece.len != 0);
        start..start + piece.len
    }
}

impl<G> Disk<G> for TestDisk {
    fn begin(&self, _: &G, transfer: &Transfer<'_>) -> Begun {
        if !self.later.get() {
            return Begun::InPieces;
        }
        self.waiting.borrow_mut().push(transfer.tag);
        Begun::Whole
    }

    fn sectors(&self) -> u64 {
        SECTORS
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, piece: Piece<'_>) -> Result<(), IoError> {
        let range = self.range(&piece);
        piece.page.write(piece.offset, &self.bytes.borrow()[range]);
        if self.fails.get() {
            Err(IoError)
        } else {
            Ok(())
        }
    }

    fn write(&self, piece: Piece<'_>) -> Result<(), IoError> {
        assert!(!self.read_only);
        let range = self.range(&piece);
        piece
            .page
            .read(piece.offset, &mut self.bytes.borrow_mut()[range]);
        if self.fails.get() {
            Err(IoError)
        } else {
            Ok(())
        }
    }

    fn flush(&self) -> Result<(), IoError> {
        self.flushes.set(self.flushes.get() + 1);
        Ok(())
    }

    fn discard(&self, sector: u64, count: u64) -> Option<u64> {
        assert!(sector + count <= SECTORS);
        let done = count.min(4);
        let start = usize::try_from(sector).unwrap() * 512;
        let len = usize::try_from(done).unwrap() * 512;
        self.bytes.borrow_mut()[start..start + len].fill(0);
        Some(done)
    }
}

/// Pages of the front end. The last one is granted for reading only; what lies behind is not.
struct Guest(Vec<TestPage>);

impl Guest {
    fn page(&self, gref: u32) -> SharedPage {
        self.0[gref as usize].view()
    }
}

impl Grants for Guest {
    fn with_page<R>(
        &self,
        gref: GrantRef,
        write: bool,
        act: impl FnOnce(&SharedPage) -> R,
    ) -> Option<R> {
        let index = gref.0 as usize;
        let allowed = !write || index + 1 < self.0.len();
        let page = self.0.get(index).filter(|_| allowed)?;
        Some(act(&page.view()))
    }
}

struct Bench {
    _ring: TestPage,
    front: Front<std::boxed::Box<SharedPage>>,
    back: Queue<std::boxed::Box<SharedPage>>,
    guest: Guest,
    disk: TestDisk,
}

impl Bench {
    pub(super) fn new(read_only: bool) -> Self {
        let ring = TestPage::new();
        let view = || [std::boxed::Box::new(ring.view())];
        let front = Front::new(Memory::new(view(), ENTRY_MAX).unwrap());
        let back = Queue::attach(view(), Protocol::X86_64).unwrap();
        Self {
            front,
            back,
            guest: Guest((0..6).map(|_| TestPage::new()).collect()),
            disk: TestDisk::new(read_only),
            _ring: ring,
        }
    }

    fn serve(&mut self, share: usize) -> Result<Served, Broken> {
        self.back.serve(&self.guest, &self.disk, share)
    }

    /// Sends a request and returns its response's status.
    fn ask(&mut self, request: &[u8]) -> i16 {
        assert!(self.front.push(request));
        assert!(self.front.publish());
        let served = self.serve(SHARE).unwrap();
        assert_eq!((served.notify, served.more), (true, false));
        let response = self.response().unwrap();
        assert_eq!(self.front.rearm(), Ok(false));
        response.status
    }

    fn response(&mut self) -> Option<Response> {
        let mut bytes = [0; 16];
        let there = self.front.take(&mut bytes).unwrap();
        there.then(|| Response::read_from_bytes(&bytes).unwrap())
    }
}

fn segment(gref: u32, first_sect: u8, last_sect: u8) -> Segment {
    Segment {
        gref,
        first_sect,
        last_sect,
        pad: 0,
    }
}

fn request(operation: u8, sector_number: u64, segments: &[Segment]) -> Request {
    let mut seg = [Segment::new_zeroed(); 11];
    seg[..segments.len()].copy_from_slice(segments);
    Request {
        operation,
        nr_segments: u8::try_from(segments.len()).unwrap(),
        handle: 0,
        pad: 0,
        id: 99,
        sector_number,
        seg,
    }
}

#[test]
fn data_goes_both_ways_and_nowhere_else() {
    let mut bench = Bench::new(false);
    let read = request(op::READ, 5, &[segment(0, 2, 3), segment(1, 7, 7)]);
    assert_eq!(bench.ask(read.as_bytes()), status::OKAY);
    let disk = bench.disk.bytes.borrow().clone();
    let mut page = [0; 4096];
    bench.guest.page(0).read(0, &mut page);
    assert_eq!(page[1024..2048], disk[5 * 512..7 * 512]);
    assert!(
        page[..1024]
            .iter()
            .chain(&page[2048..])
            .all(|byte| *byte == 0)
    );
    bench.guest.page(1).read(0, &mut page);
    assert_eq!(page[7 * 512..], disk[7 * 512..8 * 512]);

    // The page that is granted for reading is good enough for a write.
    bench.guest.page(5).write(0, &[0xaa; 4096]);
    let write = request(op::WRITE, SECTORS - 8, &[segment(5, 0, 7)]);
    assert_eq!(bench.ask(write.as_bytes()), status::OKAY);
    let now = bench.disk.bytes.borrow().clone();
    assert_eq!(now[..56 * 512], disk[..56 * 512]);
    assert!(now[56 * 512..].iter().all(|byte| *byte == 0xaa));
    let read = request(op::READ, 0, &[segment(5, 0, 7)]);
    assert_eq!(bench.ask(read.as_bytes()), status::ERROR);
}

#[test]
fn flushes_and_barriers_reach_the_disk() {
    let mut bench = Bench::new(false);
    let flush = request(op::FLUSH_DISKCACHE, u64::MAX, &[]);
    assert_eq!(bench.ask(flush.as_bytes()), status::OKAY);
    assert_eq!(bench.disk.flushes.get(), 1);
    let barrier = request(op::WRITE_BARRIER, 0, &[segment(0, 0, 0)]);
    assert_eq!(bench.ask(barrier.as_bytes()), status::OKAY);
    assert_eq!(bench.disk.flushes.get(), 3);
    bench.disk.fails.set(true);
    assert_eq!(bench.ask(barrier.as_bytes()), status::ERROR);
    let read = request(op::READ, 0, &[segment(0, 0, 0)]);
    assert_eq!(bench.ask(read.as_bytes()), status::ERROR);
}

#[test]
fn indirect_segments_are_copied_once_and_checked() {
    let mut bench = Bench::new(false);
    let disk = bench.disk.bytes.borrow().clone();
    let segments: Vec<Segment> = (0..40).map(|_| segment(1, 4, 4)).collect();
    bench.guest.page(0).write(0, segments.as_bytes());
    let mut indirect = RequestIndirect::new_zeroed();
    indirect.operation = op::INDIRECT;
    indirect.indirect_op = op::READ;
    indirect.nr_segments = 40;
    indirect.sector_number = 10;
    assert_eq!(bench.ask(indirect.as_bytes()), status::OKAY);
    let mut page = [0; 512];
    bench.guest.page(1).read(2048, &mut page);
    assert_eq!(page[..], disk[49 * 512..50 * 512]);
    for (count, sector, gref) in [
        (0, 0, 0),
        (257, 0, 0),
        (u16::MAX, 0, 0),
        (40, 25, 0),
        (40, 0, 6),
    ] {
        indirect.nr_segments = count;
        indirect.sector_number = sector;
        indirect.indirect_grefs[0] = gref;
        assert_eq!(bench.ask(indirect.as_bytes()), status::ERROR);
    }
}

#[test]
fn what_a_disk_cannot_do_is_refused() {
    for (op, sector, segment, wanted) in [
        (op::READ, SECTORS, segment(0, 0, 0), status::ERROR),
        (op::READ, u64::MAX, segment(0, 0, 0), status::ERROR),
        (op::READ, SECTORS - 1, segment(0, 0, 1), status::ERROR),
        (op::READ, 0, segment(0, 2, 1), status::ERROR),
        (op::READ, 0, segment(0, 0, 8), status::ERROR),
        (op::READ, 0, segment(0, 255, 255), status::ERROR),
        (op::READ, 0, segment(6, 0, 0), status::ERROR),
        (op::READ, 0, segment(u32::MAX, 0, 0), status::ERROR),
        (op::WRITE, 0, segment(0, 0, 0), status::ERROR),
        (op::WRITE_BARRIER, 0, segment(0, 0, 0), status::ERROR),
        (4, 0, segment(0, 0, 0), status::EOPNOTSUPP),
    ] {
        let mut bench = Bench::new(true);
        let answer = bench.ask(request(op, sector, &[segment]).as_bytes());
        assert_eq!(answer, wanted, "{op} {sector} {segment:?}");
    }
    let mut bench = Bench::new(true);
    assert_eq!(
        bench.ask(request(op::READ, 0, &[]).as_bytes()),
        status::ERROR
    );
    let mut discard = RequestDiscard::new_zeroed();
    discard.operation = op::DISCARD;
    discard.nr_sectors = 8;
    assert_eq!(bench.ask(discard.as_bytes()), status::ERROR);
    discard.flag = 1;
    assert_eq!(bench.ask(discard.as_bytes()), status::EOPNOTSUPP);
}

#[test]
fn a_share_bounds_what_is_done_at_once() {
    let mut bench = Bench::new(false);
    let mut discard = RequestDiscard::new_zeroed();
    discard.operation = op::DISCARD;
    discard.sector_number = 8;
    discard.nr_sectors = 40;
    let read = request(op::READ, 0, &[segment(0, 0, 0)]);
    for bytes in [read.as_bytes(), discard.as_bytes(), read.as_bytes()] {
        assert!(bench.front.push(bytes));
    }
    let _ = bench.front.publish();
    let mut rounds = 0;
    while bench.serve(3).unwrap().more {
        rounds += 1;
    }
    assert!((10..13).contains(&rounds), "{rounds}");
    assert!(
        bench.disk.bytes.borrow()[8 * 512..48 * 512]
            .iter()
            .all(|byte| *byte == 0)
    );
    let operations: Vec<u8> = core::iter::from_fn(|| bench.response())
        .map(|r| r.operation)
        .collect();
    assert_eq!(operations, [op::READ, op::DISCARD, op::READ]);
}

#[test]
fn one_request_goes_in_steps_of_its_segments() {
    let mut bench = Bench::new(false);
    let disk = bench.disk.bytes.borrow().clone();
    let segments: Vec<Segment> = (0..5).map(|page| segment(page, 0, 3)).collect();
    bench.guest.page(5).write(0, segments.as_bytes());
    let mut indirect = RequestIndirect::new_zeroed();
    indirect.operation = op::INDIRECT;
    indirect.indirect_op = op::READ;
    indirect.nr_segments = 5;
    indirect.sector_number = 3;
    indirect.indirect_grefs[0] = 5;
    assert!(bench.front.push(indirect.as_bytes()));
    let _ = bench.front.publish();
    let mut page = [0; 4];
    for (moved, more) in [(2, true), (4, true), (5, false)] {
        assert_eq!(bench.serve(2).unwrap().more, more);
        // What was checked is not looked at again.
        bench.guest.page(5).write(0, &[0xff; 64]);
        assert_eq!(bench.response().is_some(), !more);
        for number in 0..5_usize {
            let at = 512 * (3 + 4 * number);
            bench
                .guest
                .page(u32::try_from(number).unwrap())
                .read(0, &mut page);
            let wanted = if number < moved {
                &disk[at..at + 4]
            } else {
                &[0; 4]
            };
            assert_eq!(page, wanted, "segment {number} of {moved}");
        }
    }
}

#[test]
fn what_is_answered_later_is_bounded_and_may_change_its_order() {
    let mut bench = Bench::new(false);
    bench.disk.later.set(true);
    let segments: Vec<Segment> = (0..64).map(|_| segment(1, 4, 4)).collect();
    bench.guest.page(0).write(0, segments.as_bytes());
    let mut indirect = RequestIndirect::new_zeroed();
    indirect.operation = op::INDIRECT;
    indirect.indirect_op = op::READ;
    indirect.nr_segments = 64;
    for id in 0..10 {
        indirect.id = id;
        assert!(bench.front.push(indirect.as_bytes()));
    }
    let _ = bench.front.publish();
    let mut answered = Vec::new();
    while answered.len() < 10 {
        let served = bench.serve(SHARE).unwrap();
        assert!(!served.more);
        let waiting = bench.disk.waiting.borrow().len();
        assert!(waiting * 64 <= 2 * MAX_UNDER_WAY && waiting != 0);
        // The last one first.
        let tag = bench.disk.waiting.borrow_mut().pop().unwrap();
        bench.back.answer(tag, Ok(()));
        let _ = bench.serve(SHARE).unwrap();
        answered.extend(core::iter::from_fn(|| bench.response()).map(|answer| answer.id));
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..10).collect::<Vec<_>>());
    let flush = request(op::FLUSH_DISKCACHE, 0, &[]);
    assert!(bench.front.push(flush.as_bytes()));
    let _ = bench.front.publish();
    let _ = bench.serve(SHARE).unwrap();
    let tag = bench.disk.waiting.borrow_mut().pop().unwrap();
    bench.back.answer(tag, Err(IoError));
    let _ = bench.serve(SHARE).unwrap();
    assert_eq!(bench.response().unwrap().status, status::ERROR);
}

#[test]
fn a_front_end_that_claims_too_much_is_given_up() {
    let mut bench = Bench::new(false);
    bench
        ._ring
        .view()
        .u32(abi::ring::REQ_PROD)
        .store(33, SeqCst);
    assert_eq!(bench.serve(SHARE), Err(Broken));
}

proptest! {
    /// Whatever the bytes of a request are, it gets one response that repeats its number, and
    /// a disk that may only be read stays what it was.
    #[test]
    fn any_bytes_get_one_response(
        entries in proptest::collection::vec(any::<[u8; ENTRY_MAX]>(), 1..32),
        heads in proptest::collection::vec((0u8..8, 0u8..14, 0u64..70), 32),
        read_only in any::<bool>(),
        share in prop_oneof![1usize..20, 1usize..1000],
    ) {
        let mut bench = Bench::new(read_only);
        let before = bench.disk.bytes.borrow().clone();
        for (mut entry, (operation, count, sector)) in entries.iter().copied().zip(&heads) {
            // Near to what is right, so that it is not refused at once.
            entry[0] = *operation;
            entry[1] = *count;
            entry[16..24].copy_from_slice(&sector.to_le_bytes());
            for segment in entry[24..].chunks_exact_mut(8) {
                segment[0] %= 7;
                segment[1..4].fill(0);
                segment[4] %= 5;
                segment[5] %= 9;
            }
            prop_assert!(bench.front.push(&entry));
        }
        let _ = bench.front.publish();
        let mut rounds = 0;
        while bench.serve(share).unwrap().more {
            rounds += 1;
            prop_assert!(rounds < 100_000);
        }
        for entry in &entries {
            let response = bench.response();
            let id = u64::from_le_bytes(entry[8..16].try_into().unwrap());
            prop_assert_eq!(response.map(|response| response.id), Some(id));
        }
        prop_assert_eq!(bench.response(), None);
        prop_assert!(!read_only || *bench.disk.bytes.borrow() == before);
    }
}
