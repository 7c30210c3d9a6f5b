//! A domain's `[[domain.disk]]` tables.

use ::system::FileId;
use ::system::disk::{DiskConfig, DiskName, DiskPart, DiskSource, MAX_SECTORS, SECTOR_SIZE, Uuid};

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
    /// A disk of the machine, and its part.
    machine: Option<(String, DiskPart)>,
    read_only: bool,
}

/// The keys that say what stands behind a disk.
struct Source {
    image: Option<Located<String>>,
    size: Option<Located<String>>,
    disk: Option<Located<String>>,
    partition: Option<Located<String>>,
    partition_uuid: Option<Located<String>>,
    start: Option<Located<String>>,
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
    let source = Source {
        image: table.text("image", r#"image = "root.img""#, problems),
        size: table.text("size", r#"size = "64M""#, problems),
        disk: table.text("disk", r#"disk = "QM00001""#, problems),
        partition: table.text("partition", r#"partition = "root""#, problems),
        partition_uuid: table.text(
            "partition_uuid",
            r#"partition_uuid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b""#,
            problems,
        ),
        start: table.text("start", r#"start = "1M""#, problems),
    };
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
    let machine = match source.machine() {
        Ok(machine) => machine,
        Err(problem) => {
            problems.push(problem);
            return None;
        }
    };
    let sectors = source.size.and_then(|size| match sectors(&size.value) {
        Ok(value) => Some(Located { value, at: size.at }),
        Err(text) => {
            check(problems, "size", &size, Some(text));
            None
        }
    });
    Some(Disk {
        name: name?,
        image: source.image,
        sectors,
        machine,
        read_only: read_only.is_some_and(|read_only| read_only.value),
    })
}

impl Source {
    /// The disk of the machine that the keys name, and its part.
    fn machine(&self) -> Result<Option<(String, DiskPart)>, Problem> {
        let parts = [
            ("partition", &self.partition),
            ("partition_uuid", &self.partition_uuid),
            ("start", &self.start),
        ];
        let mut given = parts
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let first = given.next();
        let Some(disk) = &self.disk else {
            return match first {
                Some((key, value)) => Err(problem(
                    key,
                    value.at,
                    "there is no `disk` that it could be a part of; name one".into(),
                )),
                None => Ok(None),
            };
        };
        if let Some(image) = &self.image {
            let text = "a disk has either an image or a `disk` of the machine behind it";
            return Err(problem("image", image.at, text.into()));
        }
        if let Some((key, value)) = given.next() {
            let text = "a disk is one part only; give one of partition, partition_uuid and start";
            return Err(problem(key, value.at, text.into()));
        }
        let part = match (first, &self.size) {
            (Some(("start", start)), size) => Self::range(start, size.as_ref())?,
            (_, Some(size)) => {
                let text = "only a range has a size of its own; give `start` too, or leave it out";
                return Err(problem("size", size.at, text.into()));
            }
            (Some(("partition", name)), None) => DiskPart::Name(name.value.clone()),
            (Some((key, uuid)), None) => {
                DiskPart::Uuid(Uuid::parse(&uuid.value).ok_or_else(|| {
                    let text = format!("\"{}\" is no UUID; see `lsblk -o PARTUUID`", uuid.value);
                    problem(key, uuid.at, text)
                })?)
            }
            (None, None) => DiskPart::Whole,
        };
        Ok(Some((disk.value.clone(), part)))
    }

    fn range(start: &Located<String>, size: Option<&Located<String>>) -> Result<DiskPart, Problem> {
        let Some(size) = size else {
            let text = "a range needs a `size`; add for example `size = \"64M\"`";
            return Err(problem("start", start.at, text.into()));
        };
        let count = |key, text: &Located<String>| {
            let bytes = bytes(&text.value).map_err(|why| problem(key, text.at, why))?;
            let bytes = bytes.filter(|bytes| bytes / SECTOR_SIZE <= MAX_SECTORS);
            let far = || problem(key, text.at, format!("\"{}\" is too much", text.value));
            bytes.map(|bytes| bytes / SECTOR_SIZE).ok_or_else(far)
        };
        let (first, sectors) = (count("start", start)?, count("size", size)?);
        Ok(DiskPart::Range { first, sectors })
    }
}

impl Disk {
    /// The disk as the archive describes it, for an image of so many bytes.
    pub(super) fn config(
        &self,
        image: Option<FileId>,
        bytes: Option<u64>,
    ) -> Result<DiskConfig, Problem> {
        let source = match &self.machine {
            Some((disk, part)) => DiskSource::Machine {
                disk: disk.clone(),
                part: part.clone(),
            },
            None => DiskSource::Ram {
                image,
                sectors: self.ram_sectors(bytes)?,
            },
        };
        Ok(DiskConfig {
            name: self.name.value,
            source,
            read_only: self.read_only,
        })
    }

    fn ram_sectors(&self, image: Option<u64>) -> Result<u64, Problem> {
        let of_image = image.map(|bytes| bytes.div_ceil(SECTOR_SIZE));
        match (&self.sectors, of_image) {
            (Some(size), Some(image)) if size.value < image => {
                let text = format!(
                    "the image has {}; give the disk as much or more, or leave the key out",
                    mebibytes(image * SECTOR_SIZE)
                );
                Err(problem("size", size.at, text))
            }
            (Some(size), _) => Ok(size.value),
            (None, Some(image)) => Ok(image),
            (None, None) => {
                let text = "missing; add for example `size = \"64M\"`, an image, or a `disk`";
                Err(problem("size", self.name.at, text.into()))
            }
        }
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
    let mode = if disk.read_only { ", read-only" } else { "" };
    let what = match &disk.source {
        DiskSource::Ram { image, sectors } => {
            let file = |id: FileId| files.get(usize::try_from(id.0).ok()?);
            let image = image.and_then(file);
            let image = image.map_or_else(String::new, |file| format!(" from {}", file.name));
            format!("of {}{image}", mebibytes(sectors * SECTOR_SIZE))
        }
        DiskSource::Machine { disk, part } => format!("on disk \"{disk}\" ({part})"),
    };
    format!(", {} {what}{mode}", disk.name)
}
