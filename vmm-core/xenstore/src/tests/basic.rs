//! Single requests.

use abi::DomId;
use abi::xs_wire::kind;

use super::{ask, read, store, word, write};
use crate::{Access, Perms, Store};

#[test]
fn what_is_written_is_read() {
    let mut store = store();
    assert_eq!(read(&mut store, 1, 0, "data/a"), Err("ENOENT".into()));
    assert_eq!(write(&mut store, 1, 0, "data/a", "hello"), Ok(()));
    assert_eq!(read(&mut store, 1, 0, "data/a"), Ok("hello".into()));
    assert_eq!(
        read(&mut store, 1, 0, "/local/domain/1/data/a"),
        Ok("hello".into())
    );
    assert_eq!(
        word(&mut store, 1, kind::DIRECTORY, 0, "data"),
        Ok("a\0".into())
    );
    assert_eq!(store.control().read("/local/domain/1/data"), Some(&[][..]));
    assert_eq!(write(&mut store, 1, 0, "data/a", ""), Ok(()));
    assert_eq!(read(&mut store, 1, 0, "data/a"), Ok(String::new()));
}

use std::string::String;

#[test]
fn domains_keep_to_themselves() {
    let mut store = store();
    write(&mut store, 1, 0, "secret", "x").unwrap();
    let path = "/local/domain/1/secret";
    assert_eq!(read(&mut store, 2, 0, path), Err("EACCES".into()));
    assert_eq!(write(&mut store, 2, 0, path, "y"), Err("EACCES".into()));
    assert_eq!(word(&mut store, 2, kind::RM, 0, path), Err("EACCES".into()));
    // Not even whether it exists.
    assert_eq!(
        read(&mut store, 2, 0, "/local/domain/1/other"),
        Err("EACCES".into())
    );
    assert_eq!(
        word(&mut store, 2, kind::DIRECTORY, 0, "/local"),
        Err("EACCES".into())
    );
    ask(&mut store, 1, kind::SET_PERMS, 0, b"secret\0n1\0r2\0").unwrap();
    assert_eq!(read(&mut store, 2, 0, path), Ok("x".into()));
    assert_eq!(write(&mut store, 2, 0, path, "y"), Err("EACCES".into()));
    assert_eq!(
        word(&mut store, 2, kind::GET_PERMS, 0, path),
        Ok("n1\0r2\0".into())
    );
}

#[test]
fn only_the_owner_sets_permissions_and_stays_it() {
    let mut store = store();
    write(&mut store, 1, 0, "a", "x").unwrap();
    ask(&mut store, 1, kind::SET_PERMS, 0, b"a\0b1\0").unwrap();
    let by_other = ask(
        &mut store,
        2,
        kind::SET_PERMS,
        0,
        b"/local/domain/1/a\0b1\0",
    );
    assert_eq!(by_other, Err("EACCES".into()));
    let given_away = ask(&mut store, 1, kind::SET_PERMS, 0, b"a\0b2\0");
    assert_eq!(given_away, Err("EPERM".into()));
    // What another makes below belongs to that other.
    write(&mut store, 2, 0, "/local/domain/1/a/b", "y").unwrap();
    assert_eq!(
        word(&mut store, 2, kind::GET_PERMS, 0, "/local/domain/1/a/b"),
        Ok("b2\0".into())
    );
}

#[test]
fn a_removed_node_takes_all_below_with_it() {
    let mut store = store();
    for path in ["a/b/c", "a/b/d", "a/e"] {
        write(&mut store, 1, 0, path, "x").unwrap();
    }
    assert_eq!(word(&mut store, 1, kind::RM, 0, "a/b"), Ok("OK\0".into()));
    assert_eq!(read(&mut store, 1, 0, "a/b/c"), Err("ENOENT".into()));
    assert_eq!(
        word(&mut store, 1, kind::DIRECTORY, 0, "a"),
        Ok("e\0".into())
    );
    // Again is fine, as long as there is something above.
    assert_eq!(word(&mut store, 1, kind::RM, 0, "a/b"), Ok("OK\0".into()));
    assert_eq!(
        word(&mut store, 1, kind::RM, 0, "x/y/z"),
        Err("ENOENT".into())
    );
    assert_eq!(word(&mut store, 1, kind::RM, 0, "/"), Err("EACCES".into()));
}

