//! Two interfaces of one domain on one network: frames from one to the other, frames that must
//! not arrive, and a front end that keeps to no rule.
#![no_std]
#![no_main]

use abi::netif::{RxRequest, RxResponse, TxRequest, TxResponse, status, tx_flags};
use abi::xenbus::XenbusState;
use abi::{DomId, EvtchnPort, GrantRef, PAGE_SIZE};
use core::fmt::Display;
use core::sync::atomic::Ordering::Relaxed;
use guests::grants::{self, Table};
use guests::memory::{self, Page};
use guests::report::Report;
use guests::{check, check_eq};
use pv_drivers::guest::event_channel;
use pv_drivers::guest::gnttab::Access;
use pv_drivers::net::{Mac, parse_mac};
use pv_drivers::ring::{Front, Memory};
use pv_drivers::shared_page::SharedPage;
use pv_drivers::xenbus::Device;
use pv_drivers::xenstore::Client;
use zerocopy::{FromZeros as _, IntoBytes as _};

guests::main!(run);

/// Rings, and pages for frames, of both interfaces.
static RINGS: [Page; 4] = [const { Page::new() }; 4];
static PAGES: [Page; 4] = [const { Page::new() }; 4];

/// A reference that grants nothing.
const NOTHING: u32 = 500;
/// How often a front end connects and goes.
const CYCLES: u32 = 200;

struct Guest {
    store: Client,
    table: Table,
    devices: [Device; 2],
    /// References of [`PAGES`], for reading and for writing.
    pages: [u32; PAGES.len()],
}

/// An interface that is connected.
struct Interface<'a> {
    number: usize,
    mac: Mac,
    port: EvtchnPort,
    rings: [GrantRef; 2],
    tx: Front<&'a SharedPage>,
    rx: Front<&'a SharedPage>,
}

fn run(t: &mut Report) {
    let store = Client::frame().and_then(|frame| Client::connect(memory::view(frame)).ok());
    let (Some(mut store), Ok(mut table)) = (store, grants::table()) else {
        check!(t, false, "a store and a grant table");
        return;
    };
    let devices = [0, 1].map(|number| Device::find(&mut store, "vif", number));
    let [Ok(one), Ok(two)] = devices else {
        check!(t, false, "two interfaces ({devices:?})");
        return;
    };
    let pages = [0, 1, 2, 3].map(|page: usize| {
        let gref = table.grant(DomId::CONTROL, PAGES[page].gfn(), Access::Write);
        gref.map_or(NOTHING, |gref| gref.0)
    });
    let mut guest = Guest {
        store,
        table,
        devices: [one, two],
        pages,
    };
    let views = [0, 1, 2, 3].map(|ring: usize| RINGS[ring].view());
    let [tx0, rx0, tx1, rx1] = &views;
    let one = guest.connect(t, 0, tx0, rx0);
    let two = guest.connect(t, 1, tx1, rx1);
    let (Some(mut one), Some(mut two)) = (one, two) else {
        return;
    };
    frames(t, &guest, &mut one, &mut two);
    refused(t, &guest, &mut one, &mut two);
    // Whose slots make no sense is let go, and may come again.
    one.send(TxRequest {
        flags: tx_flags::MORE_DATA,
        ..guest.slot(0, 60)
    });
    let state = guest.back_state(0);
    check_eq!(t, state, XenbusState::Closing, "after slots without an end");
    guest.go(t, one);
    queues(t, &mut guest);
    for cycle in 0..CYCLES {
        let Some(interface) = guest.connect(t, 0, tx0, rx0) else {
            check!(t, false, "connection {cycle}");
            return;
        };
        guest.go(t, interface);
    }
    let Some(mut one) = guest.connect(t, 0, tx0, rx0) else {
        return;
    };
    frames(t, &guest, &mut one, &mut two);
    guest.go(t, one);
    guest.go(t, two);
}

/// Queues that there are not, for one vCPU. What else a connection needs is there from before.
fn queues(t: &mut Report, guest: &mut Guest) {
    let key = "multi-queue-num-queues";
    for count in [0, 2, 65537] {
        let said = guest.write(0, key, count) && guest.say(0, XenbusState::Connected);
        let state = guest.back_state(0);
        check_eq!(
            t,
            (said, state),
            (true, XenbusState::Closing),
            "{count} queues"
        );
        guest.say(0, XenbusState::Closed);
        guest.say(0, XenbusState::Initialising);
    }
    let gone = guest.devices[0].unset(&mut guest.store, key);
    check_eq!(t, gone, Ok(()), "the key is gone");
}

