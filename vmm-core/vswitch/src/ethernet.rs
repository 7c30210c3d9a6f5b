//! The head of a frame (IEEE 802.3).

use system::network::MacAddr;

/// The first bytes of a frame that are looked at. Whatever a filter has to see lies in them, or
/// the packet is taken for [malformed](crate::Malformed).
pub const WINDOW: usize = 128;

/// Where a frame comes from and goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// The destination.
    pub destination: MacAddr,
    /// The source, as it says.
    pub source: MacAddr,
}

impl Ethernet {
    /// The bytes of the head; a frame has no fewer.
    pub const SIZE: usize = 14;

    /// Reads the head of a frame; `None` for fewer bytes than it has.
    #[must_use]
    pub fn parse(window: &[u8]) -> Option<Self> {
        let &[a, b, c, d, e, f, g, h, i, j, k, l, _, _] = window.first_chunk::<{ Self::SIZE }>()?;
        Some(Self {
            destination: MacAddr([a, b, c, d, e, f]),
            source: MacAddr([g, h, i, j, k, l]),
        })
    }
}
