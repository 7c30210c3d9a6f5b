//! Rules of packet filters, one a line of words.

use std::net::IpAddr;

use ::system::network::{Action, Direction, PortRange, Prefix, Rule};

use super::table::nearest;

const EXAMPLE: &str = "\"allow out tcp to 10.0.0.2 port 80\"";

/// Words for types of frames.
const ETHERTYPES: &[(&str, u16)] = &[("ipv4", 0x0800), ("ipv6", 0x86dd), ("arp", 0x0806)];
/// Words for protocols over IP.
const PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
];
/// The other words.
const WORDS: &[&str] = &["in", "out", "from", "to", "port", "ethertype", "protocol"];

/// The side of a packet that `port` is about.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Reads a rule: `allow` or `deny`, and then in any order which way (`in`, `out`), a kind (`arp`,
/// `tcp`, `ethertype 0x88cc`, `protocol 47` ...), `from ADDRESS[/BITS]`, `to ADDRESS[/BITS]`, and
/// behind each of these `port N[-M]`; a port alone is the one that the packet goes to.
pub(super) fn parse(text: &str) -> Result<Rule, String> {
    let mut words = text.split_whitespace();
    let action = match words.next() {
        Some("allow") => Action::Allow,
        Some("deny") => Action::Deny,
        _ => return Err(format!("a rule begins with allow or deny, as in {EXAMPLE}")),
    };
    let mut rule = Rule {
        action,
        ..Rule::default()
    };
    let mut side = Side::Destination;
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("\"{word}\" wants something behind it, as in {EXAMPLE}"))
        };
        match word {
            "in" => once(&mut rule.direction, Direction::In, word)?,
            "out" => once(&mut rule.direction, Direction::Out, word)?,
            "ethertype" => once(&mut rule.ethertype, number(value()?)?, word)?,
            "protocol" => {
                let protocol = u8::try_from(number(value()?)?);
                let protocol = protocol.map_err(|_| "protocols go from 0 to 255".to_owned())?;
                once(&mut rule.protocol, protocol, word)?;
            }
            "from" => {
                once(&mut rule.source, prefix(value()?)?, word)?;
                side = Side::Source;
            }
            "to" => {
                once(&mut rule.destination, prefix(value()?)?, word)?;
                side = Side::Destination;
            }
            "port" => {
                let place = match side {
                    Side::Source => &mut rule.source_port,
                    Side::Destination => &mut rule.destination_port,
                };
                once(place, ports(value()?)?, word)?;
            }
            _ => {
                if let Some(kind) = meaning(ETHERTYPES, word) {
                    once(&mut rule.ethertype, kind, word)?;
                } else {
                    let protocol = meaning(PROTOCOLS, word).ok_or_else(|| unknown(word))?;
                    once(&mut rule.protocol, protocol, word)?;
                }
            }
        }
    }
    Ok(rule)
}

fn meaning<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    let known = words.iter().find(|(name, _)| *name == word);
    known.map(|(_, meaning)| *meaning)
}

/// Fills in a part that must not be there yet.
fn once<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!(
            "\"{word}\" says again what the rule has said; write one rule for each"
        )),
    }
}

fn unknown(word: &str) -> String {
    let kinds = ETHERTYPES.iter().map(|(name, _)| *name);
    let protocols = PROTOCOLS.iter().map(|(name, _)| *name);
    let known = WORDS.iter().copied().chain(kinds).chain(protocols);
    let remedy = match nearest(known.clone(), word) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("the words are {}", known.collect::<Vec<_>>().join(", ")),
    };
    format!("\"{word}\" is no word of a rule; {remedy}")
}

fn number(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("\"{text}\" is no number from 0 to 65535"))
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let bad = || format!("\"{text}\" is no address; write for example 10.0.0.0/24 or fd00::1");
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(whole), |bits| bits.parse().map_err(|_| bad()))?;
    let prefix = Prefix { address, bits };
    prefix.is_valid().then_some(prefix).ok_or_else(bad)
}

fn ports(text: &str) -> Result<PortRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!(
            "\"{text}\" is no range; write the lower port first"
        ));
    }
    Ok(PortRange { first, last })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use ::system::network::{Action, Direction, PortRange, Prefix, Rule};

    #[test]
    fn words_become_parts() {
        let prefix = |address: &str, bits| {
            let address = address.parse().unwrap();
            Some(Prefix { address, bits })
        };
        let range = |first, last| Some(PortRange { first, last });
        let allow = Rule::default();
        let cases = [
            ("allow", allow),
            (
                "deny in",
                Rule {
                    action: Action::Deny,
                    direction: Some(Direction::In),
                    ..allow
                },
            ),
            (
                "allow out tcp to 10.0.0.2 port 80",
                Rule {
                    direction: Some(Direction::Out),
                    protocol: Some(6),
                    destination: prefix("10.0.0.2", 32),
                    destination_port: range(80, 80),
                    ..allow
                },
            ),
            (
                "allow udp from fd00::/64 port 1000-2000",
                Rule {
                    protocol: Some(17),
                    source: prefix("fd00::", 64),
                    source_port: range(1000, 2000),
                    ..allow
                },
            ),
            (
                "allow port 53 from 10.0.0.0/8 port 1024-65535",
                Rule {
                    source: prefix("10.0.0.0", 8),
                    source_port: range(1024, 65535),
                    destination_port: range(53, 53),
                    ..allow
                },
            ),
            (
                "allow ethertype 0x88cc protocol 47",
                Rule {
                    ethertype: Some(0x88cc),
                    protocol: Some(47),
                    ..allow
                },
            ),
            (
                "allow arp",
                Rule {
                    ethertype: Some(0x806),
                    ..allow
                },
            ),
        ];
        for (text, rule) in cases {
            assert_eq!(parse(text), Ok(rule), "{text}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, told) in [
            ("", "a rule begins with allow or deny"),
            ("permit tcp", "a rule begins with allow or deny"),
            (
                "allow tcq",
                "\"tcq\" is no word of a rule; did you mean \"tcp\"?",
            ),
            (
                "allow everything",
                "\"everything\" is no word of a rule; the words are in, out",
            ),
            ("allow to", "\"to\" wants something behind it"),
            ("allow port 1 port 2", "\"port\" says again"),
            ("allow tcp udp", "\"udp\" says again"),
            ("allow to 10.0.0.256", "\"10.0.0.256\" is no address"),
            ("allow to 10.0.0.1/33", "\"10.0.0.1/33\" is no address"),
            ("allow port 80-70", "\"80-70\" is no range"),
            ("allow port http", "\"http\" is no number from 0 to 65535"),
            ("allow protocol 256", "protocols go from 0 to 255"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(told), "{text}: {error}");
        }
    }
}
