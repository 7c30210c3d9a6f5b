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

/// One disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Which one it is.
    pub name: DiskName,
    /// What stands behind it.
    pub source: DiskSource,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// What stands behind a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DiskSource {
    /// RAM: an image, which stays as it is, and what the domain has written over it.
    Ram {
        /// What it holds at first; nothing but zeros without it, or behind its end.
        image: Option<FileId>,
        /// Its size in sectors.
        sectors: u64,
    },
    /// A disk of the machine, or a part of it.
    Machine {
        /// Its place, its serial number or its model.
        disk: String,
        /// Which part.
        part: DiskPart,
    },
}

/// A part of a disk of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DiskPart {
    /// All of it.
    Whole,
    /// The partition with this name in the GUID partition table.
    Name(String),
    /// The partition with this number there.
    Uuid(Uuid),
    /// Some sectors.
    Range {
        /// The first.
        first: u64,
        /// How many.
        sectors: u64,
    },
}

impl DiskPart {
    /// True when two parts of one disk surely have a sector in common.
    #[must_use]
    pub fn surely_overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole, _) | (_, Self::Whole) => true,
            (
                Self::Range { first, sectors },
                Self::Range {
                    first: other,
                    sectors: many,
                },
            ) => overlap((*first, *sectors), (*other, *many)),
            (one, other) => one == other,
        }
    }
}

/// True when two ranges, each of a first sector and their number, have a sector in common.
#[must_use]
pub const fn overlap(one: (u64, u64), other: (u64, u64)) -> bool {
    one.0 < other.0.saturating_add(other.1) && other.0 < one.0.saturating_add(one.1)
}

impl fmt::Display for DiskPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("all of it"),
            Self::Name(name) => write!(f, "partition \"{name}\""),
            Self::Uuid(uuid) => write!(f, "partition {uuid}"),
            Self::Range { first, sectors } => write!(f, "{sectors} sectors from {first} on"),
        }
    }
}

/// A number of 128 bits that nothing else has, as it is in a GUID partition table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Uuid([u8; 16]);

/// The bytes of a table in the order in which the text has them: its first three groups are
/// numbers, of which the table has the low byte first.
const UUID_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Uuid {
    /// The number with these bytes in the table.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The number that is written so: 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let groups = text.split('-').map(str::len);
        let digits = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
        if !groups.eq([8, 4, 4, 4, 12]) || !digits {
            return None;
        }
        let number = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
        let mut bytes = [0; 16];
        for (place, byte) in UUID_ORDER.into_iter().zip(number.to_be_bytes()) {
            *bytes.get_mut(place)? = byte;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in UUID_ORDER.into_iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{dash}{:02x}", self.0.get(place).copied().unwrap_or(0))?;
        }
        Ok(())
    }
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
        if let Some(text) = source_mistake(name, &disk.source, files) {
            return Some(text);
        }
    }
    None
}

fn source_mistake(name: DiskName, source: &DiskSource, files: usize) -> Option<String> {
    match source {
        DiskSource::Ram { sectors, .. } if !(1..=MAX_SECTORS).contains(sectors) => Some(format!(
            "{name} has {sectors} sectors: give it 1 to {MAX_SECTORS} (1 TiB)"
        )),
        DiskSource::Ram {
            image: Some(id), ..
        } if usize::try_from(id.0).is_ok_and(|id| id >= files) => Some(format!(
            "the image of {name} is file {} that the archive does not have: pack it again",
            id.0
        )),
        DiskSource::Machine { disk, .. } if disk.is_empty() => Some(format!(
            "{name} is a disk without a name: give its place, serial number or model"
        )),
        DiskSource::Machine {
            part: DiskPart::Range { first, sectors },
            ..
        } if *sectors == 0 || first.checked_add(*sectors).is_none() => Some(format!(
            "{name} has no sectors, or too many: give it others"
        )),
        DiskSource::Ram { .. } | DiskSource::Machine { .. } => None,
    }
}

/// Cause and remedy when two disks, perhaps of one domain, surely are the same sectors of the
/// machine and one of them may be written.
pub(crate) fn conflict<'a>(
    disks: impl Iterator<Item = (&'a str, &'a DiskConfig)> + Clone,
) -> Option<String> {
    let mut later = disks.clone();
    for (owner, disk) in disks {
        later.next();
        let DiskSource::Machine { disk: of, part } = &disk.source else {
            continue;
        };
        let clash = later.clone().find(|(_, other)| {
            let writable = !disk.read_only || !other.read_only;
            writable
                && matches!(&other.source, DiskSource::Machine { disk, part: theirs }
                    if disk == of && part.surely_overlaps(theirs))
        });
        if let Some((other_owner, other)) = clash {
            return Some(format!(
                "{owner}/{} and {other_owner}/{} overlap on disk \"{of}\" and may write: make both \
                 read-only, or give them different parts",
                disk.name, other.name
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{DiskConfig, DiskName, DiskPart, DiskSource, MAX_SECTORS, Uuid, conflict, mistake};
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
            source: DiskSource::Ram { image, sectors },
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

    #[test]
    fn a_uuid_is_written_as_everywhere() {
        let text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
        let bytes = [
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9,
            0x3b,
        ];
        let uuid = Uuid::parse(text).unwrap();
        assert_eq!(uuid, Uuid::from_bytes(bytes));
        assert_eq!(uuid.to_string(), text);
        assert_eq!(Uuid::parse(&text.to_uppercase()), Some(uuid));
        for bad in [
            "",
            "c12a7328f81f11d2ba4b00a0c93ec93b",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93bb",
            "+12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        ] {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_may_be_written_is_one_disks() {
        let disk = |part: &DiskPart, read_only| DiskConfig {
            name: DiskName(0),
            source: DiskSource::Machine {
                disk: "S1".into(),
                part: part.clone(),
            },
            read_only,
        };
        let clash = |one: &DiskPart, other: &DiskPart, modes: [bool; 2]| {
            let (one, other) = (disk(one, modes[0]), disk(other, modes[1]));
            conflict([("a", &one), ("b", &other)].into_iter())
        };
        let range = |first, sectors| DiskPart::Range { first, sectors };
        let text = clash(&DiskPart::Whole, &range(5, 5), [true, false]).unwrap();
        assert!(
            text.starts_with("a/xvda and b/xvda overlap on disk \"S1\""),
            "{text}"
        );
        assert_eq!(clash(&DiskPart::Whole, &range(5, 5), [true, true]), None);
        assert!(clash(&range(0, 6), &range(5, 5), [false, false]).is_some());
        assert_eq!(clash(&range(0, 5), &range(5, 5), [false, false]), None);
        let name = |name: &str| DiskPart::Name(name.into());
        assert!(clash(&name("x"), &name("x"), [false, true]).is_some());
        assert_eq!(clash(&name("x"), &name("y"), [false, false]), None);
    }
}
