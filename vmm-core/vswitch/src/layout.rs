//! Where the headers of a frame with TCP or UDP are.

use crate::packet::{MAX_EXTENSIONS, Malformed, Piece, ethertype, extension, protocol};

/// Places in a frame, in bytes from its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// The header of IP.
    pub(crate) network: usize,
    pub(crate) is_ipv6: bool,
    /// The header of TCP or UDP.
    pub(crate) transport: usize,
    pub(crate) protocol: u8,
    /// The end of the packet; what follows fills the frame up.
    pub(crate) end: usize,
}

impl Layout {
    /// Reads a frame of `length` bytes, of which `window` are the first.
    ///
    /// # Errors
    /// [`Malformed`]: what it carries is no whole packet of TCP or UDP, or not in sight.
    pub(crate) fn parse(window: &[u8], length: usize) -> Result<Self, Malformed> {
        let frame = Piece { window, length };
        let (kind, network) = frame.kind()?;
        let layout = match kind {
            ethertype::IPV4 => ipv4(frame, network)?,
            ethertype::IPV6 => ipv6(frame, network)?,
            _ => return Err(Malformed),
        };
        let is_whole = layout.transport <= layout.end && layout.end <= length;
        let is_known = matches!(layout.protocol, protocol::TCP | protocol::UDP);
        if is_whole && is_known {
            Ok(layout)
        } else {
            Err(Malformed)
        }
    }

    /// Where the checksum of TCP or UDP is.
    pub(crate) const fn checksum(&self) -> usize {
        let inside = if self.protocol == protocol::TCP {
            16
        } else {
            6
        };
        self.transport.saturating_add(inside)
    }

    /// The addresses of IP, which the checksum covers, too.
    pub(crate) const fn addresses(&self) -> core::ops::Range<usize> {
        let (offset, size) = if self.is_ipv6 { (8, 32) } else { (12, 8) };
        let first = self.network.saturating_add(offset);
        first..first.saturating_add(size)
    }
}

/// RFC 791.
fn ipv4(frame: Piece<'_>, network: usize) -> Result<Layout, Malformed> {
    let at = |offset| network.saturating_add(offset);
    let first = frame.byte(network)?;
    let head = usize::from(first & 0xf).saturating_mul(4);
    // A fragment's checksum is that of the whole packet.
    let is_fragment = frame.word(at(6))? & 0x3fff != 0;
    if first >> 4 != 4 || head < 20 || is_fragment {
        return Err(Malformed);
    }
    Ok(Layout {
        network,
        is_ipv6: false,
        transport: at(head),
        protocol: frame.byte(at(9))?,
        end: at(frame.word(at(2))?.into()),
    })
}

/// RFC 8200.
fn ipv6(frame: Piece<'_>, network: usize) -> Result<Layout, Malformed> {
    let at = |offset| network.saturating_add(offset);
    if frame.byte(network)? >> 4 != 6 {
        return Err(Malformed);
    }
    let mut transport = at(40);
    let end = transport.saturating_add(frame.word(at(4))?.into());
    let mut protocol = frame.byte(at(6))?;
    let mut extensions = 0..MAX_EXTENSIONS;
    while let Some(size) = extension(protocol, frame.behind(transport)?)? {
        extensions.next().ok_or(Malformed)?;
        if protocol == protocol::FRAGMENT {
            return Err(Malformed);
        }
        protocol = frame.byte(transport)?;
        transport = transport.saturating_add(size);
    }
    Ok(Layout {
        network,
        is_ipv6: true,
        transport,
        protocol,
        end,
    })
}
