//! What is read from frames, and that no bytes do harm.

use core::net::IpAddr;
use proptest::prelude::{Just, any, prop_assert_eq, prop_oneof, proptest};
use std::vec::Vec;

use crate::{Ethernet, Malformed, Packet, WINDOW};

/// A frame of this type with tags of virtual LANs and contents.
pub(super) fn frame(tags: &[u16], kind: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![2; 12];
    for tag in tags {
        bytes.extend_from_slice(&tag.to_be_bytes());
        bytes.extend_from_slice(&[0, 7]);
    }
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2; `words` of options, the fragment's offset in units
/// of eight bytes.
pub(super) fn ipv4(protocol: u8, words: u8, fragment: u16, content: &[u8]) -> Vec<u8> {
    let head = 20 + 4 * usize::from(words);
    let mut bytes = std::vec![0; head];
    bytes[0] = 0x45 + words;
    let total = u16::try_from(head + content.len()).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
    bytes[9] = protocol;
    bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend_from_slice(content);
    bytes
}

/// An IPv6 packet from fd00::1 to fd00::2.
pub(super) fn ipv6(next: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![0; 40];
    bytes[0] = 0x60;
    let length = u16::try_from(content.len()).unwrap();
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes[6] = next;
    (bytes[8], bytes[23], bytes[24], bytes[39]) = (0xfd, 1, 0xfd, 2);
    bytes.extend_from_slice(content);
    bytes
}

/// Ports 1000 and 80, and some more.
pub(super) const TCP: &[u8] = &[0x03, 0xe8, 0, 80, 9, 9, 9, 9, 9, 9, 9, 9];

fn parse(frame: &[u8]) -> Result<Packet, Malformed> {
    let window = &frame[..frame.len().min(WINDOW)];
    Packet::parse(window, frame.len())
}

fn packet(kind: u16, addresses: [&str; 2], protocol: u8, ports: bool) -> Result<Packet, Malformed> {
    let [from, to] = addresses.map(|address| address.parse::<IpAddr>().unwrap());
    Ok(Packet {
        ethertype: kind,
        addresses: Some((from, to)),
        protocol: Some(protocol),
        ports: ports.then_some((1000, 80)),
    })
}

fn v4(protocol: u8, ports: bool) -> Result<Packet, Malformed> {
    packet(0x800, ["10.0.0.1", "10.0.0.2"], protocol, ports)
}

fn v6(protocol: u8, ports: bool) -> Result<Packet, Malformed> {
    packet(0x86dd, ["fd00::1", "fd00::2"], protocol, ports)
}

#[test]
fn ipv4_is_read() {
    let read = |content: &[u8]| parse(&frame(&[], 0x800, content));
    assert_eq!(read(&ipv4(6, 0, 0, TCP)), v4(6, true));
    assert_eq!(read(&ipv4(17, 10, 0, TCP)), v4(17, true), "with options");
    assert_eq!(
        read(&ipv4(6, 0, 0x2000, TCP)),
        v4(6, true),
        "first fragment"
    );
    assert_eq!(read(&ipv4(6, 0, 1, TCP)), v4(6, false), "later fragment");
    assert_eq!(read(&ipv4(1, 0, 0, &[8])), v4(1, false), "ICMP");
    for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
        let tagged = frame(tags, 0x800, &ipv4(6, 0, 0, TCP));
        assert_eq!(parse(&tagged), v4(6, true), "{tags:x?}");
    }
    // The frame may be longer than the packet, since frames have a least size.
    let padded = [&ipv4(6, 0, 0, TCP)[..], &[0; 30]].concat();
    assert_eq!(read(&padded), v4(6, true));
}

#[test]
fn what_lies_is_malformed() {
    let read = |content: &[u8]| parse(&frame(&[], 0x800, content));
    let with = |at: usize, value: u8| {
        let mut bytes = ipv4(6, 0, 0, TCP);
        bytes[at] = value;
        read(&bytes)
    };
    assert_eq!(with(0, 0x65), Err(Malformed), "version");
    assert_eq!(with(0, 0x44), Err(Malformed), "head too short");
    assert_eq!(with(0, 0x4f), Err(Malformed), "head beyond the packet");
    assert_eq!(with(3, 33), Err(Malformed), "longer than the frame");
    assert_eq!(with(3, 23), Err(Malformed), "ends before the ports");
    assert_eq!(read(&ipv4(6, 0, 0x2000, &TCP[..3])), Err(Malformed));
    let tags = [0x8100, 0x8100, 0x8100];
    assert_eq!(
        parse(&frame(&tags, 0x800, &ipv4(6, 0, 0, TCP))),
        Err(Malformed)
    );
    assert_eq!(parse(&[2; 13]), Err(Malformed));
}