/// A frame arrives, from the right one only.
fn frames(t: &mut Report, guest: &Guest, one: &mut Interface<'_>, two: &mut Interface<'_>) {
    let (mine, yours) = (one.mac, two.mac);
    two.give(guest.pages[1]);
    fill(0, yours, mine, 1);
    check_eq!(
        t,
        one.sends(guest.slot(0, 60)),
        Some(status::OKAY),
        "a frame"
    );
    check_eq!(t, two.received(), Some(60), "it arrives");
    check!(t, same(60), "as it was sent");
    // In two pieces, over the whole of a page and more.
    two.give(guest.pages[1]);
    two.give(guest.pages[3]);
    fill(0, yours, mine, 7);
    one.put(TxRequest {
        flags: tx_flags::MORE_DATA,
        offset: 0,
        size: 4196,
        ..guest.slot(0, 0)
    });
    let answer = one.sends(guest.slot(2, 100));
    check_eq!(t, answer, Some(status::OKAY), "two pieces");
    check_eq!(
        t,
        one.answer(),
        Some(status::OKAY),
        "of which each is answered"
    );
    check_eq!(t, two.received(), Some(4096), "a page of them");
    check!(t, same(4096), "as it was sent");
    check_eq!(t, two.received(), Some(100), "and the rest");
    // Everybody's.
    two.give(guest.pages[1]);
    fill(0, [0xff; 6], mine, 2);
    check_eq!(
        t,
        one.sends(guest.slot(0, 60)),
        Some(status::OKAY),
        "a broadcast"
    );
    check_eq!(t, two.received(), Some(60), "it arrives");
    check_eq!(t, one.received(), None, "not at its sender's");
    fill(0, yours, yours, 3);
    let spoofed = one.sends(guest.slot(0, 60));
    check_eq!(t, spoofed, Some(status::DROPPED), "as if from another");
    fill(0, yours, [2, 9, 9, 9, 9, 9], 3);
    let spoofed = one.sends(guest.slot(0, 60));
    check_eq!(t, spoofed, Some(status::DROPPED), "as if from nobody");
    check_eq!(t, two.received(), None, "neither arrives");
    // Without room it is lost, and the next one is not.
    fill(0, yours, mine, 4);
    check_eq!(
        t,
        one.sends(guest.slot(0, 60)),
        Some(status::OKAY),
        "without room"
    );
    check_eq!(t, two.received(), None, "it is lost");
    two.give(guest.pages[1]);
    check_eq!(
        t,
        one.sends(guest.slot(0, 64)),
        Some(status::OKAY),
        "with room"
    );
    check_eq!(t, two.received(), Some(64), "the next one arrives");
}

/// What is not granted, or too short.
fn refused(t: &mut Report, guest: &Guest, one: &mut Interface<'_>, two: &mut Interface<'_>) {
    let (mine, yours) = (one.mac, two.mac);
    fill(0, yours, mine, 5);
    let foreign = TxRequest {
        gref: NOTHING,
        ..guest.slot(0, 60)
    };
    check_eq!(t, one.sends(foreign), Some(status::ERROR), "no grant");
    check_eq!(
        t,
        one.sends(guest.slot(0, 13)),
        Some(status::ERROR),
        "no frame"
    );
    two.give(NOTHING);
    two.give(guest.pages[1]);
    check_eq!(
        t,
        one.sends(guest.slot(0, 60)),
        Some(status::OKAY),
        "to no grant"
    );
    check_eq!(t, two.received(), Some(status::ERROR), "it cannot arrive");
    check_eq!(t, one.sends(guest.slot(0, 60)), Some(status::OKAY), "again");
    check_eq!(t, two.received(), Some(60), "and now it does");
}

/// Writes a frame into a page.
fn fill(page: usize, to: Mac, from: Mac, mark: u64) {
    let view = PAGES[page].view();
    for at in (0..PAGE_SIZE).step_by(8) {
        view.u64(at).store(mark * at as u64, Relaxed);
    }
    view.write(0, &to);
    view.write(6, &from);
}

/// True when the first page that was sent equals the first that was received.
fn same(len: usize) -> bool {
    let [sent, received] = [0, 1].map(|page: usize| PAGES[page].view());
    (0..len).all(|at| sent.u8(at).load(Relaxed) == received.u8(at).load(Relaxed))
}

