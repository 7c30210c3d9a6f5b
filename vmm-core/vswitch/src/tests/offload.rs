//! Checksums and segments as a receiver checks them.

use proptest::prelude::{any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use std::vec::Vec;

use super::packet::{frame, ipv4, ipv6};
use crate::{Malformed, Segments, WINDOW, fill_in_checksum};

/// The sum of RFC 1071, word by word.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    u16::try_from(sum).unwrap()
}

/// Whether a receiver finds the checksum of a packet good, whose transport header is at `at`.
fn is_good(packet: &[u8], at: usize, protocol: u8) -> bool {
    let addresses = if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    let length = u16::try_from(packet.len() - at).unwrap().to_be_bytes();
    sum(&[addresses, &[0, protocol], &length, &packet[at..]]) == 0xffff
}

fn tcp(words: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![0; 20 + 4 * usize::from(words)];
    bytes[..4].copy_from_slice(&[1, 2, 0, 80]);
    bytes[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
    bytes[12] = (5 + words) << 4;
    bytes[13] = flags;
    // What a guest leaves there.
    bytes[16..18].copy_from_slice(&[0x12, 0x34]);
    bytes.extend_from_slice(payload);
    bytes
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = std::vec![1, 2, 0, 53, 0, 0, 0xab, 0xcd];
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn payload(length: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(length).collect()
}

#[test]
fn a_blank_checksum_is_filled_in() {
    for length in [0, 1, 2, 3, 4, 1001] {
        for (protocol, content) in [
            (6, tcp(3, 0x10, &payload(length))),
            (17, udp(&payload(length))),
        ] {
            let packets = [
                (ipv4(protocol, 2, 0, &content), 28),
                (ipv6(protocol, &content), 40),
            ];
            for (packet, at) in packets {
                let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
                for tags in [&[][..], &[0x8100]] {
                    let mut bytes = frame(tags, kind, &packet);
                    // A short frame is filled up.
                    bytes.extend_from_slice(&[0xee; 7]);
                    assert_eq!(fill_in_checksum(&mut bytes), Ok(()));
                    let start = 14 + 4 * tags.len();
                    let sent = &bytes[start..start + packet.len()];
                    assert!(is_good(sent, at, protocol), "{protocol} {length}");
                }
            }
        }
    }
}

#[test]
fn what_has_no_such_checksum_is_refused() {
    let whole = frame(&[], 0x0800, &ipv4(6, 0, 0, &tcp(0, 0, &[])));
    let refused = [
        frame(&[], 0x0806, &[0; 28]),
        frame(&[], 0x0800, &ipv4(1, 0, 0, &[0; 20])),
        // Fragments, the first and a later one.
        frame(&[], 0x0800, &ipv4(6, 0, 0x2000, &tcp(0, 0, &[]))),
        frame(&[], 0x0800, &ipv4(6, 0, 1, &tcp(0, 0, &[]))),
        frame(&[], 0x0800, &ipv4(6, 0, 0, &[0; 17])),
        frame(&[], 0x86dd, &ipv6(44, &[6; 40])),
        frame(&[], 0x86dd, &ipv6(0, &[0; 100])),
        whole[..whole.len() - 1].to_vec(),
    ];
    for (case, mut bytes) in refused.into_iter().enumerate() {
        assert_eq!(fill_in_checksum(&mut bytes), Err(Malformed), "case {case}");
    }
    // UDP with a sum of zero says so in another way.
    let mut bytes = frame(&[], 0x0800, &ipv4(17, 0, 0, &udp(&[0, 0])));
    fill_in_checksum(&mut bytes).unwrap();
    let rest = [bytes[40], bytes[41]];
    bytes[42..44].copy_from_slice(&rest);
    fill_in_checksum(&mut bytes).unwrap();
    assert_eq!(bytes[40..42], [0xff, 0xff]);
}

/// All the segments of a frame, as they go out.
fn cut(bytes: &[u8], size: u16) -> Vec<Vec<u8>> {
    let window = &bytes[..bytes.len().min(WINDOW)];
    let segments = Segments::new(window, bytes.len(), size).unwrap();
    let whole = (0..segments.count()).map(|number| {
        let segment = segments.get(number).unwrap();
        let mut out = segment.headers().to_vec();
        out.extend_from_slice(&bytes[segment.payload.clone()]);
        assert!(out.len() == segment.len() && out.len() <= segments.longest());
        fill_in_checksum(&mut out).unwrap();
        out
    });
    let whole: Vec<_> = whole.collect();
    assert_eq!(segments.get(whole.len()), None);
    whole
}

#[test]
fn segments_are_packets_of_their_own() {
    let data = payload(3000);
    let content = tcp(3, 0x80 | 0x10 | 0x08 | 0x01, &data);
    for (kind, packet, at) in [
        (0x0800, ipv4(6, 1, 0, &content), 24),
        (0x86dd, ipv6(6, &content), 40),
    ] {
        let sent = cut(&frame(&[0x8100], kind, &packet), 1400);
        let flags: Vec<_> = sent.iter().map(|out| out[18 + at + 13]).collect();
        assert_eq!(flags, [0x90, 0x10, 0x19]);
        let mut got = Vec::new();
        for (number, out) in sent.iter().enumerate() {
            let packet = &out[18..];
            assert!(is_good(packet, at, 6));
            let long = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            if kind == 0x0800 {
                assert_eq!(usize::from(long(2)), packet.len());
                assert_eq!(usize::from(long(4)), number);
                assert_eq!(sum(&[&packet[..at]]), 0xffff);
            } else {
                assert_eq!(usize::from(long(4)), packet.len() - 40);
            }
            let sequence = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
            assert_eq!(
                sequence,
                0xffff_ff00_u32.wrapping_add(u32::try_from(got.len()).unwrap())
            );
            got.extend_from_slice(&packet[at + 32..]);
        }
        assert_eq!(got, data);
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let refused = |bytes: &[u8], size| {
        let window = &bytes[..bytes.len().min(WINDOW)];
        Segments::new(window, bytes.len(), size).is_err()
    };
    let good = frame(&[], 0x0800, &ipv4(6, 0, 0, &tcp(0, 0, &payload(10))));
    assert!(!refused(&good, 1) && refused(&good, 0));
    assert_eq!(cut(&good, 1).len(), 10);
    let nothing = frame(&[], 0x0800, &ipv4(6, 0, 0, &tcp(0, 0, &[])));
    assert_eq!(cut(&nothing, 100).len(), 1);
    assert!(refused(
        &frame(&[], 0x0800, &ipv4(17, 0, 0, &udp(&payload(100)))),
        50
    ));
    let mut short = tcp(0, 0, &payload(10));
    short[12] = 0x40;
    assert!(refused(&frame(&[], 0x0800, &ipv4(6, 0, 0, &short)), 5));
    // Headers beyond the packet, and beyond what is in sight.
    short[12] = 0xf0;
    assert!(refused(&frame(&[], 0x0800, &ipv4(6, 0, 0, &short)), 5));
    let long = frame(
        &[0x88a8, 0x8100],
        0x0800,
        &ipv4(6, 10, 0, &tcp(10, 0, &payload(50))),
    );
    assert!(refused(&long, 5));
}

proptest! {
    /// Whatever a guest says of its frame.
    #[test]
    fn no_bytes_do_harm(
        start in prop_oneof![
            any::<[u8; 4]>(),
            proptest::strategy::Just([0x08, 0, 0x45, 0]),
            proptest::strategy::Just([0x86, 0xdd, 0x60, 0]),
        ],
        rest in proptest::collection::vec(any::<u8>(), 0..300),
        length in 0_usize..66_000,
        size in any::<u16>(),
    ) {
        let mut bytes = std::vec![2; 12];
        bytes.extend_from_slice(&start);
        bytes.extend_from_slice(&rest);
        let window = &bytes[..bytes.len().min(WINDOW)];
        let length = length.max(window.len());
        if let Ok(segments) = Segments::new(window, length, size) {
            let mut next = segments.get(0).unwrap().payload.start;
            for number in 0..segments.count().min(40) {
                let segment = segments.get(number).unwrap();
                prop_assert!(segment.payload.end <= length && segment.len() <= segments.longest());
                prop_assert_eq!(segment.payload.start, next);
                next = segment.payload.end;
            }
            prop_assert!(segments.get(segments.count()).is_none());
        }
        let _ = fill_in_checksum(&mut bytes);
    }
}