#[test]
fn ipv6_is_read_behind_its_extensions() {
    let read = |next, content: &[u8]| parse(&frame(&[], 0x86dd, &ipv6(next, content)));
    let behind = |head: &[u8]| [head, TCP].concat();
    assert_eq!(read(6, TCP), v6(6, true));
    assert_eq!(read(58, &[128]), v6(58, false));
    for kind in [0, 43, 60] {
        let one = [6, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(kind, &behind(&one)), v6(6, true), "{kind}");
        let two = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(kind, &behind(&two)), v6(6, true), "{kind}");
    }
    let authentication = [17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(read(51, &behind(&authentication)), v6(17, true));
    assert_eq!(read(44, &behind(&[6, 0, 0, 1, 0, 0, 0, 0])), v6(6, true));
    let later = [6, 0, 0, 8, 0, 0, 0, 0];
    assert_eq!(read(44, &behind(&later)), v6(6, false));
    assert_eq!(read(59, &[]), v6(59, false), "nothing follows");
    // A chain that does not end in sight.
    let long = [6, 10, 0, 0, 0, 0, 0, 0].repeat(11);
    assert_eq!(read(0, &behind(&long)), Err(Malformed));
    let many: Vec<u8> = [60, 0, 0, 0, 0, 0, 0, 0].repeat(9);
    assert_eq!(read(60, &behind(&many)), Err(Malformed));
    assert_eq!(read(60, &[6]), Err(Malformed));
}

#[test]
fn arp_says_who_speaks() {
    let mut bytes = std::vec![0; 28];
    bytes[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    bytes[14..18].copy_from_slice(&[10, 0, 0, 1]);
    bytes[24..28].copy_from_slice(&[10, 0, 0, 2]);
    let asked = Packet {
        protocol: None,
        ..packet(0x806, ["10.0.0.1", "10.0.0.2"], 0, false).unwrap()
    };
    assert_eq!(parse(&frame(&[], 0x806, &bytes)), Ok(asked));
    assert_eq!(parse(&frame(&[], 0x806, &bytes[..27])), Err(Malformed));
    bytes[4] = 8;
    let other = Packet {
        addresses: None,
        ..asked
    };
    assert_eq!(parse(&frame(&[], 0x806, &bytes)), Ok(other));
}

proptest! {
    /// Bytes that begin like frames of each kind, and then are anything.
    #[test]
    fn any_bytes_are_read_without_harm(
        head in prop_oneof![
            Just(frame(&[], 0x800, &[])),
            Just(frame(&[], 0x800, &ipv4(6, 0, 0, &[]))),
            Just(frame(&[0x8100], 0x86dd, &ipv6(0, &[])[..7])),
            Just(frame(&[], 0x806, &[0, 1, 8, 0, 6, 4])),
            Just(Vec::new()),
        ],
        rest in proptest::collection::vec(any::<u8>(), 0..200),
        length in prop_oneof![any::<usize>(), 0_usize..300],
    ) {
        let bytes = [head, rest].concat();
        let window = &bytes[..bytes.len().min(WINDOW)];
        let _ = Packet::parse(window, length);
        let _ = Ethernet::parse(window);
        // What lies beyond the frame's end counts for nothing.
        let length = length.min(window.len());
        prop_assert_eq!(
            Packet::parse(window, length),
            Packet::parse(&window[..length], length)
        );
    }

    /// A frame that was cut off is malformed or reads the same: nothing is made up.
    #[test]
    fn a_cut_changes_no_reading(
        tags in 0_usize..3,
        words in 0_u8..11,
        protocol in prop_oneof![Just(6_u8), Just(17), Just(1)],
        cut in 0_usize..128,
    ) {
        let whole = frame(&[0x8100; 3][..tags], 0x800, &ipv4(protocol, words, 0, TCP));
        let cut = cut.min(whole.len());
        let read = Packet::parse(&whole[..cut], whole.len());
        if read.is_ok() {
            prop_assert_eq!(read, parse(&whole));
        }
    }
}
