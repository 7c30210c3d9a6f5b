//! The channel against the model of a controller.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::testing::{Block, Fault, Machine, identity, machine};
use super::{Channel, Identity, command};
use crate::block::{Buffers, Direction, Done, Request, Span};
use crate::testing::FakeMemory;

/// Memory, and the request's number.
#[derive(Debug)]
struct Token {
    number: usize,
    spans: Vec<Span>,
}

impl Buffers for Token {
    fn spans(&self) -> impl Iterator<Item = Span> {
        self.spans.iter().copied()
    }
}

struct Bench {
    machine: Rc<RefCell<Machine>>,
    channel: Channel<Block, Rc<FakeMemory>, Token>,
    now: u64,
    /// How requests went, by their numbers.
    results: BTreeMap<usize, bool>,
}

impl Bench {
    fn new(sectors: [usize; 2]) -> Self {
        let (machine, parts) = machine(sectors);
        let channel = Channel::new(parts, || 0, |_, why| panic!("{why}"));
        Self {
            machine,
            channel,
            now: 0,
            results: BTreeMap::new(),
        }
    }

    fn note(&mut self, done: Option<Done<Token>>) {
        for request in done.iter().flat_map(|done| &done.requests) {
            let good = done.as_ref().is_some_and(|done| done.result.is_ok());
            let before = self.results.insert(request.token.number, good);
            assert_eq!(before, None, "done twice");
        }
    }

    /// A request for pages from `at` on in memory.
    fn request(
        number: usize,
        direction: Direction,
        sector: u64,
        sectors: u32,
        at: u64,
    ) -> Request<Token> {
        let spans = (0..u64::from(sectors))
            .map(|index| Span {
                address: at + index * 512,
                len: 512,
            })
            .collect();
        Request {
            disk: 0,
            flush_before: false,
            direction,
            sector,
            sectors,
            flush_after: false,
            token: Token { number, spans },
        }
    }

    fn submit(&mut self, request: Request<Token>) {
        assert!(self.channel.submit(request, self.now).is_ok());
    }

    /// Lets interrupts and time go on until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.machine.borrow_mut().work() {
                let done = self.channel.interrupt(self.now);
                self.note(done);
            } else if let Some(due) = self.channel.deadline() {
                self.now = self.now.max(due);
                let done = self.channel.look(self.now);
                self.note(done);
            } else {
                return;
            }
        }
        panic!("no end");
    }

    fn fill(&self, at: u64, sectors: u64, byte: u8) {
        let mut machine = self.machine.borrow_mut();
        for index in 0..sectors {
            machine.memory.insert(at + index * 512, [byte; 512]);
        }
    }
}

#[test]
fn disks_say_what_they_are() {
    let bench = Bench::new([100, 0]);
    let disk = bench.channel.disks()[0].clone().unwrap();
    assert_eq!(
        (disk.model.as_str(), disk.serial.as_str()),
        ("FAKE DISK", "S123")
    );
    assert_eq!(disk.sectors, 100);
    assert_eq!(bench.channel.disks()[1], None);
    let both = Bench::new([100, 200]);
    assert_eq!(both.channel.disks()[1].as_ref().unwrap().sectors, 200);
}

#[test]
fn a_disk_that_cannot_be_used_is_told_why() {
    let with = |at: usize, word: u16| {
        let mut words = identity(100);
        words[at] = word;
        Identity::parse(&words).unwrap_err()
    };
    assert!(with(0, 0x8000).contains("no ATA disk"));
    assert!(with(49, 0x200).contains("no DMA"));
    assert!(with(83, 0x7000).contains("48-bit"));
    assert!(with(83, 0x4400).contains("flush"));
    assert!(with(100, 0).contains("no sectors"));
    assert!(with(106, 0x5000).contains("512"));
}

