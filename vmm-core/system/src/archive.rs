//! The boot archive: one file that carries the configuration and every guest image.
//!
//! ```text
//! 0   8  magic "TESSERA\0"
//! 8   4  format version
//! 12  4  CRC-32 of the header, bytes 0 to header length, this field taken as zero
//! 16  8  header length: these 32 bytes and the manifest
//! 24  8  total length, a whole number of pages
//! 32     manifest: configuration and file table, in postcard's encoding
//!        zeros up to the next page
//!        each file from a page boundary on, zeros up to the next page
//! ```
//!
//! All numbers are little endian. The header with its manifest is checked when the archive is
//! opened; a file is checked when it is asked for, so that a boot does not pay for files of
//! domains that are never built. Bytes beyond the total length are ignored, as boot loaders may
//! round a module's size up.

use crate::config::{Config, ConfigError, FileId};
use crate::{CRC32, checksum};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// Files start at multiples of this.
pub const ALIGNMENT: u64 = 4096;
/// The version of the format that this code reads and writes.
pub const VERSION: u32 = 7;

const MAGIC: [u8; 8] = *b"TESSERA\0";
const CRC_FIELD: Range<usize> = 12..16;
const FIXED: usize = 32;
/// A manifest of this size would describe thousands of domains.
const MAX_HEADER: u64 = 1 << 20;

/// A file in the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct File {
    /// Where it came from, for messages.
    pub name: String,
    offset: u64,
    length: u64,
    crc: u32,
}

impl File {
    /// The file's size in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    fn range(&self) -> Option<Range<usize>> {
        let end = self.offset.checked_add(self.length)?;
        Some(usize::try_from(self.offset).ok()?..usize::try_from(end).ok()?)
    }
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    config: Config,
    files: Vec<File>,
}

/// An archive whose header has been checked.
#[derive(Clone, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    config: Config,
    files: Vec<File>,
}

/// Why an archive cannot be read or written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArchiveError {
    /// There are fewer bytes than the archive has.
    Truncated {
        /// The archive's size by its header.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// The magic is not there: this is some other file.
    NotAnArchive,
    /// The format is of another version.
    Version(u32),
    /// The header is damaged.
    CorruptHeader,
    /// A file is damaged.
    CorruptFile {
        /// The file's name.
        name: String,
    },
    /// The file table has no such number.
    NoSuchFile(FileId),
    /// The header is sound but what it configures is not.
    Config(ConfigError),
    /// The configuration does not fit in an archive's header.
    TooLarge,
}

impl<'a> Archive<'a> {
    /// Opens an archive: checks its lengths, the header's checksum and the configuration.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let actual = bytes.len() as u64;
        let truncated = |expected| ArchiveError::Truncated { expected, actual };
        let magic = bytes.get(..MAGIC.len()).ok_or(truncated(FIXED as u64))?;
        if magic != MAGIC {
            return Err(ArchiveError::NotAnArchive);
        }
        let fixed = bytes
            .first_chunk::<FIXED>()
            .ok_or(truncated(FIXED as u64))?;
        let version = u32_at(fixed, 8);
        if version != VERSION {
            return Err(ArchiveError::Version(version));
        }
        let (header_length, total) = (u64_at(fixed, 16), u64_at(fixed, 24));
        if total > actual {
            return Err(truncated(total));
        }
        if !(FIXED as u64..=total.min(MAX_HEADER)).contains(&header_length) {
            return Err(ArchiveError::CorruptHeader);
        }
        let header = usize::try_from(header_length)
            .ok()
            .and_then(|end| bytes.get(..end));
        let header = header.ok_or(ArchiveError::CorruptHeader)?;
        if header_crc(header) != u32_at(fixed, CRC_FIELD.start) {
            return Err(ArchiveError::CorruptHeader);
        }
        let manifest = header.get(FIXED..).ok_or(ArchiveError::CorruptHeader)?;
        let Manifest { config, files } =
            postcard::from_bytes(manifest).map_err(|_| ArchiveError::CorruptHeader)?;
        for file in &files {
            let fits = file
                .offset
                .checked_add(file.length)
                .is_some_and(|end| end <= total);
            if !fits || file.offset < header_length || !file.offset.is_multiple_of(ALIGNMENT) {
                return Err(ArchiveError::CorruptHeader);
            }
        }
        config.check(files.len()).map_err(ArchiveError::Config)?;
        Ok(Self {
            bytes,
            config,
            files,
        })
    }

    /// The system's configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The file table; a [`FileId`] is an index into it.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The table's entry for a file.
    ///
    /// # Errors
    /// [`ArchiveError::NoSuchFile`].
    pub fn entry(&self, id: FileId) -> Result<&File, ArchiveError> {
        let index = usize::try_from(id.0).map_err(|_| ArchiveError::NoSuchFile(id))?;
        self.files.get(index).ok_or(ArchiveError::NoSuchFile(id))
    }

    /// A file's contents, checked against its checksum each time. Calls `give_way` between steps.
    ///
    /// # Errors
    /// [`ArchiveError::NoSuchFile`] and [`ArchiveError::CorruptFile`].
    pub fn file(&self, id: FileId, give_way: &mut dyn FnMut()) -> Result<&'a [u8], ArchiveError> {
        let file = self.entry(id)?;
        let contents = file.range().and_then(|range| self.bytes.get(range));
        match contents {
            Some(contents) if checksum(contents, give_way) == file.crc => Ok(contents),
            _ => Err(ArchiveError::CorruptFile {
                name: file.name.clone(),
            }),
        }
    }
}

