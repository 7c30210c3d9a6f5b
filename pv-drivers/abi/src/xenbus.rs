//! How front and back end of a device come together through the xenstore
//! (`public/io/xenbus.h`, `public/io/protocols.h`).

/// The state of one end of a device, in decimal in the node `state` of its directory
/// (`enum xenbus_state`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum XenbusState {
    /// There is no such end.
    #[default]
    Unknown = 0,
    /// The end is there and does nothing yet.
    Initialising = 1,
    /// Waits for what the other end has to say.
    InitWait = 2,
    /// Has said all the other end needs to connect.
    Initialised = 3,
    /// In use.
    Connected = 4,
    /// About to end.
    Closing = 5,
    /// At an end.
    Closed = 6,
    /// The device changes.
    Reconfiguring = 7,
    /// The device has changed.
    Reconfigured = 8,
}

impl XenbusState {
    /// The state that a node's value names; [`XenbusState::Unknown`] for what is no number of one.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        match value {
            b"1" => Self::Initialising,
            b"2" => Self::InitWait,
            b"3" => Self::Initialised,
            b"4" => Self::Connected,
            b"5" => Self::Closing,
            b"6" => Self::Closed,
            b"7" => Self::Reconfiguring,
            b"8" => Self::Reconfigured,
            _ => Self::Unknown,
        }
    }

    /// The value of the node.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "0",
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
            Self::Reconfiguring => "7",
            Self::Reconfigured => "8",
        }
    }
}

/// Values of the key `protocol`: the layout of a ring whose entries differ.
pub mod protocol {
    /// A 32-bit front end (`XEN_IO_PROTO_ABI_X86_32`).
    pub const X86_32: &str = "x86_32-abi";
    /// A 64-bit front end (`XEN_IO_PROTO_ABI_X86_64`), and one that does not say.
    pub const X86_64: &str = "x86_64-abi";
}
