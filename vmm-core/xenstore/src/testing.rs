//! A client of the store: messages in, messages out, for tests.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests, on a host"
)]

extern crate std;

use std::string::{String, ToString};
use std::vec::Vec;

use abi::DomId;
use abi::xs_wire::{MsgHeader, kind};
use core::convert::Infallible;
use zerocopy::{FromBytes, IntoBytes};

use crate::{Access, Perms, Quotas, Store};

/// A store with the homes of domains 1 and 2, which both are connected.
#[must_use]
pub fn store() -> Store {
    store_with(Quotas::default())
}

/// The same, with other quotas.
#[must_use]
pub fn store_with(quotas: Quotas) -> Store {
    let mut store = Store::new(quotas).unwrap();
    for id in [1, 2] {
        let home = std::format!("/local/domain/{id}");
        store.introduce(DomId(id)).unwrap();
        let mut control = store.control();
        control
            .make(&home, Perms::new(DomId(id), Access::empty()))
            .unwrap();
    }
    store
}

/// Puts a request into the domain's inbox and lets the store carry it out.
pub fn send(store: &mut Store, id: u16, kind: u32, tx: u32, body: &[u8]) {
    let header = MsgHeader {
        kind,
        req_id: 42,
        tx_id: tx,
        len: u32::try_from(body.len()).unwrap(),
    };
    let bytes = [header.as_bytes(), body].concat();
    let mut rest = &bytes[..];
    let complete = store.inbox(DomId(id)).unwrap().fill(|out| {
        let count = out.len().min(rest.len());
        out[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        Ok::<_, Infallible>(count)
    });
    assert_eq!(complete, Ok(Ok(true)));
    store.process(DomId(id));
}

/// Takes all messages that wait for the domain: kind and body.
pub fn take(store: &mut Store, id: u16) -> Vec<(u32, Vec<u8>)> {
    let id = DomId(id);
    let mut bytes = Vec::new();
    while let Some(front) = store.outbox(id).map(crate::Outbox::front)
        && !front.is_empty()
    {
        bytes.extend_from_slice(front);
        let count = front.len();
        store.advance(id, count);
    }
    let mut messages = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (header, behind) = MsgHeader::read_from_prefix(rest).unwrap();
        let (body, behind) = behind.split_at(header.len as usize);
        messages.push((header.kind, body.to_vec()));
        rest = behind;
    }
    messages
}

/// A request and its reply: the body, or the error's name. Events are left out.
///
/// # Errors
/// The error's name.
pub fn ask(store: &mut Store, id: u16, kind: u32, tx: u32, body: &[u8]) -> Result<Vec<u8>, String> {
    send(store, id, kind, tx, body);
    let replies: Vec<_> = take(store, id)
        .into_iter()
        .filter(|(kind, _)| *kind != kind::WATCH_EVENT)
        .collect();
    let [(answer, body)] = &replies[..] else {
        panic!("{} replies", replies.len());
    };
    if *answer == kind::ERROR {
        let name = String::from_utf8(body.clone()).unwrap();
        return Err(name.trim_end_matches('\0').to_string());
    }
    assert_eq!(*answer, kind);
    Ok(body.clone())
}

/// Writes a node.
///
/// # Errors
/// The error's name.
pub fn write(store: &mut Store, id: u16, tx: u32, path: &str, value: &str) -> Result<(), String> {
    let body = std::format!("{path}\0{value}");
    ask(store, id, kind::WRITE, tx, body.as_bytes()).map(drop)
}

/// A request about a path.
///
/// # Errors
/// The error's name.
pub fn word(store: &mut Store, id: u16, kind: u32, tx: u32, path: &str) -> Result<String, String> {
    let body = std::format!("{path}\0");
    ask(store, id, kind, tx, body.as_bytes()).map(|body| String::from_utf8(body).unwrap())
}

/// Reads a node.
///
/// # Errors
/// The error's name.
pub fn read(store: &mut Store, id: u16, tx: u32, path: &str) -> Result<String, String> {
    word(store, id, kind::READ, tx, path)
}

/// Begins a transaction.
pub fn begin(store: &mut Store, id: u16) -> u32 {
    let answer = word(store, id, kind::TRANSACTION_START, 0, "").unwrap();
    answer.trim_end_matches('\0').parse().unwrap()
}

/// Ends a transaction.
///
/// # Errors
/// The error's name.
pub fn end(store: &mut Store, id: u16, tx: u32, commit: bool) -> Result<(), String> {
    let word = if commit { "T" } else { "F" };
    self::word(store, id, kind::TRANSACTION_END, tx, word).map(drop)
}

/// The events that wait for a domain: path and token.
pub fn events(store: &mut Store, id: u16) -> Vec<String> {
    let events = take(store, id).into_iter();
    events
        .map(|(kind, body)| {
            assert_eq!(kind, kind::WATCH_EVENT);
            let text = String::from_utf8(body).unwrap();
            text.trim_end_matches('\0').replace('\0', " ")
        })
        .collect()
}

/// What is counted as a domain's: nodes, and bytes.
///
/// # Panics
/// When the store does not know it.
pub fn usage(store: &mut Store, id: u16) -> (u32, usize) {
    while !store.bury() {}
    let usage = store.connection(DomId(id)).unwrap().usage;
    (usage.nodes, usage.memory())
}
