//! What became of the frames of an interface or an uplink.

use core::fmt;

/// Why a frame was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It is no Ethernet frame, or its slots made no sense.
    Malformed,
    /// Its source is not an address of the sender's.
    Spoofed,
    /// A rule of the sender or the receiver denies it, or it cannot be told what it is.
    Filtered,
    /// The sender's rate is exceeded.
    Limited,
    /// Nobody has its destination address.
    Unreachable,
    /// The receiver is not connected, has no room, or grants its pages no more.
    NoRoom,
    /// It takes no such frames: too long for one page, not cut into segments, or without a
    /// checksum.
    NotOffered,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Spoofed,
        Self::Filtered,
        Self::Limited,
        Self::Unreachable,
        Self::NoRoom,
        Self::NotOffered,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Spoofed => "spoofed",
            Self::Filtered => "filtered",
            Self::Limited => "limited",
            Self::Unreachable => "unreachable",
            Self::NoRoom => "no_room",
            Self::NotOffered => "not_offered",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Malformed => 0,
            Self::Spoofed => 1,
            Self::Filtered => 2,
            Self::Limited => 3,
            Self::Unreachable => 4,
            Self::NoRoom => 5,
            Self::NotOffered => 6,
        }
    }
}

/// Counts of one direction of an interface. They wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames that went on.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    dropped: [u64; Reason::ALL.len()],
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frames={} bytes={}", self.frames, self.bytes)?;
        for reason in Reason::ALL {
            match self.dropped(reason) {
                0 => {}
                count => write!(f, " {}={count}", reason.name())?,
            }
        }
        Ok(())
    }
}

impl Counters {
    /// Counts a frame of so many bytes that went on.
    pub const fn count(&mut self, bytes: u32) {
        self.frames = self.frames.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes as u64);
    }

    /// Counts one that was dropped.
    pub fn drop(&mut self, reason: Reason) {
        self.drop_many(reason, 1);
    }

    /// Counts so many that were dropped.
    pub fn drop_many(&mut self, reason: Reason, frames: u64) {
        if let Some(count) = self.dropped.get_mut(reason.index()) {
            *count = count.wrapping_add(frames);
        }
    }

    /// What both count together.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.frames = self.frames.wrapping_add(other.frames);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        for (count, more) in self.dropped.iter_mut().zip(other.dropped) {
            *count = count.wrapping_add(more);
        }
        self
    }

    /// How many were dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped
            .get(reason.index())
            .copied()
            .unwrap_or_default()
    }
}
