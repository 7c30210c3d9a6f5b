//! Requests and responses of network interfaces (`public/io/netif.h`).
//!
//! The layouts are the same for 32-bit and 64-bit front ends. "Transmit" and "receive" are the
//! front end's words. A packet takes one slot of its ring for each piece, and one more for each
//! [`ExtraInfo`] behind the first.

use crate::layout::guest_structs;

/// Bits of a transmit request (`NETTXF_*`).
pub mod tx_flags {
    /// The checksum of the transport header covers the pseudo header only.
    pub const CSUM_BLANK: u16 = 1;
    /// The checksum is known to be right, or need not be looked at.
    pub const DATA_VALIDATED: u16 = 2;
    /// The packet goes on in the next slot.
    pub const MORE_DATA: u16 = 4;
    /// The next slot holds an [`ExtraInfo`](super::ExtraInfo).
    pub const EXTRA_INFO: u16 = 8;
}

/// Bits of a receive response (`NETRXF_*`).
pub mod rx_flags {
    /// The checksum is known to be right.
    pub const DATA_VALIDATED: u16 = 1;
    /// The checksum covers the pseudo header only.
    pub const CSUM_BLANK: u16 = 2;
    /// The packet goes on in the next slot.
    pub const MORE_DATA: u16 = 4;
    /// The next slot holds an [`ExtraInfo`](super::ExtraInfo).
    pub const EXTRA_INFO: u16 = 8;
}

/// What became of a slot (`NETIF_RSP_*`).
pub mod status {
    /// Done.
    pub const OKAY: i16 = 0;
    /// Failed.
    pub const ERROR: i16 = -1;
    /// Dropped.
    pub const DROPPED: i16 = -2;
    /// The slot held an [`ExtraInfo`](super::ExtraInfo).
    pub const NULL: i16 = 1;
}

/// Kinds of [`ExtraInfo`] (`XEN_NETIF_EXTRA_TYPE_*`).
pub mod extra {
    /// Segmentation is left to others: size, type, features.
    pub const GSO: u8 = 1;
    /// The address of a group to be heard.
    pub const MCAST_ADD: u8 = 2;
    /// The address of one that is not any more.
    pub const MCAST_DEL: u8 = 3;
    /// The flow's hash.
    pub const HASH: u8 = 4;
    /// Bit of [`flags`](super::ExtraInfo::flags): another one follows.
    pub const FLAG_MORE: u8 = 1;
    /// TCP over IPv4 (`XEN_NETIF_GSO_TYPE_TCPV4`).
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6 (`XEN_NETIF_GSO_TYPE_TCPV6`).
    pub const GSO_TCPV6: u8 = 2;
}

/// Slots that every back end takes for one packet (`XEN_NETIF_NR_SLOTS_MIN`).
pub const MIN_SLOTS: usize = 18;

guest_structs! {
    /// A piece of a packet to be sent (`struct netif_tx_request`).
    pub struct TxRequest: 12 {
        /// The page's grant, for reading.
        pub gref: u32 = 0,
        /// The first byte in the page.
        pub offset: u16 = 4,
        /// [`tx_flags`].
        pub flags: u16 = 6,
        /// Comes back in the response.
        pub id: u16 = 8,
        /// Bytes: of the whole packet in its first slot, of the piece in the others.
        pub size: u16 = 10,
    }

    /// The answer to a transmit request (`struct netif_tx_response`).
    pub struct TxResponse: 4 {
        /// The request's.
        pub id: u16 = 0,
        /// One of [`status`].
        pub status: i16 = 2,
    }

    /// A page for what is received (`struct netif_rx_request`).
    pub struct RxRequest: 8 {
        /// Comes back in the response.
        pub id: u16 = 0,
        /// Unused.
        pub pad: u16 = 2,
        /// The page's grant, for writing.
        pub gref: u32 = 4,
    }

    /// A piece of a packet that came (`struct netif_rx_response`).
    pub struct RxResponse: 8 {
        /// The request's.
        pub id: u16 = 0,
        /// The first byte in the page.
        pub offset: u16 = 2,
        /// [`rx_flags`].
        pub flags: u16 = 4,
        /// Bytes in the page, or one of [`status`].
        pub status: i16 = 6,
    }

    /// More about a packet, in a slot of its own (`struct netif_extra_info`).
    pub struct ExtraInfo: 8 {
        /// One of [`extra`].
        pub kind: u8 = 0,
        /// Whether another one follows.
        pub flags: u8 = 1,
        /// What it says. [`extra::GSO`]: the segments' size in two bytes, their type, a byte
        /// unused, and features in two bytes. For groups: a MAC address.
        pub data: [u8; 6] = 2,
    }
}
