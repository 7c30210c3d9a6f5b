//! The front ends of `pv_drivers` before the back ends: a disk, and two interfaces on one network.
//!
//! They connect, are used, lose their back end and come back, and leave nothing granted.
#![no_std]
#![no_main]

use abi::ring::REQ_PROD;
use abi::{EvtchnPort, PAGE_SIZE};
use core::sync::atomic::Ordering::SeqCst;
use guests::memory::{self, Page};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, grants};
use pv_drivers::blk::{self, Buffer, Completion, DiskFront, Request};
use pv_drivers::guest::event_channel;
use pv_drivers::guest::pending::Pending;
use pv_drivers::net::{self, InterfaceFront, Pages};
use pv_drivers::shared_page::SharedPage;
use pv_drivers::xenbus::{Bus, Driver, FrontEnd, front::Phase};
use pv_drivers::xenstore::Client;

guests::main!(run);

/// Pieces of frames that an interface has room for, each way.
const SLOTS: usize = 8;
/// How often a front end begins anew.
const CYCLES: u32 = 50;
/// The longest sleep, in nanoseconds of system time.
const PATIENCE: u64 = 1_000_000_000;
/// Sectors of the disk.
const SECTORS: u64 = 4096;

static DISK_RING: Page = Page::new();
static DATA: [Page; 2] = [const { Page::new() }; 2];
static NET: [[Page; 2 + 2 * SLOTS]; 2] = [const { [const { Page::new() }; 2 + 2 * SLOTS] }; 2];

type Interface = InterfaceFront<SLOTS, SLOTS>;

struct Guest {
    bus: Bus<[SharedPage; 1]>,
    pending: Pending,
    shared: SharedInfo,
}

fn run(t: &mut Report) {
    let store = Client::frame().and_then(|frame| Client::connect(memory::view(frame)).ok());
    let (Some(store), Ok(grants)) = (store, grants::table()) else {
        check!(t, false, "a store and a grant table");
        return;
    };
    let shared = SharedInfo::map();
    let mut guest = Guest {
        bus: Bus { store, grants },
        pending: Pending::masked(shared.page()),
        shared,
    };
    let free = guest.bus.grants.free();
    disk(t, &mut guest);
    check_eq!(
        t,
        guest.bus.grants.free(),
        free,
        "grants of the disk come back"
    );
    interfaces(t, &mut guest);
    check_eq!(
        t,
        guest.bus.grants.free(),
        free,
        "grants of the interfaces come back"
    );
    let none = DiskFront::new(&mut guest.bus, 1, blk::Front::new(DISK_RING.own()));
    check!(t, none.is_err(), "a disk that is not there");
}

impl Guest {
    /// Sleeps until there is an event of a port; false if there is none for too long.
    fn wait(&self, port: Option<EvtchnPort>) -> bool {
        let Some(port) = port else { return false };
        let deadline = self.shared.now() + PATIENCE;
        while !self.pending.take(port) {
            let waited = self.pending.wait(&[port], deadline);
            if waited.is_err() || self.shared.now() > deadline {
                return false;
            }
        }
        true
    }