#[test]
fn bodies_that_make_no_sense_are_refused() {
    let mut store = store();
    for (kind, body) in [
        (kind::READ, &b"a"[..]),
        (kind::READ, b"a\0b\0"),
        (kind::READ, b"\0"),
        (kind::WRITE, b"a"),
        (kind::WRITE, b"a b\0x"),
        (kind::WATCH, b"a\0"),
        (kind::SET_PERMS, b"a\0"),
        (kind::SET_PERMS, b"a\0b1"),
        (kind::SET_PERMS, b"a\0q1\0"),
        (kind::TRANSACTION_END, b"X\0"),
        (kind::GET_DOMAIN_PATH, b"x\0"),
        (kind::MKDIR, b"@x\0"),
    ] {
        assert_eq!(
            ask(&mut store, 1, kind, 0, body),
            Err("EINVAL".into()),
            "{kind} {body:?}"
        );
    }
    assert_eq!(ask(&mut store, 1, 20, 0, b"\0"), Err("ENOSYS".into()));
    assert_eq!(
        ask(&mut store, 1, kind::WATCH_EVENT, 0, b"\0"),
        Err("ENOSYS".into())
    );
    assert_eq!(ask(&mut store, 1, u32::MAX, 0, b"\0"), Err("ENOSYS".into()));
    assert_eq!(
        ask(&mut store, 1, kind::CONTROL, 0, b"x\0"),
        Err("EACCES".into())
    );
    assert_eq!(
        ask(&mut store, 1, kind::READ, 9, b"a\0"),
        Err("ENOENT".into())
    );
}

#[test]
fn a_domain_learns_its_path() {
    let mut store = store();
    let path = word(&mut store, 1, kind::GET_DOMAIN_PATH, 0, "2");
    assert_eq!(path, Ok("/local/domain/2\0".into()));
}

#[test]
fn long_directories_come_in_parts() {
    let mut store = super::store_with(crate::Quotas {
        node_size: 100_000,
        ..crate::Quotas::default()
    });
    let name = |n: u32| std::format!("{n:032}");
    for n in 0..200 {
        write(&mut store, 1, 0, &std::format!("dir/{}", name(n)), "").unwrap();
    }
    assert_eq!(
        word(&mut store, 1, kind::DIRECTORY, 0, "dir"),
        Err("E2BIG".into())
    );
    let mut names = std::vec::Vec::new();
    let mut offset = 0;
    loop {
        let body = std::format!("dir\0{offset}\0");
        let part = ask(&mut store, 1, kind::DIRECTORY_PART, 0, body.as_bytes()).unwrap();
        let text = String::from_utf8(part).unwrap();
        let (_, list) = text.split_once('\0').unwrap();
        let last = list.ends_with("\0\0") || list == "\0";
        let list = if last { &list[..list.len() - 1] } else { list };
        offset += list.len();
        names.extend(list.split_terminator('\0').map(String::from));
        if last {
            break;
        }
    }
    assert_eq!(names, (0..200).map(name).collect::<std::vec::Vec<_>>());
}

#[test]
fn a_released_domain_is_forgotten_with_all_that_it_owns() {
    let mut store = store();
    write(&mut store, 1, 0, "a/b", "x").unwrap();
    // A place of another's where it may write.
    write(&mut store, 2, 0, "open", "").unwrap();
    ask(&mut store, 2, kind::SET_PERMS, 0, b"open\0n2\0b1\0").unwrap();
    write(&mut store, 1, 0, "/local/domain/2/open/theirs/deep", "y").unwrap();
    write(&mut store, 2, 0, "open/own", "z").unwrap();
    ask(&mut store, 2, kind::WATCH, 0, b"open\0t\0").unwrap();
    super::take(&mut store, 2);
    let mut leaving = store.release(DomId(1));
    while !store.clear(&mut leaving) {}
    assert!(store.outbox(DomId(1)).is_none());
    let children = |store: &mut Store, path: &str| {
        let control = store.control();
        let names = control.children(path).map(String::from);
        names.collect::<std::vec::Vec<_>>()
    };
    assert_eq!(children(&mut store, "/local/domain"), ["2"]);
    assert_eq!(children(&mut store, "/local/domain/2/open"), ["own"]);
    assert!(super::events(&mut store, 2).contains(&"open/theirs t".into()));
    // Another one of this number finds nothing of it.
    store.introduce(DomId(1)).unwrap();
    store
        .control()
        .make("/local/domain/1", Perms::new(DomId(1), Access::empty()))
        .unwrap();
    assert_eq!(read(&mut store, 1, 0, "a"), Err("ENOENT".into()));
}