impl Guest {
    /// A piece of a frame at the beginning of a page.
    fn slot(&self, page: usize, size: u16) -> TxRequest {
        TxRequest {
            gref: self.pages[page],
            offset: 0,
            flags: 0,
            id: 7,
            size,
        }
    }

    fn write(&mut self, number: usize, key: &str, value: impl Display) -> bool {
        self.devices[number]
            .set(&mut self.store, key, value)
            .is_ok()
    }

    fn back_state(&mut self, number: usize) -> XenbusState {
        self.devices[number].back_state(&mut self.store)
    }

    fn say(&mut self, number: usize, state: XenbusState) -> bool {
        self.devices[number].say(&mut self.store, state).is_ok()
    }

    /// Connects an interface, whose back end waits.
    fn connect<'a>(
        &mut self,
        t: &mut Report,
        number: usize,
        tx: &'a SharedPage,
        rx: &'a SharedPage,
    ) -> Option<Interface<'a>> {
        let mac = self.devices[number].own(&mut self.store, "mac").ok()?;
        let mac = parse_mac(&mac)?;
        let state = self.back_state(number);
        if state != XenbusState::InitWait {
            check_eq!(t, state, XenbusState::InitWait, "the back end waits");
        }
        let [tx_gfn, rx_gfn] = [0, 1].map(|ring| RINGS[2 * number + ring].gfn());
        let to = DomId::CONTROL;
        let rings = [
            self.table.grant(to, tx_gfn, Access::Write)?,
            self.table.grant(to, rx_gfn, Access::Write)?,
        ];
        let port = event_channel::alloc_unbound(to).ok()?;
        let interface = Interface {
            number,
            mac,
            port,
            rings,
            tx: Front::new(Memory::new([tx], size_of::<TxRequest>())?),
            rx: Front::new(Memory::new([rx], size_of::<RxRequest>())?),
        };
        let said = self.write(number, "tx-ring-ref", rings[0])
            && self.write(number, "rx-ring-ref", rings[1])
            && self.write(number, "event-channel", port)
            && self.write(number, "request-rx-copy", 1)
            && self.write(number, "feature-sg", 1)
            && self.say(number, XenbusState::Connected);
        let state = self.back_state(number);
        if !said || state != XenbusState::Connected {
            check_eq!(t, state, XenbusState::Connected, "the back end connects");
            return None;
        }
        Some(interface)
    }

    /// Ends a connection; nothing of it is in use then.
    fn go(&mut self, t: &mut Report, interface: Interface<'_>) {
        let number = interface.number;
        self.say(number, XenbusState::Closed);
        let state = self.back_state(number);
        let ended = interface.rings.map(|gref| self.table.end(gref).is_ok());
        let closed = event_channel::close(interface.port).is_ok();
        let good = state == XenbusState::Closed && ended == [true; 2] && closed;
        if !good {
            check!(t, good, "an end ({state:?}, {ended:?}, {closed})");
        }
        self.say(number, XenbusState::Initialising);
    }
}

impl Interface<'_> {
    fn put(&mut self, slot: TxRequest) {
        self.tx.push(slot.as_bytes());
    }

    /// Puts a slot in and sends all that are there.
    fn send(&mut self, slot: TxRequest) {
        self.put(slot);
        if self.tx.publish() {
            let _ = event_channel::send(self.port);
        }
    }

    /// The same; what the first slot's answer says.
    fn sends(&mut self, slot: TxRequest) -> Option<i16> {
        self.send(slot);
        self.answer()
    }

    fn answer(&mut self) -> Option<i16> {
        let mut answer = TxResponse::new_zeroed();
        let there = self.tx.take(answer.as_mut_bytes());
        let _ = self.tx.rearm();
        (there == Ok(true)).then_some(answer.status)
    }

    /// Gives a page to receive into.
    fn give(&mut self, gref: u32) {
        let request = RxRequest {
            id: 3,
            pad: 0,
            gref,
        };
        self.rx.push(request.as_bytes());
        let _ = self.rx.publish();
    }

    /// Bytes in the next page, or what went wrong with it.
    fn received(&mut self) -> Option<i16> {
        let mut response = RxResponse::new_zeroed();
        let there = self.rx.take(response.as_mut_bytes());
        (there == Ok(true)).then_some(response.status)
    }
}
