//! The decompressors, each into a buffer that the caller gives.
//!
//! A compressed kernel ends with its unpacked size in four bytes, so the buffer's size is known
//! beforehand ([`Image::scratch_size`]). XZ and zstd keep a window of their own besides; it comes
//! from the heap and is bounded by what the caller allows.
//!
//! Unpacking takes long. Between any two steps of it the caller gets a call, to do what must not
//! wait: after 2 KiB or less, or, of zstd, after a block, which unpacks to 128 KiB at most.

use super::{Format, Image, KernelError, MAX_UNPACKED, UnpackError, lz4};
use crate::checksum;
use alloc::boxed::Box;
use alloc::vec::Vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;
use xz4rust::{XzDecoder, XzError, XzNextBlockResult};

const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// The legacy frame's blocks unpack to no more than this.
pub(super) const LZ4_BLOCK: usize = 8 << 20;
/// How many bytes XZ unpacks in a step: some 130 instructions each.
const XZ_STEP: usize = 128;
/// The same of gzip, which takes far fewer.
const GZIP_STEP: usize = 1024;

impl Image<'_> {
    /// The size of the buffer that [`Image::unpack`] wants; zero when there is nothing to unpack.
    ///
    /// # Errors
    /// [`KernelError`] when the image cannot be right.
    pub fn scratch_size(&self) -> Result<usize, KernelError> {
        if self.format == Format::Elf {
            return Ok(0);
        }
        let size = self
            .payload
            .last_chunk()
            .map_or(0, |size| u32::from_le_bytes(*size));
        if u64::from(size) > MAX_UNPACKED {
            return Err(self.error(UnpackError::TooLarge(size.into())));
        }
        usize::try_from(size).map_err(|_| self.error(UnpackError::TooLarge(size.into())))
    }

    fn error(&self, error: UnpackError) -> KernelError {
        KernelError::Unpack(self.format, error)
    }

    /// Unpacks the ELF file into `scratch`, whose size is at least [`Image::scratch_size`];
    /// nothing is copied when it is not compressed. At most `heap` bytes are allocated at a time,
    /// and nothing stays allocated. Calls `give_way` between steps.
    ///
    /// # Errors
    /// [`KernelError`] when the data are damaged or one of the two sizes does not suffice.
    pub fn unpack<'s>(
        &self,
        scratch: &'s mut [u8],
        heap: usize,
        give_way: &mut dyn FnMut(),
    ) -> Result<&'s [u8], KernelError>
    where
        Self: 's,
    {
        let expected = self.scratch_size()?;
        let actual = scratch.len() as u64;
        let no_room = UnpackError::NoRoom {
            needed: expected as u64,
            actual,
        };
        let out = scratch.get_mut(..expected).ok_or(self.error(no_room))?;
        let data = self
            .payload
            .split_last_chunk::<4>()
            .map_or(self.payload, |(data, _)| data);
        let size = match self.format {
            Format::Elf => return Ok(self.payload),
            Format::Lz4 => lz4_frames(data, out, give_way),
            Format::Xz => xz(data, out, heap, give_way),
            // The size is a part of the format here, and so is the checksum before it.
            Format::Gzip => gzip(self.payload, out, give_way),
            Format::Zstd => zstd(data, out, heap, give_way),
        };
        match size.map_err(|error| self.error(error))? {
            size if size == expected => Ok(out),
            size => {
                let (expected, actual) = (expected as u64, size as u64);
                Err(self.error(UnpackError::WrongSize { expected, actual }))
            }
        }
    }
}

