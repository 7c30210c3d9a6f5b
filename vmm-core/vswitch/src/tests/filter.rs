//! Rules and their order.

use std::vec::Vec;
use system::network::{Action, Direction, PortRange, Prefix, Rule};

use super::packet::{TCP, frame, ipv4, ipv6};
use crate::Filter;

const DENY: Rule = Rule {
    action: Action::Deny,
    ..ALLOW
};
const ALLOW: Rule = Rule {
    action: Action::Allow,
    direction: None,
    ethertype: None,
    protocol: None,
    source: None,
    destination: None,
    source_port: None,
    destination_port: None,
};

fn prefix(address: &str, bits: u8) -> Option<Prefix> {
    let address = address.parse().unwrap();
    Some(Prefix { address, bits })
}

const fn port(port: u16) -> Option<PortRange> {
    Some(PortRange {
        first: port,
        last: port,
    })
}

fn passes(rules: &[Rule], otherwise: Action, direction: Direction, frame: &[u8]) -> bool {
    Filter::new(rules.to_vec(), otherwise).passes(direction, frame, frame.len())
}

fn tcp() -> Vec<u8> {
    frame(&[], 0x800, &ipv4(6, 0, 0, TCP))
}

#[test]
fn the_first_rule_that_fits_decides() {
    use Direction::{In, Out};
    let web = Rule {
        destination_port: port(80),
        ..ALLOW
    };
    let passes = |rules: &[Rule], otherwise| passes(rules, otherwise, Out, &tcp());
    assert!(passes(&[], Action::Allow) && !passes(&[], Action::Deny));
    assert!(passes(&[web, DENY], Action::Deny));
    assert!(!passes(&[DENY, web], Action::Allow));
    let inwards = Rule {
        direction: Some(In),
        ..DENY
    };
    assert!(passes(&[inwards], Action::Allow));
}

#[test]
fn each_part_of_a_rule_must_fit() {
    let fits = |rule: Rule| {
        let rules = [Rule {
            action: Action::Deny,
            ..rule
        }];
        !passes(&rules, Action::Allow, Direction::Out, &tcp())
    };
    assert!(fits(ALLOW));
    let kind = |kind| Rule {
        ethertype: Some(kind),
        ..ALLOW
    };
    assert!(fits(kind(0x800)) && !fits(kind(0x806)));
    let protocol = |number| Rule {
        protocol: Some(number),
        ..ALLOW
    };
    assert!(fits(protocol(6)) && !fits(protocol(17)));
    let source = |address| Rule {
        source: prefix(address, 32),
        ..ALLOW
    };
    assert!(fits(source("10.0.0.1")) && !fits(source("10.0.0.2")));
    let destination = |address| Rule {
        destination: prefix(address, 32),
        ..ALLOW
    };
    assert!(fits(destination("10.0.0.2")) && !fits(destination("10.0.0.1")));
    let from = |number| Rule {
        source_port: port(number),
        ..ALLOW
    };
    assert!(fits(from(1000)) && !fits(from(80)));
    let to = |number| Rule {
        destination_port: port(number),
        ..ALLOW
    };
    assert!(fits(to(80)) && !fits(to(1000)));
    assert!(!fits(Rule {
        source: prefix("fd00::1", 128),
        ..ALLOW
    }));
}

#[test]
fn whoever_has_rules_hears_nothing_malformed() {
    let harmless = Rule {
        ethertype: Some(0x1234),
        ..DENY
    };
    let broken = &tcp()[..30];
    let passes = |rules: &[Rule]| passes(rules, Action::Allow, Direction::In, broken);
    assert!(passes(&[]) && !passes(&[harmless]));
}

#[test]
fn ports_do_not_fit_later_fragments() {
    let web = Rule {
        destination_port: port(80),
        ..ALLOW
    };
    let later = frame(&[], 0x800, &ipv4(6, 0, 3, TCP));
    assert!(!passes(&[web], Action::Deny, Direction::Out, &later));
    let fragment = [&[6, 0, 0, 8, 0, 0, 0, 0], TCP].concat();
    let later = frame(&[], 0x86dd, &ipv6(44, &fragment));
    assert!(!passes(&[web], Action::Deny, Direction::Out, &later));
}
