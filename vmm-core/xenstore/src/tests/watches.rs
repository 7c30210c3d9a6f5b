//! Watches and their events.

use abi::xs_wire::kind;

use super::{ask, begin, end, events, store, store_with, take, word, write};
use crate::Quotas;

fn watch(
    store: &mut crate::Store,
    id: u16,
    path: &str,
    token: &str,
) -> Result<(), std::string::String> {
    let body = std::format!("{path}\0{token}\0");
    ask(store, id, kind::WATCH, 0, body.as_bytes()).map(drop)
}

#[test]
fn a_watch_begins_with_an_event_behind_the_reply() {
    let mut store = store();
    super::send(&mut store, 1, kind::WATCH, 0, b"device\0token\0");
    let messages = take(&mut store, 1);
    assert_eq!(messages[0], (kind::WATCH, b"OK\0".to_vec()));
    assert_eq!(
        messages[1],
        (kind::WATCH_EVENT, b"device\0token\0".to_vec())
    );
    assert_eq!(messages.len(), 2);
}

#[test]
fn changes_at_and_below_are_told_in_the_watchers_words() {
    let mut store = store();
    watch(&mut store, 1, "a", "rel").unwrap();
    watch(&mut store, 1, "/local/domain/1/a", "abs").unwrap();
    assert_eq!(watch(&mut store, 1, "a", "rel"), Err("EEXIST".into()));
    write(&mut store, 1, 0, "a/b", "x").unwrap();
    assert_eq!(
        events(&mut store, 1),
        std::vec::Vec::<std::string::String>::new()
    );
    // `ask` above took the events along with the replies; a change by the hypervisor shows them.
    store.control().write("/local/domain/1/a/b", b"y").unwrap();
    assert_eq!(
        events(&mut store, 1),
        ["a/b rel", "/local/domain/1/a/b abs"]
    );
    store.control().write("/local/domain/1/ab", b"y").unwrap();
    assert!(events(&mut store, 1).is_empty());
    ask(&mut store, 1, kind::UNWATCH, 0, b"a\0rel\0").unwrap();
    assert_eq!(
        ask(&mut store, 1, kind::UNWATCH, 0, b"a\0rel\0"),
        Err("ENOENT".into())
    );
    store.control().remove("/local/domain/1/a");
    assert_eq!(events(&mut store, 1), ["/local/domain/1/a abs"]);
}

#[test]
fn removal_is_told_to_those_that_watch_below() {
    let mut store = store();
    write(&mut store, 1, 0, "a/b/c", "x").unwrap();
    watch(&mut store, 1, "a/b/c", "there").unwrap();
    watch(&mut store, 1, "a/b/d", "not-there").unwrap();
    take(&mut store, 1);
    store.control().remove("/local/domain/1/a");
    assert_eq!(events(&mut store, 1), ["a/b/c there"]);
}

#[test]
fn nobody_hears_of_what_he_may_not_read() {
    let mut store = store();
    write(&mut store, 1, 0, "open/x", "1").unwrap();
    write(&mut store, 1, 0, "closed", "1").unwrap();
    ask(&mut store, 1, kind::SET_PERMS, 0, b"open\0r1\0").unwrap();
    watch(&mut store, 2, "/local/domain/1", "w").unwrap();
    take(&mut store, 2);
    write(&mut store, 1, 0, "closed", "2").unwrap();
    assert!(events(&mut store, 2).is_empty());
    // A child that may not be read of a parent that may.
    write(&mut store, 1, 0, "open/x", "2").unwrap();
    assert_eq!(events(&mut store, 2), ["/local/domain/1/open/x w"]);
    // Losing the right to read is the last that is heard.
    ask(&mut store, 1, kind::SET_PERMS, 0, b"open\0n1\0").unwrap();
    assert_eq!(events(&mut store, 2), ["/local/domain/1/open w"]);
    ask(&mut store, 1, kind::SET_PERMS, 0, b"open\0n1\0").unwrap();
    assert!(events(&mut store, 2).is_empty());
}