/// Compresses an ELF file such that [`Image::identify`] takes it: the format that unpacks fastest.
///
/// # Errors
/// [`UnpackError::TooLarge`].
pub fn compress_lz4(elf: &[u8]) -> Result<Vec<u8>, KernelError> {
    let too_large = |size| KernelError::Unpack(Format::Lz4, UnpackError::TooLarge(size));
    let size = elf.len() as u64;
    let fits = u32::try_from(size).ok().filter(|_| size <= MAX_UNPACKED);
    let size = fits.ok_or(too_large(size))?;
    let mut out = LZ4_MAGIC.to_vec();
    for block in elf.chunks(LZ4_BLOCK) {
        let packed = lz4_flex::block::compress(block);
        let length = u32::try_from(packed.len()).map_err(|_| too_large(size.into()))?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&packed);
    }
    out.extend_from_slice(&size.to_le_bytes());
    Ok(out)
}

/// The legacy frame: the magic, then blocks with their packed sizes in front. The magic may come
/// again where frames have been put one behind the other.
fn lz4_frames(
    data: &[u8],
    out: &mut [u8],
    give_way: &mut dyn FnMut(),
) -> Result<usize, UnpackError> {
    let corrupt = UnpackError::Corrupt;
    let mut rest = data.strip_prefix(&LZ4_MAGIC).ok_or(corrupt("no frame"))?;
    let mut at = 0;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        rest = tail;
        if *length == LZ4_MAGIC {
            continue;
        }
        let length = usize::try_from(u32::from_le_bytes(*length)).ok();
        let (block, tail) = length
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(corrupt("a block is cut off"))?;
        rest = tail;
        let space = out.get_mut(at..).unwrap_or_default();
        let limit = space.len().min(LZ4_BLOCK);
        let space = space.get_mut(..limit).unwrap_or_default();
        at += lz4::unpack(block, space, give_way).ok_or(corrupt("a bad block"))?;
    }
    if rest.is_empty() {
        Ok(at)
    } else {
        Err(corrupt("a block is cut off"))
    }
}

fn xz(
    data: &[u8],
    out: &mut [u8],
    heap: usize,
    give_way: &mut dyn FnMut(),
) -> Result<usize, UnpackError> {
    let mut decoder = XzDecoder::in_heap_with_alloc_dict(Vec::new(), heap);
    let (mut consumed, mut produced) = (0, 0_usize);
    loop {
        let input = data.get(consumed..).unwrap_or_default();
        let end = out.len().min(produced.saturating_add(XZ_STEP));
        let space = out.get_mut(produced..end).unwrap_or_default();
        let step = decoder
            .decode(input, space)
            .map_err(|error| xz_error(&error, heap))?;
        consumed = consumed.saturating_add(step.input_consumed());
        produced = produced.saturating_add(step.output_produced());
        match step {
            XzNextBlockResult::EndOfStream(..) => return Ok(produced),
            _ if step.made_progress() => give_way(),
            _ if produced == out.len() => return Err(UnpackError::Corrupt("too much data")),
            _ => return Err(UnpackError::Corrupt("data end too early")),
        }
    }
}

fn xz_error(error: &XzError, heap: usize) -> UnpackError {
    let detail = match *error {
        XzError::DictionaryTooLarge(needed) => {
            return UnpackError::NoRoom {
                needed,
                actual: heap as u64,
            };
        }
        XzError::UnsupportedStreamHeaderOption
        | XzError::UnsupportedBlockHeaderOption
        | XzError::UnsupportedCheckType(_)
        | XzError::Crc64NotSupported
        | XzError::Sha256NotSupported
        | XzError::UnsupportedBcjFilter(_)
        | XzError::DeltaFilterUnsupported => {
            return UnpackError::Unsupported(
                "another check than CRC-32 or another filter than x86",
            );
        }
        XzError::ContentCrc32Mismatch(..)
        | XzError::IndexCrc32Mismatch(..)
        | XzError::StreamHeaderCrc32Mismatch(..)
        | XzError::BlockHeaderCrc32Mismatch(..)
        | XzError::FooterCrc32Mismatch(..) => "a wrong checksum",
        XzError::NeedsLargerInputBuffer => "data end too early",
        _ => "bad data",
    };
    UnpackError::Corrupt(detail)
}