#[test]
fn what_is_written_comes_back() {
    let mut bench = Bench::new([4096, 64]);
    bench.fill(0x1_0000, 8, 7);
    bench.submit(Bench::request(1, Direction::Write, 100, 8, 0x1_0000));
    bench.submit(Bench::request(2, Direction::Read, 96, 16, 0x2_0000));
    bench.settle();
    assert!(bench.results[&1] && bench.results[&2]);
    let machine = bench.machine.borrow();
    for (index, byte) in [(3, 0), (4, 7), (11, 7), (12, 0)] {
        assert_eq!(machine.memory[&(0x2_0000 + index * 512)], [byte; 512]);
    }
    assert_eq!(machine.resets, 0);
}

#[test]
fn neighbours_are_one_command() {
    let mut bench = Bench::new([4096, 0]);
    for number in 0..10 {
        let at = 0x1_0000 + number * 4096;
        bench.submit(Bench::request(
            number as usize,
            Direction::Read,
            number * 2,
            2,
            at,
        ));
    }
    bench.settle();
    assert_eq!(bench.results.len(), 10);
    let sizes: Vec<u32> = bench
        .machine
        .borrow()
        .commands
        .iter()
        .map(|(_, _, count)| *count)
        .collect();
    // The first was under way before the others came; the table has room for 32 pieces.
    assert_eq!(sizes, [2, 18]);
}

#[test]
fn a_flush_is_on_the_medium() {
    let mut bench = Bench::new([64, 0]);
    bench.fill(0x1_0000, 2, 9);
    bench.submit(Bench::request(1, Direction::Write, 0, 1, 0x1_0000));
    let mut barrier = Bench::request(2, Direction::Write, 1, 1, 0x1_0200);
    (barrier.flush_before, barrier.flush_after) = (true, true);
    bench.submit(barrier);
    bench.settle();
    assert!(bench.results[&2]);
    let machine = bench.machine.borrow();
    assert_eq!(
        machine.disks[0].as_ref().unwrap().durable[..1024],
        [9; 1024]
    );
    let order: Vec<u8> = machine.commands.iter().map(|(what, ..)| *what).collect();
    let [write, flush] = [command::WRITE_DMA_EXT, command::FLUSH_CACHE_EXT];
    assert_eq!(order, [write, flush, write, flush]);
}

#[test]
fn each_fault_is_tried_again_once() {
    for fault in [Fault::Error, Fault::Bus, Fault::Silence] {
        for times in [1, 2] {
            let mut bench = Bench::new([64, 0]);
            bench.machine.borrow_mut().faults = std::vec![fault; times].into();
            bench.submit(Bench::request(1, Direction::Read, 0, 4, 0x1_0000));
            bench.submit(Bench::request(2, Direction::Read, 32, 4, 0x2_0000));
            bench.settle();
            assert_eq!(bench.results[&1], times == 1, "{fault:?}");
            assert!(bench.results[&2], "{fault:?}");
            assert_eq!(bench.machine.borrow().resets as usize, times);
        }
    }
}

#[test]
fn a_flush_that_fails_is_no_flush() {
    let mut bench = Bench::new([64, 0]);
    bench.machine.borrow_mut().faults = [Fault::Error, Fault::Silence].into();
    let mut flush = Bench::request(1, Direction::Write, 0, 0, 0);
    flush.flush_before = true;
    bench.submit(flush);
    bench.settle();
    assert!(!bench.results[&1]);
}

#[test]
fn a_missing_interrupt_costs_time_only() {
    let mut bench = Bench::new([64, 0]);
    bench.machine.borrow_mut().faults = [Fault::Quiet].into();
    bench.submit(Bench::request(1, Direction::Read, 0, 4, 0x1_0000));
    bench.settle();
    assert!(bench.results[&1]);
    assert_eq!(bench.machine.borrow().resets, 0);
    let waited = bench.now;
    bench.channel.poll();
    bench.machine.borrow_mut().faults = [Fault::Quiet].into();
    bench.submit(Bench::request(2, Direction::Read, 0, 4, 0x1_0000));
    bench.settle();
    assert!(bench.results[&2] && bench.now - waited <= 1000);
}

