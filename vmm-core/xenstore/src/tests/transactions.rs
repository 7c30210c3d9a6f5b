//! Transactions: isolation and conflicts.

use abi::xs_wire::kind;

use super::{ask, begin, end, read, store, word, write};

#[test]
fn nobody_sees_a_transaction_before_its_commit() {
    let mut store = store();
    write(&mut store, 1, 0, "a", "1").unwrap();
    let tx = begin(&mut store, 1);
    write(&mut store, 1, tx, "a", "2").unwrap();
    write(&mut store, 1, tx, "b/c", "3").unwrap();
    assert_eq!(read(&mut store, 1, tx, "a"), Ok("2".into()));
    assert_eq!(
        word(&mut store, 1, kind::DIRECTORY, tx, "b"),
        Ok("c\0".into())
    );
    assert_eq!(read(&mut store, 1, 0, "a"), Ok("1".into()));
    assert_eq!(read(&mut store, 1, 0, "b/c"), Err("ENOENT".into()));
    end(&mut store, 1, tx, true).unwrap();
    assert_eq!(read(&mut store, 1, 0, "a"), Ok("2".into()));
    assert_eq!(read(&mut store, 1, 0, "b/c"), Ok("3".into()));
    assert_eq!(end(&mut store, 1, tx, true), Err("ENOENT".into()));
}

#[test]
fn an_aborted_one_leaves_nothing() {
    let mut store = store();
    let tx = begin(&mut store, 1);
    write(&mut store, 1, tx, "a", "2").unwrap();
    end(&mut store, 1, tx, false).unwrap();
    assert_eq!(read(&mut store, 1, 0, "a"), Err("ENOENT".into()));
}

#[test]
fn what_it_read_must_not_change() {
    let mut store = store();
    write(&mut store, 1, 0, "a", "1").unwrap();
    write(&mut store, 1, 0, "b", "1").unwrap();
    let tx = begin(&mut store, 1);
    read(&mut store, 1, tx, "a").unwrap();
    write(&mut store, 1, tx, "c", "1").unwrap();
    write(&mut store, 1, 0, "b", "2").unwrap();
    // b was none of its business.
    end(&mut store, 1, tx, true).unwrap();
    let tx = begin(&mut store, 1);
    read(&mut store, 1, tx, "a").unwrap();
    write(&mut store, 1, 0, "a", "2").unwrap();
    assert_eq!(end(&mut store, 1, tx, true), Err("EAGAIN".into()));
    // That something is not there is a thing that was read, too.
    let tx = begin(&mut store, 1);
    assert_eq!(read(&mut store, 1, tx, "new"), Err("ENOENT".into()));
    write(&mut store, 1, 0, "new", "1").unwrap();
    assert_eq!(end(&mut store, 1, tx, true), Err("EAGAIN".into()));
}

#[test]
fn a_removed_subtree_must_not_change() {
    let mut store = store();
    write(&mut store, 1, 0, "a/b/c", "1").unwrap();
    let tx = begin(&mut store, 1);
    word(&mut store, 1, kind::RM, tx, "a").unwrap();
    assert_eq!(read(&mut store, 1, tx, "a/b/c"), Err("ENOENT".into()));
    write(&mut store, 1, tx, "a/new", "1").unwrap();
    assert_eq!(
        word(&mut store, 1, kind::DIRECTORY, tx, "a"),
        Ok("new\0".into())
    );
    write(&mut store, 1, 0, "a/b/c", "2").unwrap();
    assert_eq!(end(&mut store, 1, tx, true), Err("EAGAIN".into()));
    assert_eq!(read(&mut store, 1, 0, "a/b/c"), Ok("2".into()));

    let tx = begin(&mut store, 1);
    word(&mut store, 1, kind::RM, tx, "a").unwrap();
    write(&mut store, 1, tx, "a/new", "1").unwrap();
    end(&mut store, 1, tx, true).unwrap();
    assert_eq!(
        word(&mut store, 1, kind::DIRECTORY, 0, "a"),
        Ok("new\0".into())
    );
    assert_eq!(read(&mut store, 1, 0, "a/b/c"), Err("ENOENT".into()));
}

#[test]
fn permissions_change_with_the_commit() {
    let mut store = store();
    write(&mut store, 1, 0, "a", "1").unwrap();
    let tx = begin(&mut store, 1);
    ask(&mut store, 1, kind::SET_PERMS, tx, b"a\0r1\0").unwrap();
    assert_eq!(
        word(&mut store, 1, kind::GET_PERMS, tx, "a"),
        Ok("r1\0".into())
    );
    assert_eq!(
        read(&mut store, 2, 0, "/local/domain/1/a"),
        Err("EACCES".into())
    );
    end(&mut store, 1, tx, true).unwrap();
    assert_eq!(read(&mut store, 2, 0, "/local/domain/1/a"), Ok("1".into()));
}

#[test]
fn transactions_do_not_nest() {
    let mut store = store();
    let tx = begin(&mut store, 1);
    assert_eq!(
        word(&mut store, 1, kind::TRANSACTION_START, tx, ""),
        Err("EBUSY".into())
    );
    assert_eq!(end(&mut store, 2, tx, true), Err("ENOENT".into()));
}
