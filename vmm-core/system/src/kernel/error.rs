//! Why a kernel image cannot be used.

use super::Format;
use core::fmt;

/// Why a kernel image cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KernelError {
    /// Neither an ELF file, nor a bzImage, nor one of the compressions.
    UnknownFormat,
    /// The file ends before what its headers promise.
    Truncated {
        /// The part that is cut off.
        what: &'static str,
        /// Where that part ends, in bytes.
        needed: u64,
        /// What there is.
        actual: u64,
    },
    /// A bzImage older than protocol 2.08, which does not tell where its payload is.
    OldBzImage(u16),
    /// A bzImage with a payload in a format that is not supported.
    Payload([u8; 4]),
    /// The image cannot be unpacked.
    Unpack(Format, UnpackError),
    /// What was unpacked is no ELF file.
    NotElf,
    /// The ELF file is for another processor, or big endian.
    ForeignElf(u16),
    /// Something in the ELF file's headers makes no sense.
    BadElf(&'static str),
    /// There is no PVH entry.
    NotPvh,
}

/// Why a compressed kernel image cannot be unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnpackError {
    /// The data are damaged, in the way that a word or two tell.
    Corrupt(&'static str),
    /// The data have something that is not supported.
    Unsupported(&'static str),
    /// The image unpacks to something other than it promises.
    WrongSize {
        /// The size by the image's last four bytes.
        expected: u64,
        /// What came out.
        actual: u64,
    },
    /// The image promises to unpack to more than any kernel has.
    TooLarge(u64),
    /// There is not enough memory.
    NoRoom {
        /// What is needed, in bytes.
        needed: u64,
        /// What there is.
        actual: u64,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownFormat => write!(
                f,
                "kernel is neither an ELF file nor a bzImage: \
                 give a Linux vmlinuz or vmlinux, or another ELF file with a PVH entry"
            ),
            Self::Truncated {
                what,
                needed,
                actual,
            } => write!(
                f,
                "kernel is truncated: {what} ends at byte {needed}, the file has {actual}; \
                 copy it again"
            ),
            Self::OldBzImage(version) => write!(
                f,
                "kernel is a bzImage of boot protocol {}.{:02}: at least 2.08 is needed; \
                 use a newer kernel",
                version >> 8,
                version & 0xff
            ),
            Self::Payload(magic) => write!(
                f,
                "kernel is a bzImage with an unknown compression (it starts {:02x} {:02x} {:02x} \
                 {:02x}): use one with LZ4, XZ, gzip or zstd",
                magic[0], magic[1], magic[2], magic[3]
            ),
            Self::Unpack(format, error) => error.fmt(format, f),
            Self::NotElf => write!(
                f,
                "kernel does not unpack to an ELF file: give a Linux kernel for x86-64"
            ),
            Self::ForeignElf(machine) => write!(
                f,
                "kernel is an ELF file for another processor (machine {machine}): \
                 give one for x86"
            ),
            Self::BadElf(detail) => {
                write!(
                    f,
                    "kernel is a broken ELF file ({detail}): build or copy it again"
                )
            }
            Self::NotPvh => write!(
                f,
                "kernel has no PVH entry note (Xen, PHYS32_ENTRY): use a kernel with CONFIG_PVH=y, \
                 or add the note to the image"
            ),
        }
    }
}

impl UnpackError {
    fn fmt(self, format: Format, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(detail) => write!(
                f,
                "kernel is corrupt: its {format} data are damaged ({detail}); copy it again"
            ),
            Self::Unsupported(detail) => write!(
                f,
                "kernel cannot be unpacked: its {format} data have {detail}; \
                 compress it as the Linux build does"
            ),
            Self::WrongSize { expected, actual } => write!(
                f,
                "kernel is corrupt: it unpacks to {actual} bytes instead of {expected}; \
                 copy it again"
            ),
            Self::TooLarge(size) => write!(
                f,
                "kernel is corrupt: it claims to unpack to {size} bytes, at most {} can be; \
                 copy it again",
                super::MAX_UNPACKED
            ),
            Self::NoRoom { needed, actual } => write!(
                f,
                "not enough memory to unpack the kernel: {format} takes {needed} bytes, {actual} \
                 are there; give the machine more memory or let the packer unpack the kernel"
            ),
        }
    }
}

impl core::error::Error for KernelError {}
