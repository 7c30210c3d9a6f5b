//! A disk's back end before a front end that uses it well, badly, and not at all.
//!
//! `xvda` is to have 2 MiB that may be written. `cycles=N` says how often the front end comes and goes.
#![no_std]
#![no_main]

use abi::blkif::{Segment, op, status};
use abi::event_channel::status as port_status;
use abi::grant_table::flags;
use abi::ring::{REQ_PROD, RSP_PROD};
use abi::xenbus::XenbusState;
use abi::{DomId, EvtchnPort, GrantRef};
use core::sync::atomic::Ordering::SeqCst;
use guests::disk::{Disk, request, segment};
use guests::report::Report;
use guests::{check, check_eq, grants, mailbox, runtime};
use heapless::format;
use pv_drivers::guest::event_channel;
use pv_drivers::guest::gnttab::Access;
use pv_drivers::xenstore::Text;

guests::main!(run);

const XVDA: u32 = 51712;
/// Sectors of `xvda`.
const SECTORS: u64 = 4096;

fn run(t: &mut Report) {
    let Some(mut disk) = Disk::find(XVDA) else {
        check!(t, false, "a disk with a back end");
        return;
    };
    introduced(t, &mut disk);
    transfers(t, &mut disk);
    refusals(t, &mut disk);
    foreign_pages(t, &mut disk);
    mad_index(t, &mut disk);
    mad_keys(t, &mut disk);
    mad_states(t, &mut disk);
    let cycles = runtime::option("cycles").unwrap_or(10);
    for cycle in 0..cycles {
        let connected = disk.connect() == XenbusState::Connected;
        let read = disk.request(&request(op::READ, 0, &[segment(disk.grefs[0], 0, 7)]));
        let closed = disk.close() == XenbusState::InitWait;
        let good = connected && closed && read == status::OKAY;
        if !check!(t, good, "cycle {cycle}") {
            return;
        }
    }
    storm(t, &mut disk);
    die(t, &mut disk);
}

/// What the back end says, and the way to a connection.
fn introduced(t: &mut Report, disk: &mut Disk) {
    check_eq!(t, disk.state(), XenbusState::InitWait, "the back end waits");
    let mode = disk.back("mode");
    check_eq!(t, mode.as_deref(), Ok("w"), "its mode");
    check_eq!(
        t,
        disk.connect(),
        XenbusState::Connected,
        "it connects at once"
    );
    let sectors = disk.back("sectors");
    check_eq!(t, sectors.as_deref(), Ok("4096"), "its size");
    let size = disk.back("sector-size");
    check_eq!(t, size.as_deref(), Ok("512"), "its sectors");
    check!(
        t,
        disk.table.is_in_use(disk.ring_gref),
        "it has the ring mapped"
    );
    let shown = event_channel::status(disk.port).map(|shown| (shown.status, shown.detail));
    check_eq!(
        t,
        shown,
        Ok((port_status::INTERDOMAIN, 0)),
        "it is bound to the port"
    );
    check_eq!(
        t,
        disk.say(XenbusState::Connected),
        XenbusState::Connected,
        "it stays so"
    );
}

fn transfers(t: &mut Report, disk: &mut Disk) {
    let [a, b, c, d] = disk.grefs;
    let pattern = |sector: u64| u8::try_from(sector % 251).unwrap_or(0);
    let mut bytes = [0; 512];
    for sector in 0..8u8 {
        disk.page(0).write(
            usize::from(sector) * 512,
            &[pattern(u64::from(sector)); 512],
        );
    }
    // Neither begins nor ends with a page of the disk.
    let write = request(op::WRITE, 3, &[segment(a, 2, 7), segment(a, 0, 1)]);
    check_eq!(t, disk.request(&write), status::OKAY, "writing");
    let read = request(op::READ, 0, &[segment(b, 0, 7), segment(c, 0, 7)]);
    check_eq!(t, disk.request(&read), status::OKAY, "reading");
    for (sector, wanted) in [
        (0, 0),
        (2, 0),
        (3, 2),
        (7, 6),
        (8, 7),
        (9, 0),
        (10, 1),
        (11, 0),
    ] {
        disk.page(1 + sector / 8).read(sector % 8 * 512, &mut bytes);
        check!(
            t,
            bytes == [pattern(wanted); 512],
            "sector {sector} holds what was written ({:x})",
            bytes[0]
        );
    }
    for operation in [op::FLUSH_DISKCACHE, op::WRITE_BARRIER] {
        let flush = request(operation, 0, &[]);
        check_eq!(t, disk.request(&flush), status::OKAY, "flush {operation}");
    }
    let last = request(op::READ, SECTORS - 1, &[segment(d, 7, 7)]);
    check_eq!(t, disk.request(&last), status::OKAY, "the last sector");
}

