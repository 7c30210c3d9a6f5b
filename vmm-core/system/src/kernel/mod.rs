//! Kernel images: from the file to the segments of an ELF image with a PVH entry.
//!
//! [`Image::identify`] recognises the file and finds what is compressed in it (a bzImage's
//! payload, or the file as a whole); [`Image::unpack`] gives the ELF file inside;
//! [`Kernel::parse`] reads its segments and its entry.
//!
//! ```text
//! vmlinuz --identify--> Image --unpack(scratch)--> ELF bytes --parse--> Kernel
//! ```

mod bzimage;
mod elf;
mod error;
mod lz4;
mod trim;
mod unpack;

pub use self::elf::{Kernel, Segment};
pub use self::error::{KernelError, UnpackError};
pub use self::trim::trim;
pub use self::unpack::compress_lz4;

use core::fmt;

/// No kernel unpacks to more than this; what claims to is damaged.
pub const MAX_UNPACKED: u64 = 512 << 20;

/// How the ELF file is stored in the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// As it is.
    Elf,
    /// LZ4 in the legacy frame format.
    Lz4,
    /// XZ, with the x86 branch filter or without.
    Xz,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Format {
    /// The format that data with this beginning are in.
    fn of(bytes: &[u8]) -> Option<Self> {
        let known: [(&[u8], Self); 5] = [
            (b"\x7fELF", Self::Elf),
            (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4),
            (b"\xfd7zXZ\0", Self::Xz),
            (&[0x1f, 0x8b], Self::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
        ];
        known
            .iter()
            .find(|(magic, _)| bytes.starts_with(magic))
            .map(|&(_, format)| format)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elf => "ELF",
            Self::Lz4 => "LZ4",
            Self::Xz => "XZ",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// A kernel image that has been recognised, not yet unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    format: Format,
    /// The ELF file, or the compressed data followed by the unpacked size in four bytes.
    payload: &'a [u8],
}

impl<'a> Image<'a> {
    /// Recognises a kernel image: an ELF file, a bzImage, or an ELF file compressed as it is in a
    /// bzImage (its size in the last four bytes, little endian).
    ///
    /// # Errors
    /// [`KernelError`] when the file is something else, or cut short.
    pub fn identify(file: &'a [u8]) -> Result<Self, KernelError> {
        if let Some(format) = Format::of(file) {
            return Ok(Self {
                format,
                payload: file,
            });
        }
        let payload = bzimage::payload(file)?;
        match Format::of(payload) {
            Some(format) => Ok(Self { format, payload }),
            None => Err(KernelError::Payload(
                payload.first_chunk().copied().unwrap_or_default(),
            )),
        }
    }

    /// How the ELF file is stored.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }
}

#[cfg(test)]
mod tests;
