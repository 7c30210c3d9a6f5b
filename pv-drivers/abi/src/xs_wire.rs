//! The xenstore's messages and its ring page (`public/io/xs_wire.h`).
//!
//! A message is a [`MsgHeader`] and `len` bytes. Requests come through `req`, replies and watch
//! events go through `rsp`; indices run free, modulo 2^32, and an index modulo the ring's size
//! addresses the byte.

use crate::layout::guest_structs;

guest_structs! {
    /// In front of every message (`struct xsd_sockmsg`).
    pub struct MsgHeader: 16 {
        /// One of [`kind`].
        pub kind: u32 = 0,
        /// Chosen by the client, given back in the reply.
        pub req_id: u32 = 4,
        /// The transaction that the message belongs to; 0 for none.
        pub tx_id: u32 = 8,
        /// Bytes that follow, at most [`PAYLOAD_MAX`].
        pub len: u32 = 12,
    }
}

/// Kinds of messages (`enum xsd_sockmsg_type`).
pub mod kind {
    /// Commands to the store itself.
    pub const CONTROL: u32 = 0;
    /// Names of a node's children.
    pub const DIRECTORY: u32 = 1;
    /// A node's value.
    pub const READ: u32 = 2;
    /// A node's permissions.
    pub const GET_PERMS: u32 = 3;
    /// Asks for events about a node and all below it.
    pub const WATCH: u32 = 4;
    /// Ends such events.
    pub const UNWATCH: u32 = 5;
    /// Begins a transaction.
    pub const TRANSACTION_START: u32 = 6;
    /// Ends one.
    pub const TRANSACTION_END: u32 = 7;
    /// Tells the store of a domain.
    pub const INTRODUCE: u32 = 8;
    /// Tells it that a domain is gone.
    pub const RELEASE: u32 = 9;
    /// The path of a domain's nodes.
    pub const GET_DOMAIN_PATH: u32 = 10;
    /// Sets a node's value.
    pub const WRITE: u32 = 11;
    /// Creates a node.
    pub const MKDIR: u32 = 12;
    /// Removes a node and all below it.
    pub const RM: u32 = 13;
    /// Sets a node's permissions.
    pub const SET_PERMS: u32 = 14;
    /// An event: the path, the watch's token.
    pub const WATCH_EVENT: u32 = 15;
    /// A refusal: the error's name.
    pub const ERROR: u32 = 16;
    /// Whether a domain has been introduced.
    pub const IS_DOMAIN_INTRODUCED: u32 = 17;
    /// Lets a domain's shut-down be seen anew.
    pub const RESUME: u32 = 18;
    /// Gives a domain another's rights.
    pub const SET_TARGET: u32 = 19;
    /// Drops all watches and transactions of the client.
    pub const RESET_WATCHES: u32 = 21;
    /// Part of a list of children that is too long for one message.
    pub const DIRECTORY_PART: u32 = 22;
}

/// The longest body.
pub const PAYLOAD_MAX: u32 = 4096;
/// The longest absolute path.
pub const ABS_PATH_MAX: usize = 3072;
/// The longest relative path.
pub const REL_PATH_MAX: usize = 2048;

/// `req[1024]`.
pub const REQ: usize = 0;
/// `rsp[1024]`.
pub const RSP: usize = 1024;
/// Bytes of `req`, and of `rsp`.
pub const RING_SIZE: u32 = 1024;
/// `req_cons`.
pub const REQ_CONS: usize = 2048;
/// `req_prod`.
pub const REQ_PROD: usize = 2052;
/// `rsp_cons`.
pub const RSP_CONS: usize = 2056;
/// `rsp_prod`.
pub const RSP_PROD: usize = 2060;
/// `server_features`, a word of [`FEATURE_RECONNECTION`] and [`FEATURE_ERROR`].
pub const SERVER_FEATURES: usize = 2064;
/// `connection`, a word: [`CONNECTED`] or [`RECONNECT`].
pub const CONNECTION: usize = 2068;
/// `error`, a word: [`ERROR_NONE`] or what made the store stop to listen.
pub const ERROR: usize = 2072;

/// The ring can be connected anew.
pub const FEATURE_RECONNECTION: u32 = 1;
/// `error` has a meaning.
pub const FEATURE_ERROR: u32 = 2;
/// The ring is in use.
pub const CONNECTED: u32 = 0;
/// The guest asks for a fresh start and waits for [`CONNECTED`].
pub const RECONNECT: u32 = 1;
/// All is well.
pub const ERROR_NONE: u32 = 0;
/// A ring index made no sense.
pub const ERROR_RINGIDX: u32 = 2;
/// A message was too long.
pub const ERROR_PROTO: u32 = 3;

const _: () = assert!(RSP + RING_SIZE as usize == REQ_CONS);
const _: () = assert!(RING_SIZE.is_power_of_two());
