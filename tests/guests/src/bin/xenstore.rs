//! The xenstore: what a domain finds there, what it may write, watches and transactions.
#![no_std]
#![no_main]

use abi::xs_wire::{CONNECTED, CONNECTION, PAYLOAD_MAX, RECONNECT, REQ_PROD, kind};
use abi::{DomId, EvtchnPort, hvm::param};
use core::sync::atomic::Ordering;
use guests::report::Report;
use guests::{check, check_eq, memory};
use heapless::String;
use pv_drivers::guest::{event_channel, hvm};
use pv_drivers::xenstore::{Client, ClientError};

guests::main!(run);

/// An answer as text.
type Text = String<512>;

fn ask(store: &mut Client, kind: u32, tx: u32, words: &[&[u8]]) -> Result<Text, ClientError> {
    let mut answer = [0; 512];
    let len = store.ask(kind, tx, words, &mut answer)?;
    let mut text = Text::new();
    for byte in answer.iter().take(len) {
        let _ = text.push(char::from(*byte));
    }
    Ok(text)
}

fn read(store: &mut Client, path: &str) -> Result<Text, ClientError> {
    ask(store, kind::READ, 0, &[path.as_bytes(), &[0]])
}

fn write(store: &mut Client, tx: u32, path: &str, value: &str) -> Result<(), ClientError> {
    let words = [path.as_bytes(), &[0], value.as_bytes()];
    ask(store, kind::WRITE, tx, &words).map(drop)
}

fn refused<T>(answer: Result<T, ClientError>, name: &str) -> bool {
    matches!(answer, Err(ClientError::Refused(error)) if error == name)
}

fn run(t: &mut Report) {
    let Some(frame) = Client::frame() else {
        check!(t, false, "a store page");
        return;
    };
    let Ok(mut store) = Client::connect(memory::view(frame)) else {
        check!(t, false, "a port of the store");
        return;
    };
    found(t, &mut store);
    written(t, &mut store);
    watched(t, &mut store);
    transactions(t, &mut store);
    broken(t);
}

/// What is there from the start.
fn found(t: &mut Report, store: &mut Client) {
    let id = read(store, "domid");
    check!(t, id.is_ok(), "own domid ({id:?})");
    let id: u16 = id.ok().and_then(|id| id.parse().ok()).unwrap_or(0);
    check!(t, DomId(id) != DomId::CONTROL, "a domid of its own");
    let name = read(store, "name");
    check_eq!(t, name.as_deref(), Ok("xenstore"), "own name");
    for path in [
        "memory/target",
        "memory/static-max",
        "store/port",
        "cpu/0/availability",
    ] {
        let value = read(store, path);
        check!(t, value.is_ok(), "{path} is there ({value:?})");
    }
    let missing = read(store, "data/nothing");
    check!(t, refused(missing, "ENOENT"), "what is not there is not");
    let foreign = read(store, "/local/domain/0/name");
    check!(
        t,
        refused(foreign, "EACCES"),
        "others' nodes are not for it"
    );
}

fn written(t: &mut Report, store: &mut Client) {
    check_eq!(
        t,
        write(store, 0, "data/a/b", "value"),
        Ok(()),
        "writing below data"
    );
    check_eq!(
        t,
        read(store, "data/a/b").as_deref(),
        Ok("value"),
        "reading it"
    );
    let names = ask(store, kind::DIRECTORY, 0, &[b"data\0"]);
    check_eq!(t, names.as_deref(), Ok("a\0"), "its directory");
    let own = write(store, 0, "domid", "0");
    check!(t, refused(own, "EACCES"), "its domid is not its to write");
    let perms = ask(store, kind::GET_PERMS, 0, &[b"memory/target\0"]);
    check!(t, perms.is_ok(), "permissions ({perms:?})");
    // Longer than the ring, so that both sides wait for each other.
    let long = [b'x'; 2000];
    let sent = ask(store, kind::WRITE, 0, &[b"data/long\0", &long]);
    check!(t, sent.is_ok(), "a long value ({sent:?})");
    let mut back = [0; PAYLOAD_MAX as usize];
    let len = store.ask(kind::READ, 0, &[b"data/long\0"], &mut back);
    check_eq!(t, len, Ok(2000), "its length");
    check!(
        t,
        back.get(..2000) == Some(&long[..]),
        "the long value comes back"
    );
    let gone = ask(store, kind::RM, 0, &[b"data/long\0"]);
    check!(t, gone.is_ok(), "removing it");
    check!(t, refused(read(store, "data/long"), "ENOENT"), "it is gone");
}

