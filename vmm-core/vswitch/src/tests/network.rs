//! Routing, learning and groups.

use super::{frame, hearers, mac};
use crate::{AttachError, Destination, MAX_GROUPS, Network, NotItsAddress, PortId};
use system::network::MacAddr;

/// Ports with the addresses 1, 2 and 3, the third of which may have `limit` more.
fn three(limit: u16) -> (Network, [PortId; 3]) {
    let mut network = Network::new();
    let mut attach = |last, limit| network.attach(mac(last), limit).unwrap();
    let ports = [attach(1, 0), attach(2, 0), attach(3, limit)];
    (network, ports)
}

#[test]
fn frames_go_where_their_address_is() {
    let (mut network, [a, b, c]) = three(0);
    let mut go = |from, last, to| network.route(from, frame(mac(last), mac(to)), 0);
    assert_eq!(go(a, 1, 2), Ok(Destination::Port(b)));
    assert_eq!(go(b, 2, 1), Ok(Destination::Port(a)));
    assert_eq!(go(a, 1, 3), Ok(Destination::Port(c)));
    // To oneself, and to nobody that is known.
    assert_eq!(go(a, 1, 1), Ok(Destination::Nobody));
    assert_eq!(go(a, 1, 9), Ok(Destination::Hearers));
    assert_eq!(hearers(&network, a, mac(9)), []);
    assert_eq!(hearers(&network, a, MacAddr::BROADCAST), [b, c]);
    let everybody = network.route(b, frame(mac(2), MacAddr::BROADCAST), 0);
    assert_eq!(everybody, Ok(Destination::Hearers));
}

#[test]
fn nobody_is_heard_as_another() {
    let (mut network, [a, _, c]) = three(4);
    let mut go = |from, source| network.route(from, frame(source, mac(2)), 0);
    for source in [mac(2), mac(7), MacAddr([0; 6]), MacAddr::BROADCAST] {
        assert_eq!(go(a, source), Err(NotItsAddress), "{source}");
    }
    // One that may have further addresses may not have others'.
    for source in [mac(1), mac(2), MacAddr([0; 6]), MacAddr([3, 0, 0, 0, 0, 1])] {
        assert_eq!(go(c, source), Err(NotItsAddress), "{source}");
    }
    assert!(go(c, mac(7)).is_ok() && go(c, mac(3)).is_ok());
    network.detach(c);
    assert_eq!(
        network.route(c, frame(mac(3), mac(2)), 0),
        Err(NotItsAddress)
    );
}

#[test]
fn a_port_learns_as_far_as_it_may() {
    let (mut network, [a, b, c]) = three(2);
    let mut go = |from, last, to, now| network.route(from, frame(mac(last), mac(to)), now);
    // Before it is learned, an address is looked for where there may be others.
    assert_eq!(go(a, 1, 10, 0), Ok(Destination::Hearers));
    assert!(go(c, 10, 1, 0).is_ok() && go(c, 11, 1, 100).is_ok());
    assert_eq!(go(a, 1, 10, 0), Ok(Destination::Port(c)));
    assert_eq!(go(c, 12, 1, 100), Err(NotItsAddress));
    // One that is used stays, one that is not makes room.
    assert!(go(c, 11, 1, 300).is_ok());
    assert_eq!(go(c, 12, 1, 300), Err(NotItsAddress));
    assert!(go(c, 12, 1, 301).is_ok());
    assert_eq!(go(a, 1, 10, 301), Ok(Destination::Hearers));
    assert_eq!(go(a, 1, 11, 301), Ok(Destination::Port(c)));
    assert_eq!(hearers(&network, a, mac(10)), [c]);
    assert_eq!(hearers(&network, c, mac(10)), []);
    // All go with their port.
    network.detach(c);
    for last in [3, 10, 11, 12] {
        let gone = network.route(a, frame(mac(1), mac(last)), 301);
        assert_eq!(gone, Ok(Destination::Hearers));
        assert_eq!(hearers(&network, a, mac(last)), []);
    }
    let back = network.route(b, frame(mac(2), mac(1)), 301);
    assert_eq!(back, Ok(Destination::Port(a)));
}

#[test]
fn a_learned_address_is_its_learners_while_it_is_used() {
    let mut network = Network::new();
    let a = network.attach(mac(1), 1).unwrap();
    let b = network.attach(mac(2), 1).unwrap();
    let mut go = |from, now| network.route(from, frame(mac(9), mac(3)), now);
    assert!(go(a, 0).is_ok());
    assert_eq!(go(b, 300), Err(NotItsAddress));
    assert!(go(b, 301).is_ok());
    assert_eq!(go(a, 301), Err(NotItsAddress));
    // It counts for its new learner only.
    assert!(network.route(a, frame(mac(8), mac(3)), 301).is_ok());
    let beyond = network.route(b, frame(mac(7), mac(3)), 301);
    assert_eq!(beyond, Err(NotItsAddress));
    // Whose own an address is, that one has it.
    let c = network.attach(mac(9), 0).unwrap();
    assert!(network.route(c, frame(mac(9), mac(1)), 301).is_ok());
    let taken = network.route(b, frame(mac(9), mac(1)), 301);
    assert_eq!(taken, Err(NotItsAddress));
    assert!(network.route(b, frame(mac(7), mac(1)), 301).is_ok());
}

#[test]
fn ports_are_refused_in_order() {
    let (mut network, [_, b, _]) = three(0);
    assert_eq!(network.attach(mac(2), 0), Err(AttachError::Taken));
    let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
    assert_eq!(network.attach(group, 0), Err(AttachError::NoStation));
    network.detach(b);
    assert_eq!(network.attach(mac(2), 0), Ok(b));
    let address = |n: u16| {
        let [high, low] = n.to_be_bytes();
        MacAddr([4, 0, 0, 0, high, low])
    };
    let attached = (0..5000).filter(|&n| network.attach(address(n), 0).is_ok());
    assert_eq!(attached.count(), crate::MAX_PORTS - 3);
    assert_eq!(network.attach(mac(5), 0), Err(AttachError::Full));
}

#[test]
fn groups_are_heard_by_choice() {
    let (mut network, [a, b, c]) = three(0);
    let group = |last| MacAddr([1, 0, 0x5e, 0, 0, last]);
    assert_eq!(hearers(&network, a, group(1)), [b, c]);
    network.select_groups(b, true);
    assert_eq!(hearers(&network, a, group(1)), [c]);
    network.join(b, group(1)).unwrap();
    assert_eq!(hearers(&network, a, group(1)), [b, c]);
    assert_eq!(hearers(&network, a, group(2)), [c]);
    assert_eq!(hearers(&network, a, MacAddr::BROADCAST), [b, c]);
    network.leave(b, group(1));
    assert_eq!(hearers(&network, a, group(1)), [c]);
    let joined = (0..=255).filter(|&last| network.join(b, group(last)).is_ok());
    assert_eq!(joined.count(), MAX_GROUPS);
    assert_eq!(network.join(b, group(0)), Ok(()), "once more");
    network.select_groups(b, false);
    assert_eq!(hearers(&network, a, group(200)), [b, c]);
}

#[test]
fn what_concerns_one_cable_stays_there() {
    let (mut network, [a, ..]) = three(4);
    let mut go = |last| {
        let group = MacAddr([1, 0x80, 0xc2, 0, 0, last]);
        network.route(a, frame(mac(1), group), 0)
    };
    assert_eq!(go(0), Ok(Destination::Nobody));
    assert_eq!(go(0xf), Ok(Destination::Nobody));
    assert_eq!(go(0x10), Ok(Destination::Hearers));
}
