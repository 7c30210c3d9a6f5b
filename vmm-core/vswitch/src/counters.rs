//! What became of the frames of an interface.

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
    /// The receiver is not connected, has no room, or took its buffers back.
    NoRoom,
}

impl Reason {
    /// How many there are.
    const COUNT: usize = 6;

    const fn index(self) -> usize {
        match self {
            Self::Malformed => 0,
            Self::Spoofed => 1,
            Self::Filtered => 2,
            Self::Limited => 3,
            Self::Unreachable => 4,
            Self::NoRoom => 5,
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
    dropped: [u64; Reason::COUNT],
}

impl Counters {
    /// Counts a frame of so many bytes that went on.
    pub const fn count(&mut self, bytes: u32) {
        self.frames = self.frames.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes as u64);
    }

    /// Counts one that was dropped.
    pub fn drop(&mut self, reason: Reason) {
        if let Some(count) = self.dropped.get_mut(reason.index()) {
            *count = count.wrapping_add(1);
        }
    }

    /// How many were dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped
            .get(reason.index())
            .copied()
            .unwrap_or_default()
    }

    /// How many were dropped.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped
            .iter()
            .fold(0, |sum, &count| sum.wrapping_add(count))
    }
}
