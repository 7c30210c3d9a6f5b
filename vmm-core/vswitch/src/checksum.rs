//! The checksum of IP, TCP and UDP (RFC 1071).

use crate::layout::Layout;
use crate::packet::{Malformed, protocol};

/// A sum on its way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes, of which all but the last are an even number.
    pub(crate) fn add(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            // 64 bits take the words of 16 GiB.
            self.0 = self.0.wrapping_add(u32::from_be_bytes(*word).into());
        }
        let mut last = [0; 4];
        for (byte, from) in last.iter_mut().zip(rest) {
            *byte = *from;
        }
        self.0 = self.0.wrapping_add(u32::from_be_bytes(last).into());
        self
    }

    /// Adds a number.
    pub(crate) const fn add_number(self, number: u32) -> Self {
        Self(self.0.wrapping_add(number as u64))
    }

    /// The checksum.
    pub(crate) fn finish(self) -> u16 {
        let mut sum = self.0;
        while let Some(carry) = sum.checked_shr(16).filter(|carry| *carry != 0) {
            sum = (sum & 0xffff).wrapping_add(carry);
        }
        !u16::try_from(sum).unwrap_or(0)
    }
}

/// Computes the checksum of TCP or UDP in a whole frame.
///
/// # Errors
/// [`Malformed`]: it is no whole packet of either.
pub fn fill_in_checksum(frame: &mut [u8]) -> Result<(), Malformed> {
    let layout = Layout::parse(frame, frame.len())?;
    let at = layout.checksum();
    if at.saturating_add(2) > layout.end {
        return Err(Malformed);
    }
    write(frame, at, 0)?;
    let content = frame.get(layout.transport..layout.end).ok_or(Malformed)?;
    let addresses = frame.get(layout.addresses()).ok_or(Malformed)?;
    let length = u32::try_from(content.len()).map_err(|_| Malformed)?;
    let sum = Sum::default()
        .add(addresses)
        .add_number(layout.protocol.into())
        .add_number(length)
        .add(content)
        .finish();
    // Of UDP, 0 says that there is none (RFC 768).
    let is_none = sum == 0 && layout.protocol == protocol::UDP;
    write(frame, at, if is_none { u16::MAX } else { sum })
}

/// Writes a number into a header.
pub(crate) fn write(frame: &mut [u8], at: usize, value: u16) -> Result<(), Malformed> {
    let place = frame.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    *place.ok_or(Malformed)? = value.to_be_bytes();
    Ok(())
}
