//! No domain makes the store keep more than its quotas allow.

use abi::DomId;
use abi::xs_wire::kind;

use super::{ask, begin, end, read, store_with, take, usage, word, write};
use crate::Quotas;

#[test]
fn nodes_watches_and_transactions_are_limited() {
    let mut store = store_with(Quotas {
        nodes: 5,
        watches: 2,
        transactions: 2,
        ..Quotas::default()
    });
    // The home is one.
    write(&mut store, 1, 0, "a/b/c", "").unwrap();
    assert_eq!(write(&mut store, 1, 0, "x/y", ""), Err("ENOSPC".into()));
    assert_eq!(read(&mut store, 1, 0, "x"), Err("ENOENT".into()));
    write(&mut store, 1, 0, "x", "").unwrap();
    let tx = begin(&mut store, 1);
    write(&mut store, 1, tx, "z", "").unwrap();
    assert_eq!(end(&mut store, 1, tx, true), Err("ENOSPC".into()));
    assert_eq!(read(&mut store, 1, 0, "z"), Err("ENOENT".into()));
    // What a transaction removes makes room for what it makes.
    let tx = begin(&mut store, 1);
    word(&mut store, 1, kind::RM, tx, "a").unwrap();
    write(&mut store, 1, tx, "z", "").unwrap();
    end(&mut store, 1, tx, true).unwrap();
    assert_eq!(usage(&mut store, 1).0, 3);

    for path in ["p\0t\0", "q\0t\0"] {
        ask(&mut store, 1, kind::WATCH, 0, path.as_bytes()).unwrap();
    }
    assert_eq!(
        ask(&mut store, 1, kind::WATCH, 0, b"r\0t\0"),
        Err("ENOSPC".into())
    );
    begin(&mut store, 1);
    begin(&mut store, 1);
    assert_eq!(
        word(&mut store, 1, kind::TRANSACTION_START, 0, ""),
        Err("ENOSPC".into())
    );
    // The neighbour is not concerned.
    write(&mut store, 2, 0, "a/b", "").unwrap();
    begin(&mut store, 2);
}

#[test]
fn sizes_are_limited() {
    let mut store = store_with(Quotas::default());
    assert_eq!(write(&mut store, 1, 0, "a", &"x".repeat(2048)), Ok(()));
    assert_eq!(
        write(&mut store, 1, 0, "a", &"x".repeat(2049)),
        Err("ENOSPC".into())
    );
    assert_eq!(
        write(&mut store, 1, 0, "b", &"x".repeat(2049)),
        Err("ENOSPC".into())
    );
    let names: std::vec::Vec<_> = (0..)
        .map(|n| std::format!("dir/{n:0>60}"))
        .take_while(|path| write(&mut store, 1, 0, path, "") == Ok(()))
        .collect();
    assert_eq!(names.len(), 2048 / 61);
}

#[test]
fn memory_is_limited_and_comes_back() {
    let mut store = store_with(Quotas {
        memory: 20_000,
        ..Quotas::default()
    });
    let value = "x".repeat(1000);
    let begin_with = usage(&mut store, 1).1;
    let written: std::vec::Vec<_> = (0..100)
        .map(|n| std::format!("n{n}"))
        .take_while(|path| write(&mut store, 1, 0, path, &value) == Ok(()))
        .collect();
    assert!((10..20).contains(&written.len()), "{}", written.len());
    for path in &written {
        word(&mut store, 1, kind::RM, 0, path).unwrap();
    }
    assert_eq!(usage(&mut store, 1).1, begin_with);
    let tx = begin(&mut store, 1);
    let taken = (0..100)
        .take_while(|n| write(&mut store, 1, tx, &std::format!("n{n}"), &value) == Ok(()))
        .count();
    assert!((10..20).contains(&taken), "{taken}");
    end(&mut store, 1, tx, false).unwrap();
    assert_eq!(usage(&mut store, 1).1, begin_with);
}

#[test]
fn nothing_grows_while_memory_is_short() {
    let mut store = store_with(Quotas::default());
    write(&mut store, 1, 0, "a", "x").unwrap();
    let tx = begin(&mut store, 1);
    write(&mut store, 1, tx, "b", "y").unwrap();
    store.set_short(true);
    assert_eq!(write(&mut store, 1, 0, "c", "z"), Err("ENOMEM".into()));
    assert_eq!(read(&mut store, 1, tx, "a"), Err("ENOMEM".into()));
    let watch = ask(&mut store, 1, kind::WATCH, 0, b"a\0t\0");
    assert_eq!(watch, Err("ENOMEM".into()));
    // What gives memory back, or takes none, goes on.
    assert_eq!(read(&mut store, 1, 0, "a"), Ok("x".into()));
    end(&mut store, 1, tx, true).unwrap();
    word(&mut store, 1, kind::RM, 0, "a").unwrap();
    store.set_short(false);
    write(&mut store, 1, 0, "c", "z").unwrap();
}

#[test]
fn replies_that_nobody_takes_stop_the_asking() {
    let mut store = store_with(Quotas {
        outstanding: 3,
        ..Quotas::default()
    });
    for _ in 0..3 {
        assert!(store.may_ask(DomId(1)));
        super::send(&mut store, 1, kind::READ, 0, b"a\0");
    }
    assert!(!store.may_ask(DomId(1)) && store.may_ask(DomId(2)));
    take(&mut store, 1);
    assert!(store.may_ask(DomId(1)));
}

#[test]
fn what_is_removed_counts_until_it_is_freed_and_no_request_sees_that() {
    let mut store = store_with(Quotas {
        nodes: 400,
        ..Quotas::default()
    });
    for n in 0..300 {
        write(&mut store, 1, 0, &std::format!("a/{n}"), "x").unwrap();
    }
    let full = usage(&mut store, 1).0;
    store.control().remove("/local/domain/1/a");
    // Out of sight at once; freed in steps.
    assert_eq!(store.control().read("/local/domain/1/a/7"), None);
    let mut steps = 1;
    while !store.bury() {
        steps += 1;
    }
    assert!(steps > 300 / 64, "{steps} steps");
    assert_eq!(usage(&mut store, 1).0, full - 301);

    for n in 0..300 {
        write(&mut store, 1, 0, &std::format!("b/{n}"), "x").unwrap();
    }
    word(&mut store, 1, kind::RM, 0, "b").unwrap();
    for n in 0..300 {
        write(&mut store, 1, 0, &std::format!("c/{n}"), "x").unwrap();
    }
}
