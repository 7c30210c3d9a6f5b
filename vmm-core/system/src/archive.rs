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

use crate::CRC32;
use crate::config::{Config, ConfigError, FileId};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// Files start at multiples of this.
pub const ALIGNMENT: u64 = 4096;
/// The version of the format that this code reads and writes.
pub const VERSION: u32 = 1;

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

    /// A file's contents, checked against its checksum each time.
    ///
    /// # Errors
    /// [`ArchiveError::NoSuchFile`] and [`ArchiveError::CorruptFile`].
    pub fn file(&self, id: FileId) -> Result<&'a [u8], ArchiveError> {
        let file = self.entry(id)?;
        let contents = file.range().and_then(|range| self.bytes.get(range));
        match contents {
            Some(contents) if CRC32.checksum(contents) == file.crc => Ok(contents),
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
mod tests {
    use super::*;
    use crate::config::{DomainConfig, HostConfig, OnReboot};
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    const FILES: [(&str, &[u8]); 3] = [
        ("vmlinuz", &[0x5a; 5000]),
        ("empty", &[]),
        ("initrd.img", b"070701"),
    ];

    fn config() -> Config {
        let domain = DomainConfig {
            name: "web".into(),
            kernel: FileId(0),
            initrd: Some(FileId(2)),
            cmdline: "console=hvc0 quiet".into(),
            memory_pages: 65536,
            vcpus: 1,
            affinity: None,
            on_reboot: OnReboot::Stop,
        };
        Config {
            host: HostConfig::default(),
            domains: vec![domain],
        }
    }

    fn sample() -> Vec<u8> {
        write_archive(&config(), &FILES).unwrap()
    }

    /// Opens an archive and everything in it.
    fn read_all(bytes: &[u8]) -> Result<(Config, Vec<Vec<u8>>), ArchiveError> {
        let archive = Archive::parse(bytes)?;
        let ids = 0..u32::try_from(archive.files().len()).unwrap();
        let files: Result<_, _> = ids
            .map(|id| archive.file(FileId(id)).map(Into::into))
            .collect();
        Ok((archive.config().clone(), files?))
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = sample();
        assert_eq!(bytes.len() % 4096, 0);
        let (read, files) = read_all(&bytes).unwrap();
        assert_eq!(read, config());
        assert!(
            files
                .iter()
                .zip(FILES)
                .all(|(read, (_, written))| read == written)
        );
        let archive = Archive::parse(&bytes).unwrap();
        assert_eq!(archive.files()[2].name, "initrd.img");
        assert_eq!(archive.files()[2].length(), 6);
        assert_eq!(
            archive.file(FileId(3)),
            Err(ArchiveError::NoSuchFile(FileId(3)))
        );
        let start = archive.file(FileId(2)).unwrap().as_ptr() as usize - bytes.as_ptr() as usize;
        assert_eq!(start % 4096, 0);
    }

    #[test]
    fn a_loader_may_round_the_size_up() {
        let mut bytes = sample();
        bytes.extend_from_slice(&[0xff; 100]);
        assert!(read_all(&bytes).is_ok());
    }

    #[test]
    fn errors_name_the_trouble() {
        let text = |bytes: &[u8]| read_all(bytes).unwrap_err().to_string();
        let bytes = sample();
        let half = bytes.len() / 2;
        assert_eq!(
            text(&bytes[..half]),
            "boot archive is truncated: header says 16384 bytes, 8192 are there"
        );
        assert_eq!(
            text(b"TES"),
            "boot archive is truncated: header says 32 bytes, 3 are there"
        );
        assert_eq!(
            text(&[0; 4096]),
            "not a boot archive: the file does not start with TESSERA"
        );
        let mut old = bytes.clone();
        old[8] = 9;
        assert_eq!(
            text(&old),
            "boot archive has format version 9, expected 1: \
             pack it again with the tools of this release"
        );
        let mut bad = bytes.clone();
        bad[40] ^= 1;
        assert_eq!(
            text(&bad),
            "boot archive is corrupt: its header is damaged; pack it again"
        );
        let mut bad = bytes;
        bad[4096 + 77] ^= 1;
        assert_eq!(
            text(&bad),
            "boot archive is corrupt: file `vmlinuz` is damaged; pack it again"
        );
        let error = write_archive(&Config::default(), &FILES)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "the system has no domain: describe at least one");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = sample();
        for length in 0..bytes.len() {
            let error = read_all(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, ArchiveError::Truncated { .. }),
                "{length}: {error}"
            );
        }
    }

    #[test]
    fn lengths_that_overflow_are_an_error() {
        // A header whose checksum is right but whose table points beyond the end of everything.
        for (offset, length) in [(4096, u64::MAX), (u64::MAX - 4095, 4096), (0, 1), (4097, 1)] {
            let file = File {
                name: "x".into(),
                offset,
                length,
                crc: 0,
            };
            let manifest = Manifest {
                config: config(),
                files: vec![file.clone(), file.clone(), file],
            };
            let manifest = postcard::to_allocvec(&manifest).unwrap();
            let mut bytes = vec![0; 8192];
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8] = 1;
            bytes[16..24].copy_from_slice(&(32 + manifest.len() as u64).to_le_bytes());
            bytes[24..32].copy_from_slice(&8192u64.to_le_bytes());
            bytes[32..32 + manifest.len()].copy_from_slice(&manifest);
            let crc = header_crc(&bytes[..32 + manifest.len()]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(
                read_all(&bytes),
                Err(ArchiveError::CorruptHeader),
                "{offset} {length}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_seen_or_harmless(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let good = sample();
            let mut bytes = good.clone();
            bytes[at.index(good.len())] ^= 1 << bit;
            // Only padding may change without an error, and then everything else is as it was.
            if let Ok(read) = read_all(&bytes) {
                prop_assert_eq!(read, read_all(&good).unwrap());
            }
        }

        #[test]
        fn random_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_all(&tail);
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.extend_from_slice(&tail);
            let _ = read_all(&bytes);
        }

        #[test]
        fn random_manifests_never_panic(manifest in prop::collection::vec(any::<u8>(), 0..200)) {
            let length = 32 + manifest.len();
            let mut bytes = vec![0; length];
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8] = 1;
            bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
            bytes[24..32].copy_from_slice(&(length as u64).to_le_bytes());
            bytes[32..].copy_from_slice(&manifest);
            let crc = header_crc(&bytes);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            prop_assert!(read_all(&bytes).is_err());
        }
    }
}
