//! A domain's `[[domain.disk]]` tables.

use ::system::FileId;
use ::system::disk::{DiskConfig, DiskName, MAX_SECTORS, SECTOR_SIZE};

use super::description::{bytes, check, required_text};
use super::images::File;
use super::mebibytes;
use super::problem::Problem;
use super::table::{Located, Table};

/// One `[[domain.disk]]`; its image has not been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    name: Located<DiskName>,
    pub(super) image: Option<Located<String>>,
    sectors: Option<Located<u64>>,
    read_only: bool,
}

/// Reads the tables of one domain.
pub(super) fn read_disks(domain: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<Disk> {
    let mut names = Vec::new();
    let tables = domain.tables("disk", "[[domain.disk]]", problems);
    let read = |table| read_disk(table, &mut names, problems);
    tables.into_iter().filter_map(read).collect()
}

fn read_disk(
    mut table: Table<'_>,
    names: &mut Vec<DiskName>,
    problems: &mut Vec<Problem>,
) -> Option<Disk> {
    let name = required_text(&mut table, "name", r#"name = "xvda""#, problems);
    let image = table.text("image", r#"image = "root.img""#, problems);
    let size = table.text("size", r#"size = "64M""#, problems);
    let read_only = table.boolean("read_only", "read_only = true", problems);
    table.finish(problems);

    let name = name.and_then(|name| {
        let parsed = DiskName::parse(&name.value);
        let text = match parsed {
            None => Some(format!("\"{}\" is no disk; use xvda to xvdp", name.value)),
            Some(disk) if names.contains(&disk) => Some(format!(
                "two disks of this domain are called {disk}; give each its own name"
            )),
            Some(_) => None,
        };
        names.extend(parsed);
        check(problems, "name", &name, text);
        let (value, at) = (parsed?, name.at);
        Some(Located { value, at })
    });
    let sectors = size.and_then(|size| match sectors(&size.value) {
        Ok(value) => Some(Located { value, at: size.at }),
        Err(text) => {
            check(problems, "size", &size, Some(text));
            None
        }
    });
    Some(Disk {
        name: name?,
        image,
        sectors,
        read_only: read_only.is_some_and(|read_only| read_only.value),
    })
}

impl Disk {
    /// The disk as the archive describes it, for an image of so many bytes.
    pub(super) fn config(
        &self,
        image: Option<FileId>,
        bytes: Option<u64>,
    ) -> Result<DiskConfig, Problem> {
        let of_image = bytes.map(|bytes| bytes.div_ceil(SECTOR_SIZE));
        let sectors = match (&self.sectors, of_image) {
            (Some(size), Some(image)) if size.value < image => {
                let text = format!(
                    "the image has {}; give the disk as much or more, or leave the key out",
                    mebibytes(image * SECTOR_SIZE)
                );
                return Err(problem("size", size.at, text));
            }
            (Some(size), _) => size.value,
            (None, Some(image)) => image,
            (None, None) => {
                let text = "missing; add for example `size = \"64M\"`, or an image";
                return Err(problem("size", self.name.at, text.into()));
            }
        };
        Ok(DiskConfig {
            name: self.name.value,
            image,
            sectors,
            read_only: self.read_only,
        })
    }
}

/// A mistake about a key.
pub(super) fn problem(key: &str, at: usize, text: String) -> Problem {
    Problem {
        at,
        key: key.into(),
        text,
    }
}

fn sectors(size: &str) -> Result<u64, String> {
    let sectors = bytes(size)?.map(|bytes| bytes / SECTOR_SIZE);
    match sectors {
        Some(sectors) if (1..=MAX_SECTORS).contains(&sectors) => Ok(sectors),
        _ => Err(format!("a disk cannot have \"{size}\"; give it 1K to 1T")),
    }
}

/// A disk in the report of what was packed.
pub(super) fn show(disk: &DiskConfig, files: &[File]) -> String {
    let file = |id: FileId| files.get(usize::try_from(id.0).ok()?);
    let image = disk.image.and_then(file);
    let image = image.map_or_else(String::new, |file| format!(" from {}", file.name));
    let size = mebibytes(disk.sectors * SECTOR_SIZE);
    let mode = if disk.read_only { ", read-only" } else { "" };
    format!(", {} of {size}{image}{mode}", disk.name)
}