/// Packs a system: `files` are names and contents, in the order of their [`FileId`]s.
///
/// # Errors
/// [`ArchiveError::Config`] when the configuration does not pass its own check against the files,
/// and [`ArchiveError::TooLarge`].
pub fn write_archive(config: &Config, files: &[(&str, &[u8])]) -> Result<Vec<u8>, ArchiveError> {
    config.check(files.len()).map_err(ArchiveError::Config)?;
    // The offsets are part of the manifest and their encoded size depends on their values, so the
    // files start behind a fixed reserve that any manifest of this system fits into.
    let draft = manifest(config, files, u64::MAX / 2)?;
    let first = (FIXED as u64 + draft.len() as u64).next_multiple_of(ALIGNMENT);
    let manifest = manifest(config, files, first)?;

    let header_length = FIXED as u64 + manifest.len() as u64;
    if header_length > MAX_HEADER {
        return Err(ArchiveError::TooLarge);
    }
    let total = files
        .iter()
        .fold(first, |at, (_, contents)| at + padded(contents));
    let mut out = Vec::with_capacity(usize::try_from(total).map_err(|_| ArchiveError::TooLarge)?);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&header_length.to_le_bytes());
    out.extend_from_slice(&total.to_le_bytes());
    out.extend_from_slice(&manifest);
    let crc = header_crc(&out).to_le_bytes();
    if let Some(field) = out.get_mut(CRC_FIELD) {
        field.copy_from_slice(&crc);
    }
    for (_, contents) in files {
        pad(&mut out);
        out.extend_from_slice(contents);
    }
    pad(&mut out);
    Ok(out)
}

fn manifest(config: &Config, files: &[(&str, &[u8])], first: u64) -> Result<Vec<u8>, ArchiveError> {
    let mut at = first;
    let mut table = Vec::with_capacity(files.len());
    for (name, contents) in files {
        let crc = CRC32.checksum(contents);
        let file = File {
            name: (*name).into(),
            offset: at,
            length: contents.len() as u64,
            crc,
        };
        at = at
            .checked_add(padded(contents))
            .ok_or(ArchiveError::TooLarge)?;
        table.push(file);
    }
    let manifest = Manifest {
        config: config.clone(),
        files: table,
    };
    postcard::to_allocvec(&manifest).map_err(|_| ArchiveError::TooLarge)
}

fn padded(contents: &[u8]) -> u64 {
    (contents.len() as u64).next_multiple_of(ALIGNMENT)
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4096), 0);
}

fn header_crc(header: &[u8]) -> u32 {
    let mut digest = CRC32.digest();
    digest.update(header.get(..CRC_FIELD.start).unwrap_or_default());
    digest.update(&[0; 4]);
    digest.update(header.get(CRC_FIELD.end..).unwrap_or_default());
    digest.finalize()
}

fn u32_at(bytes: &[u8; FIXED], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|tail| tail.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8; FIXED], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|tail| tail.first_chunk());
    field.map_or(0, |field| u64::from_le_bytes(*field))
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { expected, actual } => write!(
                f,
                "boot archive is truncated: header says {expected} bytes, {actual} are there"
            ),
            Self::NotAnArchive => {
                write!(
                    f,
                    "not a boot archive: the file does not start with TESSERA"
                )
            }
            Self::Version(version) => write!(
                f,
                "boot archive has format version {version}, expected {VERSION}: \
                 pack it again with the tools of this release"
            ),
            Self::CorruptHeader => {
                write!(
                    f,
                    "boot archive is corrupt: its header is damaged; pack it again"
                )
            }
            Self::CorruptFile { name } => {
                write!(
                    f,
                    "boot archive is corrupt: file `{name}` is damaged; pack it again"
                )
            }
            Self::NoSuchFile(id) => write!(f, "boot archive has no file number {}", id.0),
            Self::Config(error) => error.fmt(f),
            Self::TooLarge => write!(f, "the system description is too large for a boot archive"),
        }
    }
}

impl core::error::Error for ArchiveError {}

#[cfg(test)]
mod tests;