#[test]
fn a_transactions_changes_are_told_at_commit_and_once() {
    let mut store = store();
    watch(&mut store, 2, "/local/domain/2", "w").unwrap();
    take(&mut store, 2);
    let tx = begin(&mut store, 2);
    super::send(&mut store, 2, kind::WRITE, tx, b"dir/a\0one");
    super::send(&mut store, 2, kind::WRITE, tx, b"dir/a\0two");
    super::send(&mut store, 2, kind::WRITE, tx, b"b\0one");
    super::send(&mut store, 2, kind::RM, tx, b"b\0");
    assert!(
        take(&mut store, 2)
            .iter()
            .all(|(kind, _)| *kind != kind::WATCH_EVENT)
    );
    super::send(&mut store, 2, kind::TRANSACTION_END, tx, b"T\0");
    let messages = take(&mut store, 2);
    let told: std::vec::Vec<_> = messages
        .iter()
        .filter(|(kind, _)| *kind == kind::WATCH_EVENT)
        .map(|(_, body)| std::string::String::from_utf8_lossy(body).replace('\0', " "))
        .collect();
    assert_eq!(told, ["/local/domain/2/dir/a w "]);
    let tx = begin(&mut store, 2);
    write(&mut store, 2, tx, "c", "1").unwrap();
    end(&mut store, 2, tx, false).unwrap();
    assert!(events(&mut store, 2).is_empty());
}

#[test]
fn events_that_nobody_takes_do_not_pile_up() {
    let mut store = store_with(Quotas {
        events: 3,
        ..Quotas::default()
    });
    watch(&mut store, 1, "a", "w").unwrap();
    take(&mut store, 1);
    for n in 0..10 {
        let path = std::format!("/local/domain/1/a/{n}");
        store.control().write(&path, b"x").unwrap();
        store.control().write(&path, b"y").unwrap();
    }
    assert_eq!(events(&mut store, 1).len(), 3);
    // Once they are taken, later ones come.
    store.control().write("/local/domain/1/a/0", b"z").unwrap();
    assert_eq!(events(&mut store, 1), ["a/0 w"]);
}

#[test]
fn a_reset_drops_watches_and_transactions() {
    let mut store = store();
    watch(&mut store, 1, "a", "w").unwrap();
    let tx = begin(&mut store, 1);
    word(&mut store, 1, kind::RESET_WATCHES, 0, "").unwrap();
    store.control().write("/local/domain/1/a", b"x").unwrap();
    assert!(events(&mut store, 1).is_empty());
    assert_eq!(end(&mut store, 1, tx, true), Err("ENOENT".into()));
}

#[test]
fn the_hypervisors_watches_keep_one_mark_for_all_changes() {
    let mut store = store();
    let mut control = store.control();
    control.watch("/local/domain/1/a/state", 7).unwrap();
    control.watch("/local/domain/2/a", 8).unwrap();
    assert_eq!(store.next_fired(), None);
    for value in ["1", "2", "3"] {
        write(&mut store, 1, 0, "a/state", value).unwrap();
    }
    write(&mut store, 1, 0, "a/other", "1").unwrap();
    assert_eq!((store.next_fired(), store.next_fired()), (Some(7), None));
    // In a transaction: at its end, and only if that comes to something.
    for commit in [false, true] {
        let tx = begin(&mut store, 2);
        write(&mut store, 2, tx, "a/b", "1").unwrap();
        assert_eq!(store.next_fired(), None);
        end(&mut store, 2, tx, commit).unwrap();
        assert_eq!(store.next_fired(), commit.then_some(8));
    }
    // What lies above goes, and what is watched with it.
    ask(&mut store, 1, kind::RM, 0, b"a\0").unwrap();
    assert_eq!((store.next_fired(), store.next_fired()), (Some(7), None));
    store.control().unwatch(7);
    write(&mut store, 1, 0, "a/state", "1").unwrap();
    assert_eq!(store.next_fired(), None);
}
