//! What a frame carries, as far as a filter may ask.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Types of frames (IEEE 802 "EtherTypes").
pub(crate) mod ethertype {
    pub(crate) const IPV4: u16 = 0x0800;
    pub(super) const ARP: u16 = 0x0806;
    pub(crate) const IPV6: u16 = 0x86dd;
    /// Tags of virtual LANs: of customers, and of providers around them.
    pub(super) const TAGS: [u16; 2] = [0x8100, 0x88a8];
}

/// Protocols over IP (IANA, "Assigned Internet Protocol Numbers").
pub(crate) mod protocol {
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    /// Extension headers of IPv6 behind which others follow.
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    /// Those that begin with two port numbers: TCP, UDP, DCCP, SCTP, UDP-Lite.
    pub(super) const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];
}

/// Tags that are looked through: a provider's around a customer's.
const MAX_TAGS: usize = 2;
/// Extension headers that are looked through.
pub(crate) const MAX_EXTENSIONS: usize = 8;

/// The frame claims to be what it is not, or hides what it carries beyond
/// [`WINDOW`](crate::WINDOW). Whoever filters drops it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The frame's type, behind tags of virtual LANs.
    pub ethertype: u16,
    /// Source and destination: of IP, or of ARP for IPv4.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// What IP carries.
    pub protocol: Option<u8>,
    /// Source and destination port; none in fragments but the first.
    pub ports: Option<(u16, u16)>,
}

impl Packet {
    /// Reads a frame of `length` bytes, of which `window` are the first.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(window: &[u8], length: usize) -> Result<Self, Malformed> {
        let frame = Piece { window, length };
        let (kind, content) = frame.kind()?;
        let content = frame.behind(content)?;
        match kind {
            ethertype::IPV4 => ipv4(content),
            ethertype::IPV6 => ipv6(content),
            ethertype::ARP => arp(content),
            tag if ethertype::TAGS.contains(&tag) => Err(Malformed),
            other => Ok(Self::new(other)),
        }
    }

    const fn new(ethertype: u16) -> Self {
        Self {
            ethertype,
            addresses: None,
            protocol: None,
            ports: None,
        }
    }
}

/// A piece of the frame: what can be seen of it, and how long it is.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// The first bytes, or more than there are: `length` counts.
    pub(crate) window: &'a [u8],
    pub(crate) length: usize,
}

impl Piece<'_> {
    /// The type of a frame and where its content begins, behind tags of virtual LANs.
    pub(crate) fn kind(self) -> Result<(u16, usize), Malformed> {
        // Behind the two addresses.
        let mut head: usize = 12;
        let mut kind = self.word(head)?;
        for _ in 0..MAX_TAGS {
            if ethertype::TAGS.contains(&kind) {
                head = head.saturating_add(4);
                kind = self.word(head)?;
            }
        }
        Ok((kind, head.saturating_add(2)))
    }

    /// `N` bytes at `offset`, which must not lie beyond the piece and be in sight.
    pub(crate) fn bytes<const N: usize>(self, offset: usize) -> Result<[u8; N], Malformed> {
        let end = offset.saturating_add(N);
        let seen = self.window.get(offset..end).filter(|_| end <= self.length);
        seen.and_then(|seen| seen.first_chunk().copied())
            .ok_or(Malformed)
    }

    pub(crate) fn byte(self, offset: usize) -> Result<u8, Malformed> {
        self.bytes(offset).map(|[byte]| byte)
    }

    pub(crate) fn word(self, offset: usize) -> Result<u16, Malformed> {
        self.bytes(offset).map(u16::from_be_bytes)
    }

    /// What lies behind `offset`, which must not be beyond the piece. All of it may be out of
    /// sight.
    pub(crate) fn behind(self, offset: usize) -> Result<Self, Malformed> {
        Ok(Self {
            window: self.window.get(offset..).unwrap_or_default(),
            length: self.length.checked_sub(offset).ok_or(Malformed)?,
        })
    }

    /// The first `length` bytes, all of which the piece must have.
    fn first(self, length: usize) -> Result<Self, Malformed> {
        if length <= self.length {
            Ok(Self { length, ..self })
        } else {
            Err(Malformed)
        }
    }
}

/// RFC 791.
fn ipv4(packet: Piece<'_>) -> Result<Packet, Malformed> {
    let first = packet.byte(0)?;
    let head = usize::from(first & 0xf).saturating_mul(4);
    if first >> 4 != 4 || head < 20 {
        return Err(Malformed);
    }
    let packet = packet.first(packet.word(2)?.into())?;
    let content = packet.behind(head)?;
    let protocol = packet.byte(9)?;
    let source = Ipv4Addr::from(packet.bytes::<4>(12)?);
    let destination = Ipv4Addr::from(packet.bytes::<4>(16)?);
    let is_first = packet.word(6)? & 0x1fff == 0;
    Ok(Packet {
        addresses: Some((source.into(), destination.into())),
        protocol: Some(protocol),
        ports: ports(protocol, is_first.then_some(content))?,
        ..Packet::new(ethertype::IPV4)
    })
}

/// RFC 8200.
fn ipv6(packet: Piece<'_>) -> Result<Packet, Malformed> {
    if packet.byte(0)? >> 4 != 6 {
        return Err(Malformed);
    }
    let mut content = packet.behind(40)?.first(packet.word(4)?.into())?;
    let mut protocol = packet.byte(6)?;
    let source = Ipv6Addr::from(packet.bytes::<16>(8)?);
    let destination = Ipv6Addr::from(packet.bytes::<16>(24)?);
    let mut is_first = true;
    let mut extensions = 0..MAX_EXTENSIONS;
    while is_first && let Some(size) = extension(protocol, content)? {
        extensions.next().ok_or(Malformed)?;
        if protocol == protocol::FRAGMENT {
            is_first = content.word(2)? >> 3 == 0;
        }
        protocol = content.byte(0)?;
        content = content.behind(size)?;
    }
    Ok(Packet {
        addresses: Some((source.into(), destination.into())),
        protocol: Some(protocol),
        ports: ports(protocol, is_first.then_some(content))?,
        ..Packet::new(ethertype::IPV6)
    })
}

/// The size of an extension header of IPv6; `None` for what is no such header.
pub(crate) fn extension(protocol: u8, header: Piece<'_>) -> Result<Option<usize>, Malformed> {
    let units = || header.byte(1).map(usize::from);
    Ok(match protocol {
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
            Some(units()?.saturating_add(1).saturating_mul(8))
        }
        protocol::AUTHENTICATION => Some(units()?.saturating_add(2).saturating_mul(4)),
        protocol::FRAGMENT => Some(8),
        _ => None,
    })
}

/// The ports, of protocols that have some; `content` is none in a later fragment. One that ends
/// before them is malformed: the rest could come in another fragment.
fn ports(protocol: u8, content: Option<Piece<'_>>) -> Result<Option<(u16, u16)>, Malformed> {
    match content {
        Some(content) if protocol::WITH_PORTS.contains(&protocol) => {
            Ok(Some((content.word(0)?, content.word(2)?)))
        }
        _ => Ok(None),
    }
}

/// RFC 826: who speaks and who is asked for count as source and destination.
fn arp(packet: Piece<'_>) -> Result<Packet, Malformed> {
    let for_ipv4 = packet.bytes(0)? == [0, 1, 8, 0, 6, 4];
    let address = |offset| Ok(IpAddr::from(packet.bytes::<4>(offset)?));
    Ok(Packet {
        addresses: if for_ipv4 {
            Some((address(14)?, address(24)?))
        } else {
            None
        },
        ..Packet::new(ethertype::ARP)
    })
}
