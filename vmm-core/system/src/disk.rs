//! A domain's disks.

use alloc::format;
use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::config::FileId;

/// The most disks of one domain: `xvda` to `xvdp`.
pub const MAX_DISKS: usize = 16;
/// Bytes in a sector.
pub const SECTOR_SIZE: u64 = 512;
/// The largest disk: 1 TiB.
pub const MAX_SECTORS: u64 = (1 << 40) / SECTOR_SIZE;

/// One disk, in RAM: an image, which stays as it is, and what the domain has written over it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Which one it is.
    pub name: DiskName,
    /// What it holds at first; nothing but zeros without it, or behind its end.
    pub image: Option<FileId>,
    /// Its size in sectors.
    pub sectors: u64,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A disk's name in Linux, as a number: 0 stands for `xvda`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DiskName(pub u8);

impl DiskName {
    /// The disk that is called so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let letter = name.strip_prefix("xvd")?.as_bytes();
        let &[letter @ b'a'..=b'p'] = letter else {
            return None;
        };
        Some(Self(letter.wrapping_sub(b'a')))
    }

    /// The number of the device (Xen, `docs/man/xen-vbd-interface.7.pandoc`).
    #[must_use]
    pub const fn virtual_device(self) -> u32 {
        202 << 8 | (self.0 as u32 & 15) << 4
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = char::from(b'a'.wrapping_add(self.0 & 15));
        write!(f, "xvd{letter}")
    }
}

/// Cause and remedy of a mistake in a list of disks, given the number of the archive's files.
pub(crate) fn mistake(disks: &[DiskConfig], files: usize) -> Option<String> {
    for (index, disk) in disks.iter().enumerate() {
        let name = disk.name;
        let before = disks.iter().take(index);
        if usize::from(name.0) >= MAX_DISKS {
            return Some("a disk has no name: use xvda to xvdp".into());
        }
        if before.clone().any(|other| other.name == name) {
            return Some(format!(
                "two disks are called {name}: give each its own name"
            ));
        }
        if !(1..=MAX_SECTORS).contains(&disk.sectors) {
            return Some(format!(
                "{name} has {} sectors: give it 1 to {MAX_SECTORS} (1 TiB)",
                disk.sectors
            ));
        }
        let absent = |id: FileId| usize::try_from(id.0).is_ok_and(|id| id >= files);
        if let Some(id) = disk.image.filter(|&id| absent(id)) {
            return Some(format!(
                "the image of {name} is file {} that the archive does not have: pack it again",
                id.0
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{DiskConfig, DiskName, MAX_SECTORS, mistake};
    use crate::config::FileId;
    use alloc::string::ToString;

    #[test]
    fn names_are_those_of_linux() {
        for (name, number) in [("xvda", 51712), ("xvdb", 51728), ("xvdp", 51952)] {
            let disk = DiskName::parse(name).unwrap();
            assert_eq!(disk.to_string(), name);
            assert_eq!(disk.virtual_device(), number);
        }
        for bad in ["", "xvd", "xvdq", "xvdaa", "sda", "xvdA", "xvd\u{e4}"] {
            assert_eq!(DiskName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let disk = |name, sectors, image| DiskConfig {
            name: DiskName(name),
            image,
            sectors,
            read_only: false,
        };
        let text = |disks: &[DiskConfig]| mistake(disks, 1).unwrap_or_default();
        let good = disk(0, 8, Some(FileId(0)));
        assert_eq!(text(&[good.clone(), disk(15, MAX_SECTORS, None)]), "");
        assert!(text(&[good.clone(), good.clone()]).starts_with("two disks are called xvda"));
        assert!(text(&[disk(16, 8, None)]).starts_with("a disk has no name"));
        assert!(text(&[disk(1, 0, None)]).starts_with("xvdb has 0 sectors"));
        assert!(text(&[disk(1, MAX_SECTORS + 1, None)]).starts_with("xvdb has"));
        assert!(text(&[disk(1, 8, Some(FileId(1)))]).starts_with("the image of xvdb is file 1"));
    }
}