fn refusals(t: &mut Report, disk: &mut Disk) {
    let a = disk.grefs[0];
    let whole: [Segment; 1] = [segment(a, 0, 7)];
    for (operation, sector, segments, wanted) in [
        (op::READ, SECTORS, &whole, status::ERROR),
        (op::WRITE, SECTORS - 7, &whole, status::ERROR),
        (op::READ, u64::MAX, &whole, status::ERROR),
        (op::READ, u64::MAX - 7, &whole, status::ERROR),
        (op::READ, 0, &[segment(a, 5, 4)], status::ERROR),
        (op::READ, 0, &[segment(a, 0, 8)], status::ERROR),
        (op::READ, 0, &[segment(a, 255, 255)], status::ERROR),
        (op::READ, 0, &[segment(GrantRef(500), 0, 0)], status::ERROR),
        (op::READ, 0, &[segment(GrantRef(512), 0, 0)], status::ERROR),
        (
            op::WRITE,
            0,
            &[segment(GrantRef(u32::MAX), 0, 0)],
            status::ERROR,
        ),
        (200, 0, &whole, status::EOPNOTSUPP),
    ] {
        let request = request(operation, sector, segments);
        let answer = disk.request(&request);
        check_eq!(
            t,
            answer,
            wanted,
            "{operation} at {sector:x} of {segments:?}"
        );
    }
    let mut many = request(op::READ, 0, &whole);
    many.nr_segments = 12;
    check_eq!(t, disk.request(&many), status::ERROR, "twelve segments");
    check_eq!(
        t,
        disk.request(&request(op::READ, 0, &[])),
        status::ERROR,
        "no segment"
    );
}

/// Pages that are not granted as the request needs them.
fn foreign_pages(t: &mut Report, disk: &mut Disk) {
    let gfn = grants::HOLE;
    for (what, flags, to, read, write) in [
        (
            "a page granted for reading",
            flags::PERMIT_ACCESS | flags::READONLY,
            DomId::CONTROL,
            status::ERROR,
            status::OKAY,
        ),
        (
            "a page granted to somebody else",
            flags::PERMIT_ACCESS,
            DomId(77),
            status::ERROR,
            status::ERROR,
        ),
        (
            "an invalid entry",
            0,
            DomId::CONTROL,
            status::ERROR,
            status::ERROR,
        ),
        (
            "an entry for a transfer",
            flags::ACCEPT_TRANSFER,
            DomId::CONTROL,
            status::ERROR,
            status::ERROR,
        ),
    ] {
        let gref = GrantRef(400);
        let own = disk.table.grant(DomId::CONTROL, gfn, Access::Write);
        check!(t, own.is_some(), "an entry");
        if let Some(own) = own {
            // A frame without memory.
            let answer = disk.request(&request(op::READ, 0, &[segment(own, 0, 0)]));
            check_eq!(t, answer, status::ERROR, "a page that is not there");
            check_eq!(t, disk.table.end(own), Ok(()), "it is not in use");
        }
        grants::write_entry(gref, flags, to, disk.gfn(0));
        let answer = disk.request(&request(op::READ, 0, &[segment(gref, 0, 0)]));
        check_eq!(t, answer, read, "filling {what}");
        let answer = disk.request(&request(op::WRITE, 0, &[segment(gref, 0, 0)]));
        check_eq!(t, answer, write, "writing from {what}");
        grants::write_entry(gref, 0, DomId(0), disk.gfn(0));
    }
}

/// An index that makes no sense ends the connection, and nothing of the front end's is held.
fn mad_index(t: &mut Report, disk: &mut Disk) {
    for off in [33, u32::MAX, 1 << 31] {
        let mad = disk.ring().u32(REQ_PROD).load(SeqCst).wrapping_add(off);
        disk.ring().u32(REQ_PROD).store(mad, SeqCst);
        check_eq!(
            t,
            event_channel::send(disk.port),
            Ok(0),
            "sending with index {mad:x}"
        );
        check_eq!(
            t,
            disk.state(),
            XenbusState::Closing,
            "the back end has enough"
        );
        let error = disk.back("error");
        check_eq!(
            t,
            error.as_deref(),
            Ok("ring index out of range"),
            "it says why"
        );
        check!(
            t,
            !disk.table.is_in_use(disk.ring_gref),
            "the ring is not mapped any more"
        );
        let shown = event_channel::status(disk.port).map(|shown| shown.status);
        check_eq!(t, shown, Ok(port_status::UNBOUND), "the port is free");
        check_eq!(
            t,
            event_channel::send(disk.port),
            Ok(0),
            "sending to nobody"
        );
        check_eq!(t, disk.close(), XenbusState::InitWait, "a new start");
        check_eq!(
            t,
            disk.connect(),
            XenbusState::Connected,
            "and a new connection"
        );
        let read = request(op::READ, 0, &[segment(disk.grefs[0], 0, 7)]);
        check_eq!(t, disk.request(&read), status::OKAY, "which works");
    }
    // The front end's copy of the back end's index is its own affair.
    disk.ring().u32(RSP_PROD).store(12345, SeqCst);
    let read = request(op::READ, 0, &[segment(disk.grefs[0], 0, 7)]);
    check_eq!(
        t,
        disk.request(&read),
        status::OKAY,
        "an answer in spite of RSP_PROD"
    );
    check_eq!(t, disk.close(), XenbusState::InitWait, "the end of it");
    check!(
        t,
        !disk.table.is_in_use(disk.ring_gref),
        "nothing is mapped"
    );
}

