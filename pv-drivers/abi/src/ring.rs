//! Layout of an I/O ring: the head of its first page (`public/io/ring.h`).
//!
//! Requests and responses share the entries, which follow the head and go on over further pages
//! without a gap. Indices run free, modulo 2^32; an index modulo the number of entries names the
//! entry.

/// `req_prod`: requests that the front end has put in.
pub const REQ_PROD: usize = 0;
/// `req_event`: the back end wants an event when `req_prod` reaches this.
pub const REQ_EVENT: usize = 4;
/// `rsp_prod`: responses that the back end has put in.
pub const RSP_PROD: usize = 8;
/// `rsp_event`: the front end wants an event when `rsp_prod` reaches this.
pub const RSP_EVENT: usize = 12;
/// The first entry.
pub const ENTRIES: usize = 64;

/// Entries of `size` bytes in a ring of `bytes` bytes: a power of two, 0 when not one fits.
#[must_use]
pub const fn entries(size: usize, bytes: usize) -> usize {
    match bytes.saturating_sub(ENTRIES).checked_div(size) {
        None | Some(0) => 0,
        Some(count) => 1 << count.ilog2(),
    }
}

const _: () = assert!(entries(112, 4096) == 32 && entries(112, 4 * 4096) == 128);
const _: () = assert!(entries(12, 4096) == 256 && entries(8, 4096) == 256);