    /// Has a front end connect, whatever it takes.
    fn connect<D: Driver>(&mut self, front: &mut FrontEnd<D>) -> bool {
        for _ in 0..4 {
            match front.look(&mut self.bus) {
                Ok(Phase::Connected) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
            let port = self.bus.store.port();
            if !self.wait(Some(port)) || self.bus.store.poll().is_err() {
                return false;
            }
        }
        false
    }

    fn completed(&mut self, disk: &mut DiskFront, tag: u64) -> bool {
        loop {
            match disk.complete(&mut self.bus) {
                Ok(Some(done)) => {
                    return done
                        == Completion {
                            tag,
                            result: Ok(()),
                        };
                }
                Ok(None) if self.wait(disk.port()) => {}
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

/// Writes a page and reads it back.
fn use_disk(t: &mut Report, guest: &mut Guest, disk: &mut DiskFront, mark: u8) {
    let [from, to] = [DATA[0].own(), DATA[1].own()];
    from.write(0, &[mark; PAGE_SIZE]);
    to.zero(0, PAGE_SIZE);
    let written = disk.submit(&mut guest.bus, Request::Write(9, &[Buffer::whole(from)]), 1);
    let flushed = disk.submit(&mut guest.bus, Request::Flush, 2);
    disk.publish();
    let done = guest.completed(disk, 1) && guest.completed(disk, 2);
    check_eq!(
        t,
        (written, flushed, done),
        (Ok(()), Ok(()), true),
        "writing {mark}"
    );
    let read = disk.submit(&mut guest.bus, Request::Read(9, &[Buffer::whole(to)]), 3);
    disk.publish();
    let done = guest.completed(disk, 3);
    check_eq!(t, (read, done), (Ok(()), true), "reading {mark}");
    let same = (0..PAGE_SIZE).all(|at| to.u8(at).load(SeqCst) == mark);
    check!(t, same, "what was written {mark} is read");
}

fn disk(t: &mut Report, guest: &mut Guest) {
    let front = blk::Front::new(DISK_RING.own());
    let Ok(mut disk) = DiskFront::new(&mut guest.bus, 51712, front) else {
        check!(t, false, "a disk");
        return;
    };
    check!(t, guest.connect(&mut disk), "the disk connects");
    let info = disk.info();
    check_eq!(t, info.sectors, SECTORS, "its size");
    let can = [info.flushes, info.discards, !info.is_read_only];
    check_eq!(t, can, [true; 3], "what it can do");
    use_disk(t, guest, &mut disk, 1);
    let (free, port) = (guest.bus.grants.free(), disk.port());
    for cycle in 0..CYCLES {
        let ends = disk.restart(&mut guest.bus).is_ok() && guest.connect(&mut disk);
        let same = guest.bus.grants.free() == free && disk.port() == port;
        if !ends || !same {
            check_eq!(t, (ends, same), (true, true), "start {cycle}");
            return;
        }
    }
    use_disk(t, guest, &mut disk, 2);
    // An index that makes no sense: the back end ends the connection.
    let prod = DISK_RING.view();
    let prod = prod.u32(REQ_PROD);
    prod.store(prod.load(SeqCst).wrapping_add(99), SeqCst);
    let sent = disk.port().map(event_channel::send);
    check_eq!(t, sent, Some(Ok(0)), "an event");
    check!(
        t,
        guest.connect(&mut disk),
        "the disk connects after an error"
    );
    use_disk(t, guest, &mut disk, 3);
    let end = disk.close(&mut guest.bus);
    check_eq!(t, end, Ok(Phase::Gone), "the disk is closed");
}

fn interface(guest: &mut Guest, number: u32) -> Option<Interface> {
    let pages = &NET[number as usize];
    let page = |number: usize| pages[number].own();
    let front = net::Front::new(Pages {
        rings: [page(0), page(1)],
        rx: core::array::from_fn(|slot| page(2 + slot)),
        tx: core::array::from_fn(|slot| page(2 + SLOTS + slot)),
    });
    let mut interface = Interface::new(&mut guest.bus, number, front).ok()?;
    guest.connect(&mut interface).then_some(interface)
}

/// Sends frames of many lengths from one to the other.
fn send(t: &mut Report, guest: &mut Guest, from: &mut Interface, to: &mut Interface) {
    let mut frame = [0; 2 * PAGE_SIZE];
    let mut out = [0; 2 * PAGE_SIZE];
    let (head, _) = frame.split_at_mut(12);
    head[..6].copy_from_slice(&to.mac());
    head[6..].copy_from_slice(&from.mac());
    for (number, len) in [60, 1514, 4096, 4097, 2 * PAGE_SIZE]
        .into_iter()
        .enumerate()
    {
        let mark = u8::try_from(number).unwrap_or(0) + 1;
        frame[12..].fill(mark);
        let sent = from.send(&frame[..len]);
        from.publish();
        let mut received = to.receive(&mut out);
        if received == Ok(None) && guest.wait(to.port()) {
            received = to.receive(&mut out);
        }
        to.publish();
        let got = received.map(|frame| frame.map(|frame| frame.len));
        check_eq!(t, (sent, got), (Ok(()), Ok(Some(len))), "a frame");
        check!(t, frame[..len] == out[..len], "of {len} bytes is as it was");
        check_eq!(t, from.reclaim(), Ok(()), "its pages come back");
    }
}

fn interfaces(t: &mut Report, guest: &mut Guest) {
    let both = [0, 1].map(|number| interface(guest, number));
    let [Some(mut one), Some(mut two)] = both else {
        check!(t, false, "two interfaces");
        return;
    };
    send(t, guest, &mut one, &mut two);
    let free = guest.bus.grants.free();
    for cycle in 0..CYCLES {
        let ends = one.restart(&mut guest.bus).is_ok() && guest.connect(&mut one);
        let same = guest.bus.grants.free() == free;
        if !ends || !same {
            check_eq!(t, (ends, same), (true, true), "start {cycle}");
            return;
        }
    }
    send(t, guest, &mut two, &mut one);
    let ends = [one.close(&mut guest.bus), two.close(&mut guest.bus)];
    check_eq!(
        t,
        ends,
        [Ok(Phase::Gone), Ok(Phase::Gone)],
        "both are closed"
    );
}