/// Keys that cannot be connected to.
fn mad_keys(t: &mut Report, disk: &mut Disk) {
    let page = disk.grefs[0];
    let readonly = disk.table.grant(DomId::CONTROL, disk.gfn(1), Access::Read);
    let readonly = readonly.unwrap_or(page);
    let number: Text = format!("{readonly}").unwrap_or_default();
    for (key, value) in [
        ("ring-ref", ""),
        ("ring-ref", "x"),
        ("ring-ref", "-1"),
        ("ring-ref", "99999999999"),
        ("ring-ref", "4294967295"),
        ("ring-ref", "450"),
        ("ring-ref", &*number),
        ("ring-page-order", "5"),
        ("ring-page-order", "1"),
        ("event-channel", "0"),
        ("event-channel", "1000000"),
        ("event-channel", "1"),
        ("protocol", "vax-abi"),
        ("multi-queue-num-queues", "0"),
        ("multi-queue-num-queues", "2"),
    ] {
        // All of it good, and then one key spoilt.
        disk.port = event_channel::alloc_unbound(DomId::CONTROL).unwrap_or_default();
        let _ = disk.set("ring-ref", disk.ring_gref);
        let _ = disk.set("event-channel", disk.port);
        let _ = disk.set("protocol", "x86_64-abi");
        check_eq!(t, disk.set(key, value), Ok(()), "setting {key}");
        let state = disk.say(XenbusState::Initialised);
        check_eq!(t, state, XenbusState::Closing, "{key} = {value:?}");
        check!(
            t,
            !disk.table.is_in_use(disk.ring_gref),
            "nothing is mapped"
        );
        if key.contains("order") || key.contains("queues") {
            disk.unset(key);
        }
        check_eq!(t, disk.close(), XenbusState::InitWait, "a new start");
    }
}

/// States out of order, and one that goes.
fn mad_states(t: &mut Report, disk: &mut Disk) {
    for state in ["", "4294967298", "-4", "9", "four", "7", "8", "2"] {
        let _ = disk.set("state", state);
        let back = disk.state();
        let waits = matches!(back, XenbusState::InitWait | XenbusState::Closed);
        check!(t, waits, "state {state:?} connects nothing ({back:?})");
    }
    check_eq!(
        t,
        disk.say(XenbusState::Initialising),
        XenbusState::InitWait,
        "a new start"
    );
    check_eq!(t, disk.connect(), XenbusState::Connected, "connecting");
    // Without a word, as after a kexec.
    check_eq!(
        t,
        disk.say(XenbusState::Initialising),
        XenbusState::InitWait,
        "starting anew"
    );
    check!(
        t,
        !disk.table.is_in_use(disk.ring_gref),
        "the ring is let go"
    );
    check_eq!(
        t,
        disk.connect(),
        XenbusState::Connected,
        "connecting again"
    );
    disk.unset("state");
    check_eq!(
        t,
        disk.state(),
        XenbusState::Closed,
        "the front end's state is gone"
    );
    check!(
        t,
        !disk.table.is_in_use(disk.ring_gref),
        "the ring is let go"
    );
    check_eq!(
        t,
        disk.say(XenbusState::Initialising),
        XenbusState::InitWait,
        "it comes back"
    );
}

/// Events without requests.
fn storm(t: &mut Report, disk: &mut Disk) {
    check_eq!(t, disk.connect(), XenbusState::Connected, "connecting");
    for _ in 0..1000 {
        let _ = event_channel::send(disk.port);
    }
    let read = request(op::READ, 0, &[segment(disk.grefs[0], 0, 7)]);
    check_eq!(
        t,
        disk.request(&read),
        status::OKAY,
        "a request after the storm"
    );
    check!(
        t,
        event_channel::send(EvtchnPort(900)).is_err(),
        "other ports are not the disk's"
    );
}

/// Asks for more than one exit's share, and ends with requests in the ring that nobody was told of.
fn die(t: &mut Report, disk: &mut Disk) {
    let segments = [segment(disk.grefs[1], 0, 7); 11];
    let fill = |disk: &mut Disk| {
        let mut pushed = 0;
        while disk.push(&request(op::WRITE, 88 * pushed, &segments)) {
            pushed += 1;
        }
        pushed
    };
    check_eq!(t, fill(disk), 32, "requests fit into the ring");
    disk.kick();
    let mut answers = 0;
    let all = mailbox::wait(|| {
        while let Some(answer) = disk.response() {
            answers += u32::from(answer.status == status::OKAY);
        }
        answers == 32
    });
    check!(t, all, "all are answered ({answers})");
    check_eq!(t, fill(disk), 32, "requests fit into the ring again");
    disk.publish();
    check!(
        t,
        disk.table.is_in_use(disk.ring_gref),
        "it ends with the ring mapped"
    );
}