/// RFC 1952: a header with optional fields, deflated data, CRC-32, size.
fn gzip(member: &[u8], out: &mut [u8], give_way: &mut dyn FnMut()) -> Result<usize, UnpackError> {
    let corrupt = UnpackError::Corrupt;
    let data = gzip_body(member).ok_or(corrupt("a bad header"))?;
    let mut state = Box::<DecompressorOxide>::default();
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (mut consumed, mut produced) = (0, 0_usize);
    loop {
        let end = out.len().min(produced.saturating_add(GZIP_STEP));
        let input = data.get(consumed..).unwrap_or_default();
        let space = out.get_mut(..end).unwrap_or_default();
        let (status, read, written) = decompress(&mut state, input, space, produced, flags);
        consumed = consumed.saturating_add(read);
        produced = produced.saturating_add(written);
        match status {
            TINFLStatus::Done => break,
            TINFLStatus::HasMoreOutput if end < out.len() => give_way(),
            TINFLStatus::HasMoreOutput => return Err(corrupt("too much data")),
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
                return Err(corrupt("data end too early"));
            }
            _ => return Err(corrupt("bad data")),
        }
    }
    let crc = data
        .get(consumed..)
        .and_then(|trailer| trailer.first_chunk());
    let crc = crc
        .map(|crc| u32::from_le_bytes(*crc))
        .ok_or(corrupt("data end too early"))?;
    let unpacked = out.get(..produced).unwrap_or_default();
    if checksum(unpacked, give_way) == crc {
        Ok(produced)
    } else {
        Err(corrupt("a wrong checksum"))
    }
}

fn gzip_body(member: &[u8]) -> Option<&[u8]> {
    const HEADER_CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let (&[_, _, method, flags, ..], mut rest) = member.split_first_chunk::<10>()?;
    if method != 8 {
        return None;
    }
    if flags & EXTRA != 0 {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        rest = tail.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|&byte| byte == 0)?;
            rest = rest.get(end + 1..)?;
        }
    }
    if flags & HEADER_CRC != 0 {
        rest.get(2..)
    } else {
        Some(rest)
    }
}

fn zstd(
    data: &[u8],
    out: &mut [u8],
    heap: usize,
    give_way: &mut dyn FnMut(),
) -> Result<usize, UnpackError> {
    let mut decoder = FrameDecoder::new();
    // The decoder's ring grows by doubling, and the old one lives until it has been copied.
    decoder.set_max_window_size(heap as u64 / 4);
    let error = |error| zstd_error(&error, heap);
    let mut rest = data;
    let mut produced = 0;
    while !rest.is_empty() {
        match decoder.init(&mut rest) {
            Ok(()) => {}
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = usize::try_from(length).ok();
                rest = length
                    .and_then(|length| rest.get(length..))
                    .ok_or(UnpackError::Corrupt("data end too early"))?;
                continue;
            }
            Err(bad) => return Err(error(bad)),
        }
        while !decoder.is_finished() {
            let blocks = BlockDecodingStrategy::UptoBlocks(1);
            decoder.decode_blocks(&mut rest, blocks).map_err(error)?;
            let space = out.get_mut(produced..).unwrap_or_default();
            let written = decoder
                .read(space)
                .map_err(|_| UnpackError::Corrupt("bad data"))?;
            produced = produced.saturating_add(written);
            if decoder.can_collect() != 0 {
                return Err(UnpackError::Corrupt("too much data"));
            }
            give_way();
        }
    }
    Ok(produced)
}

fn zstd_error(error: &FrameDecoderError, heap: usize) -> UnpackError {
    match error {
        FrameDecoderError::WindowSizeTooBig { requested, .. } => {
            let needed = requested.saturating_mul(4);
            UnpackError::NoRoom {
                needed,
                actual: heap as u64,
            }
        }
        FrameDecoderError::ReadFrameHeaderError(_) | FrameDecoderError::FrameHeaderError(_) => {
            UnpackError::Corrupt("a bad header")
        }
        _ => UnpackError::Corrupt("bad data"),
    }
}
