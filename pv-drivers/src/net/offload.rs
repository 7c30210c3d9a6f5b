//! Checksums that a sender has left to others.

/// Length of an Ethernet header without tags.
const ETHERNET: usize = 14;
const TYPE_IPV4: [u8; 2] = [8, 0];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Computes the checksum of a TCP or UDP header in an Ethernet frame, of which the pseudo header's
/// part may be there already, and writes it. `None` for what is no such frame, which is left alone.
pub fn complete_checksum(frame: &mut [u8]) -> Option<()> {
    let kind = frame.get(12..ETHERNET)?;
    let ip = if kind == TYPE_IPV4 {
        Ip::v4(frame.get(ETHERNET..)?)?
    } else if kind == TYPE_IPV6 {
        Ip::v6(frame.get(ETHERNET..)?)?
    } else {
        return None;
    };
    let field = match ip.protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    let start = ETHERNET.checked_add(ip.header)?;
    let end = start.checked_add(ip.len)?;
    let segment = frame.get_mut(start..end)?;
    *segment.get_mut(field..)?.first_chunk_mut()? = [0, 0];
    let len = u32::try_from(ip.len).ok()?;
    let sum = ip
        .addresses
        .wrapping_add(u64::from(ip.protocol))
        .wrapping_add(len.into());
    let mut checksum = !fold(sum.wrapping_add(add(segment)));
    if checksum == 0 && ip.protocol == UDP {
        checksum = 0xffff;
    }
    *segment.get_mut(field..)?.first_chunk_mut()? = checksum.to_be_bytes();
    Some(())
}

/// What an IP header says.
struct Ip {
    protocol: u8,
    /// The sum over both addresses.
    addresses: u64,
    /// Bytes of the header, and behind it.
    header: usize,
    len: usize,
}

impl Ip {
    fn v4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 15).checked_mul(4)?;
        let total = u16::from_be_bytes(*packet.get(2..)?.first_chunk()?);
        let [fragment, offset] = *packet.get(6..)?.first_chunk()?;
        // Of a fragment nobody knows the rest.
        if fragment & 0x3f != 0 || offset != 0 {
            return None;
        }
        Some(Self {
            protocol: *packet.get(9)?,
            addresses: add(packet.get(12..20)?),
            header,
            len: usize::from(total).checked_sub(header)?,
        })
    }

    /// Without further headers.
    fn v6(packet: &[u8]) -> Option<Self> {
        let len = u16::from_be_bytes(*packet.get(4..)?.first_chunk()?);
        Some(Self {
            protocol: *packet.get(6)?,
            addresses: add(packet.get(8..40)?),
            header: 40,
            len: len.into(),
        })
    }
}

/// The sum of big-endian words; an odd byte counts as if a zero followed. Far from 64 bits for
/// whatever fits into a frame.
fn add(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let sum = words
        .iter()
        .map(|word| u64::from(u16::from_be_bytes(*word)));
    let odd = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    sum.sum::<u64>().wrapping_add(odd)
}

/// Adds the carries until 16 bits are left.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{add, complete_checksum, fold};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    /// A TCP segment over IPv4 whose checksum is known (RFC 1071's sum over it is 0xffff).
    fn frame(protocol: u8, payload: &[u8]) -> std::vec::Vec<u8> {
        let mut frame = std::vec![0; 12];
        frame.extend([8, 0]);
        let total = u16::try_from(40 + payload.len()).unwrap();
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0; 20]);
        frame.extend(payload);
        frame
    }

    proptest! {
        #[test]
        fn a_completed_checksum_makes_the_sum_whole(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            is_udp in any::<bool>(),
            blank in any::<u16>(),
        ) {
            let (protocol, field) = if is_udp { (17, 6) } else { (6, 16) };
            let mut frame = frame(protocol, &payload);
            let trailer = std::vec![7; 3];
            frame.extend(&trailer);
            frame[34 + field..36 + field].copy_from_slice(&blank.to_be_bytes());
            prop_assert_eq!(complete_checksum(&mut frame), Some(()));
            let segment = &frame[34..frame.len() - 3];
            let pseudo = add(&frame[26..34]) + u64::from(protocol) + segment.len() as u64;
            prop_assert_eq!(fold(pseudo + add(segment)), 0xffff);
            prop_assert_eq!(&frame[frame.len() - 3..], &trailer[..]);
        }

        #[test]
        fn any_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(kind) = bytes.get_mut(12..14) {
                kind.copy_from_slice(&[8, 0]);
            }
            let _ = complete_checksum(&mut bytes);
            if let Some(kind) = bytes.get_mut(12..14) {
                kind.copy_from_slice(&[0x86, 0xdd]);
            }
            let _ = complete_checksum(&mut bytes);
        }
    }

    #[test]
    fn a_known_segment_of_ipv6() {
        let mut frame = std::vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 9, 17, 64]);
        frame.extend([1; 16]);
        frame.extend([2; 16]);
        frame.extend([0, 53, 0, 53, 0, 9, 0xaa, 0xbb, 0x12]);
        assert_eq!(complete_checksum(&mut frame), Some(()));
        let pseudo = add(&frame[22..54]) + 17 + 9;
        assert_eq!(fold(pseudo + add(&frame[54..])), 0xffff);
    }
}
