//! The port to the world outside.

use super::{frame, hearers, mac};
use crate::{AttachError, Destination, MAX_OUTSIDE, Network, NotItsAddress, PortId};
use system::network::MacAddr;

/// Two guests' ports with the addresses 1 and 2, of which the second may have `limit` more, and
/// the uplink.
fn network(limit: u16) -> (Network, [PortId; 3]) {
    let mut network = Network::new();
    let uplink = network.attach_uplink().unwrap();
    let ports = [mac(1), mac(2)].map(|address| network.attach(address, limit).unwrap());
    (network, [ports[0], ports[1], uplink])
}

fn outside(n: u16) -> MacAddr {
    let [high, low] = n.to_be_bytes();
    MacAddr([4, 0, 0, 0, high, low])
}

#[test]
fn there_is_one() {
    let (mut network, [.., uplink]) = network(0);
    assert_eq!(network.attach_uplink(), Err(AttachError::Taken));
    network.detach(uplink);
    assert_eq!(network.attach_uplink(), Ok(uplink));
}

#[test]
fn what_is_for_nobody_here_goes_out() {
    let (mut network, [a, b, uplink]) = network(0);
    let unknown = network.route(a, frame(mac(1), outside(1)), 0);
    assert_eq!(unknown, Ok(Destination::Hearers));
    assert_eq!(hearers(&network, a, outside(1)), [uplink]);
    let neighbour = network.route(a, frame(mac(1), mac(2)), 0);
    assert_eq!(neighbour, Ok(Destination::Port(b)));
    for group in [MacAddr::BROADCAST, MacAddr([0x33, 0x33, 0, 0, 0, 1])] {
        assert_eq!(hearers(&network, a, group), [uplink, b]);
        assert_eq!(hearers(&network, uplink, group), [a, b]);
    }
    // A guest is as little believed as before.
    let spoofed = network.route(a, frame(outside(1), mac(2)), 0);
    assert_eq!(spoofed, Err(NotItsAddress));
}

#[test]
fn what_comes_in_is_for_those_here() {
    let (mut network, [a, _, uplink]) = network(0);
    let mut come = |source, to| network.route(uplink, frame(source, to), 0);
    assert_eq!(come(outside(1), mac(1)), Ok(Destination::Port(a)));
    assert_eq!(come(outside(2), outside(1)), Ok(Destination::Nobody));
    // To somebody that nobody knows: no guest hears it.
    assert_eq!(come(outside(1), outside(3)), Ok(Destination::Hearers));
    assert_eq!(hearers(&network, uplink, outside(3)), []);
    // Guests' own frames that come back, and groups that speak.
    for source in [mac(1), mac(2), MacAddr([0; 6]), MacAddr::BROADCAST] {
        let back = network.route(uplink, frame(source, MacAddr::BROADCAST), 0);
        assert_eq!(back, Err(NotItsAddress), "{source}");
    }
}

#[test]
fn nobody_here_takes_an_address_from_outside() {
    let (mut network, [a, b, uplink]) = network(3);
    assert!(network.route(uplink, frame(outside(1), mac(1)), 0).is_ok());
    let taken = network.route(b, frame(outside(1), mac(1)), 0);
    assert_eq!(taken, Err(NotItsAddress));
    // Nor does anybody here hear what is for it.
    let out = network.route(a, frame(mac(1), outside(1)), 0);
    assert_eq!(out, Ok(Destination::Port(uplink)));
    // What a guest has learned to be its own is not taken from outside.
    assert!(network.route(b, frame(outside(2), mac(1)), 0).is_ok());
    let other = network.route(uplink, frame(outside(2), mac(1)), 300);
    assert_eq!(other, Err(NotItsAddress));
    assert!(
        network
            .route(uplink, frame(outside(2), mac(1)), 301)
            .is_ok()
    );
}

#[test]
fn a_flood_of_addresses_takes_no_more_memory_and_nothing_from_guests() {
    let (mut network, [a, b, uplink]) = network(1);
    for n in 0..5000 {
        assert!(network.route(uplink, frame(outside(n), mac(1)), 0).is_ok());
    }
    assert_eq!(network.addresses(), 2 + usize::from(MAX_OUTSIDE));
    assert!(network.route(b, frame(mac(9), mac(1)), 0).is_ok());
    let known = network.route(a, frame(mac(1), mac(9)), 0);
    assert_eq!(known, Ok(Destination::Port(b)));
    // One that was not remembered can be reached all the same.
    let out = network.route(a, frame(mac(1), outside(4999)), 0);
    assert_eq!(out, Ok(Destination::Hearers));
    // Those that are silent make room.
    assert!(
        network
            .route(uplink, frame(outside(4999), mac(1)), 301)
            .is_ok()
    );
    let out = network.route(a, frame(mac(1), outside(4999)), 301);
    assert_eq!(out, Ok(Destination::Port(uplink)));
    assert_eq!(network.addresses(), 4);
}
