//! The setup header of a Linux bzImage, as far as it leads to the compressed kernel.
//!
//! Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".

use super::KernelError;

const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const HEADER_END: usize = 0x250;
/// The first protocol version that tells where the payload is.
const OLDEST: u16 = 0x0208;

/// The compressed kernel in a bzImage, its size field included.
pub(super) fn payload(file: &[u8]) -> Result<&[u8], KernelError> {
    let magic: [u8; 4] = field(file, MAGIC).ok_or(KernelError::UnknownFormat)?;
    if magic != *b"HdrS" {
        return Err(KernelError::UnknownFormat);
    }
    let actual = file.len() as u64;
    let truncated = |what, needed| KernelError::Truncated {
        what,
        needed,
        actual,
    };
    let header = truncated("the setup header", HEADER_END as u64);
    let version = u16::from_le_bytes(field(file, VERSION).ok_or(header.clone())?);
    if version < OLDEST {
        return Err(KernelError::OldBzImage(version));
    }
    let [sectors] = field(file, SETUP_SECTS).ok_or(header.clone())?;
    let offset = u32::from_le_bytes(field(file, PAYLOAD_OFFSET).ok_or(header.clone())?);
    let length = u32::from_le_bytes(field(file, PAYLOAD_LENGTH).ok_or(header)?);

    // Zero sectors mean four, for the sake of very old kernels.
    let sectors = if sectors == 0 { 4 } else { u64::from(sectors) };
    let start = (sectors + 1) * 512 + u64::from(offset);
    let end = start + u64::from(length);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    range
        .and_then(|(start, end)| file.get(start..end))
        .ok_or(truncated("its compressed payload", end))
}

fn field<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}