fn watched(t: &mut Report, store: &mut Client) {
    let watch = ask(store, kind::WATCH, 0, &[b"data/w\0", b"token\0"]);
    check!(t, watch.is_ok(), "a watch ({watch:?})");
    check_eq!(
        t,
        write(store, 0, "data/w/x", "1"),
        Ok(()),
        "a change below it"
    );
    // One more answer, so that all events before it are here.
    let _ = read(store, "domid");
    let mut paths = 0;
    while let Some(event) = store.event() {
        let fits = event.token == "token" && (event.path == "data/w" || event.path == "data/w/x");
        check!(t, fits, "an event of the watch ({event:?})");
        paths += 1;
    }
    check_eq!(t, paths, 2, "an event at first, and one for the change");
}

fn transactions(t: &mut Report, store: &mut Client) {
    let begin = |store: &mut Client| {
        let id = ask(store, kind::TRANSACTION_START, 0, &[&[0]]).ok();
        id.and_then(|id| id.trim_end_matches('\0').parse().ok())
            .unwrap_or(0)
    };
    let tx = begin(store);
    check!(t, tx != 0, "a transaction");
    check_eq!(t, write(store, tx, "data/t", "in"), Ok(()), "writing in it");
    check!(
        t,
        refused(read(store, "data/t"), "ENOENT"),
        "nobody sees it yet"
    );
    let end = ask(store, kind::TRANSACTION_END, tx, &[b"T\0"]);
    check!(t, end.is_ok(), "its end ({end:?})");
    check_eq!(
        t,
        read(store, "data/t").as_deref(),
        Ok("in"),
        "everybody sees it"
    );
    let tx = begin(store);
    let seen = ask(store, kind::READ, tx, &[b"data/t\0"]);
    check_eq!(t, seen.as_deref(), Ok("in"), "reading in another");
    check_eq!(
        t,
        write(store, 0, "data/t", "out"),
        Ok(()),
        "a change from outside"
    );
    let end = ask(store, kind::TRANSACTION_END, tx, &[b"T\0"]);
    check!(t, refused(end, "EAGAIN"), "it has to be done again");
}

/// A ring whose index makes no sense is left alone until the guest connects anew.
fn broken(t: &mut Report) {
    let Some(page) = Client::frame().map(memory::view) else {
        return;
    };
    let port = hvm::get_param(param::STORE_EVTCHN).unwrap_or(0);
    let port = EvtchnPort(u32::try_from(port).unwrap_or(0));
    let sane = page.u32(REQ_PROD).load(Ordering::SeqCst);
    page.u32(REQ_PROD)
        .store(sane.wrapping_add(5000), Ordering::SeqCst);
    check_eq!(
        t,
        event_channel::send(port),
        Ok(0),
        "sending with a mad index"
    );
    let error = page.u32(abi::xs_wire::ERROR).load(Ordering::SeqCst);
    check_eq!(t, error, abi::xs_wire::ERROR_RINGIDX, "it is told");
    page.u32(CONNECTION).store(RECONNECT, Ordering::SeqCst);
    check_eq!(
        t,
        event_channel::send(port),
        Ok(0),
        "asking for a fresh start"
    );
    let state = page.u32(CONNECTION).load(Ordering::SeqCst);
    check_eq!(t, state, CONNECTED, "it is granted");
    let Ok(mut store) = Client::connect(page) else {
        check!(t, false, "connecting anew");
        return;
    };
    check_eq!(
        t,
        read(&mut store, "name").as_deref(),
        Ok("xenstore"),
        "the store answers again"
    );
}