#[test]
fn a_disk_that_is_gone_fails_all_and_for_ever() {
    let mut bench = Bench::new([4096, 0]);
    bench.machine.borrow_mut().faults = [Fault::None, Fault::Unplugged].into();
    for number in 0..100 {
        bench.submit(Bench::request(
            number,
            Direction::Read,
            number as u64 * 10,
            4,
            0x1_0000,
        ));
    }
    bench.settle();
    let good = bench.results.values().filter(|good| **good).count();
    assert_eq!((good, bench.results.len()), (1, 100));
    let late = Bench::request(100, Direction::Read, 0, 4, 0x1_0000);
    assert!(bench.channel.submit(late, bench.now).is_err());
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    let mut bench = Bench::new([64, 0]);
    let mut refused = |change: fn(&mut Request<Token>)| {
        let mut request = Bench::request(1, Direction::Read, 60, 4, 0x1_0000);
        change(&mut request);
        bench.channel.submit(request, 0).is_err()
    };
    assert!(refused(|request| request.sector = 61));
    assert!(refused(|request| request.sector = u64::MAX));
    assert!(refused(|request| request.disk = 1));
    assert!(refused(|request| request.disk = 9));
    assert!(refused(|request| request.sectors = 3));
    assert!(refused(|request| request.sectors = 0));
    assert!(refused(|request| request.token.spans[1].address = 1 << 32));
    assert!(refused(|request| request.token.spans[1].address += 1));
    assert!(!refused(|_| {}));
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Error),
        1 => Just(Fault::Bus),
        1 => Just(Fault::Silence),
        1 => Just(Fault::Quiet),
    ]
}

proptest! {
    /// Whatever goes wrong, each request ends once; one that succeeded did what it was for, and one
    /// that failed changed nothing but its own sectors.
    #[test]
    fn every_request_ends_once(
        requests in proptest::collection::vec((any::<bool>(), 0u64..200, 1u32..9, 0u8..4), 1..60),
        faults in proptest::collection::vec(fault(), 0..60),
        steps in any::<u64>(),
    ) {
        let mut bench = Bench::new([256, 0]);
        bench.machine.borrow_mut().faults = faults.into();
        let mut model: Vec<Option<u8>> = std::vec![Some(0); 256];
        for (number, (write, sector, sectors, flush)) in requests.iter().enumerate() {
            let at = 0x10_0000 + number as u64 * 0x1_0000;
            let byte = number as u8 + 1;
            let direction = if *write { Direction::Write } else { Direction::Read };
            bench.fill(at, (*sectors).into(), if *write { byte } else { 0xee });
            let mut request = Bench::request(number, direction, *sector, *sectors, at);
            request.flush_before = *flush == 0;
            request.flush_after = *flush == 1;
            bench.submit(request);
            if steps >> (number % 64) & 1 != 0 {
                bench.settle();
            }
            if *write {
                for place in *sector..sector + u64::from(*sectors) {
                    let place = &mut model[place as usize];
                    // Several that are under way together may end in any order.
                    *place = None;
                }
            }
        }
        bench.settle();
        prop_assert_eq!(bench.results.len(), requests.len());
        let machine = bench.machine.borrow();
        let contents = &machine.disks[0].as_ref().unwrap().contents;
        for (at, byte) in model.iter().enumerate() {
            if let Some(byte) = byte {
                prop_assert_eq!(&contents[at * 512..at * 512 + 512], &[*byte; 512]);
            }
        }
        // The last successful write of a sector that nobody wrote later is there.
        for (number, (write, sector, sectors, _)) in requests.iter().enumerate() {
            let mine = *sector..sector + u64::from(*sectors);
            let alone = !requests.iter().enumerate().any(|(other, (write, sector, sectors, _))| {
                other != number && *write && *sector < mine.end && sector + u64::from(*sectors) > mine.start
            });
            if *write && alone && bench.results[&number] {
                for place in mine {
                    let at = place as usize * 512;
                    prop_assert!(contents[at..at + 512].iter().all(|byte| *byte == number as u8 + 1));
                }
            }
        }
    }
}
