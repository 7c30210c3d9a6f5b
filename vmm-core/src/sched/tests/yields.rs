//! Whom a vCPU that gives way lets go first.

use alloc::rc::Rc;
use core::num::NonZeroU32;

use super::sim::{ALLOWANCE, Member};
use crate::sched::bvt::{Account, Share};
use crate::sched::queue::{Place, Queue};

/// An account that has had so much more than one that has had nothing.
fn account(had: u64) -> Account {
    let mut account = Account::new(Share::new(NonZeroU32::MIN));
    account.charge(had, 0);
    account
}

/// The order in which vCPUs run that have had as much as given, when the last one of them spins and
/// those `wanted` are of its domain.
fn order(had: &[u64], wanted: &[usize]) -> alloc::vec::Vec<usize> {
    let mut queue = Queue::<Rc<Member>>::new(ALLOWANCE);
    let (spinner, others) = had.split_last().expect("a spinner");
    for (id, had) in others.iter().enumerate() {
        queue.insert(Place::of(&account(*had)), Rc::new(Member::new(id)));
    }
    let place = queue.behind(&account(*spinner), |other| wanted.contains(&other.id()));
    queue.insert(place, Rc::new(Member::new(others.len())));
    core::iter::from_fn(|| queue.pop().map(|member| member.id())).collect()
}

#[test]
fn who_spins_comes_behind_its_sibling() {
    assert_eq!(order(&[100, 300, 200, 0], &[1]), [0, 2, 1, 3]);
    assert_eq!(order(&[100, 300, 200, 0], &[1, 2]), [0, 2, 3, 1]);
    assert_eq!(order(&[100, 300, 0], &[0]), [0, 2, 1]);
}

#[test]
fn who_spins_comes_behind_the_first_without_a_sibling_near() {
    assert_eq!(order(&[100, 300, 0], &[]), [0, 2, 1]);
    let far = ALLOWANCE + 1;
    assert_eq!(order(&[100, far, 200, 0], &[1]), [0, 3, 2, 1]);
}

#[test]
fn who_has_had_more_keeps_its_place() {
    assert_eq!(order(&[100, 200, 250], &[0]), [0, 1, 2]);
}
