//! Archives written and read back, damaged, cut short and random.

use super::*;
use crate::Quotas;
use crate::config::{DomainConfig, HostConfig, MemoryBacking, OnReboot};
use crate::share::Share;
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
        quotas: Quotas::usual(1, 65536),
        vcpus: 1,
        affinity: None,
        share: Share {
            weight: 512,
            warp: 10_000,
            ..Share::default()
        },
        backing: MemoryBacking::OnTouch,
        on_reboot: OnReboot::Stop,
        disks: Vec::new(),
        vifs: Vec::new(),
    };
    Config {
        host: HostConfig::default(),
        networks: Vec::new(),
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
        .map(|id| archive.file(FileId(id), &mut || ()).map(Into::into))
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
        archive.file(FileId(3), &mut || ()),
        Err(ArchiveError::NoSuchFile(FileId(3)))
    );
    let start =
        archive.file(FileId(2), &mut || ()).unwrap().as_ptr() as usize - bytes.as_ptr() as usize;
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
        "boot archive has format version 9, expected 7: \
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
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
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
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&(length as u64).to_le_bytes());
        bytes[32..].copy_from_slice(&manifest);
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        prop_assert!(read_all(&bytes).is_err());
    }
}
