//! Layout of the console ring page (`public/io/console.h`).
//!
//! Indices run free, modulo 2^32; an index modulo the ring's size addresses the byte. `in` goes
//! to the guest, `out` comes from it.

/// `in[1024]`.
pub const IN: usize = 0;
/// Bytes of `in`.
pub const IN_SIZE: u32 = 1024;
/// `out[2048]`.
pub const OUT: usize = 1024;
/// Bytes of `out`.
pub const OUT_SIZE: u32 = 2048;
/// `in_cons`.
pub const IN_CONS: usize = 3072;
/// `in_prod`.
pub const IN_PROD: usize = 3076;
/// `out_cons`.
pub const OUT_CONS: usize = 3080;
/// `out_prod`.
pub const OUT_PROD: usize = 3084;
/// `connection`, a byte: [`CONNECTED`] or [`DISCONNECTED`].
pub const CONNECTION: usize = 3088;

/// The back end serves the ring.
pub const CONNECTED: u8 = 0;
/// No back end yet.
pub const DISCONNECTED: u8 = 1;

const _: () = assert!(IN + IN_SIZE as usize == OUT);
const _: () = assert!(OUT + OUT_SIZE as usize == IN_CONS);
const _: () = assert!(IN_SIZE.is_power_of_two() && OUT_SIZE.is_power_of_two());
