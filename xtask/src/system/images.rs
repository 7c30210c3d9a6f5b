//! The files that a description names: found, read, checked, and kernels packed anew where that
//! saves the hypervisor time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ::system::config::{Config, DomainConfig, FileId};
use ::system::disk::DiskConfig;
use ::system::kernel::{Format, Image, Kernel, KernelError, compress_lz4, trim};
use anyhow::{Result, bail};

use super::description::{Description, Domain};
use super::disks::{self, Disk};
use super::problem::Problem;
use super::table::Located;

/// What stands before the name of a guest from the cache.
const CACHED: &str = "debian:";
/// What stands before the name of a program of `tests/guests`.
const MICRO: &str = "guest:";

/// Files of the archive, each once.
#[derive(Debug, Default)]
pub(super) struct Images {
    files: Vec<File>,
    ids: BTreeMap<(PathBuf, bool), FileId>,
}

/// A file as it goes into the archive.
#[derive(Debug)]
pub(super) struct File {
    /// As the description names it.
    pub(super) name: String,
    pub(super) contents: Vec<u8>,
    /// How the kernel is stored, and how it was; nothing for an initrd.
    pub(super) formats: Option<(Format, Format)>,
    /// The end of the kernel in guest memory.
    end: u64,
}

/// Where files are looked for.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// The directory of the description.
    pub(super) base: &'a Path,
    /// Guests that are there already, or can be built.
    pub(super) guests: Guests<'a>,
}

/// Guests that a description can name without a path.
#[derive(Clone, Copy)]
pub(crate) struct Guests<'a> {
    /// Directories with a directory for each cached guest.
    pub(crate) cached: &'a [&'a Path],
    /// Builds the programs of `tests/guests`, and says where they are.
    pub(crate) micro: &'a dyn Fn() -> Result<PathBuf>,
}

impl Images {
    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    /// Reads the files of a description and turns it into a configuration.
    pub(super) fn collect(
        &mut self,
        description: Description,
        places: Places<'_>,
    ) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut domains = Vec::new();
        for domain in description.domains {
            match self.domain(domain, places) {
                Ok(domain) => domains.push(domain),
                Err(mut found) => problems.append(&mut found),
            }
        }
        if problems.is_empty() {
            Ok(Config {
                host: description.host,
                networks: description.networks,
                domains,
            })
        } else {
            Err(problems)
        }
    }

    fn domain(&mut self, domain: Domain, places: Places<'_>) -> Result<DomainConfig, Vec<Problem>> {
        let problem = |key: &str, at: usize, text| Problem {
            at,
            key: key.into(),
            text,
        };
        let kernel = self
            .kernel(&domain.kernel, domain.repack, places)
            .map_err(|text| problem("kernel", domain.kernel.at, text));
        let initrd = domain.initrd.as_ref().map(|initrd| {
            self.initrd(initrd, places)
                .map_err(|text| problem("initrd", initrd.at, text))
        });
        let (kernel, initrd) = match (kernel, initrd.transpose()) {
            (Ok(kernel), Ok(initrd)) => (kernel, initrd),
            (kernel, initrd) => return Err(kernel.err().into_iter().chain(initrd.err()).collect()),
        };
        let memory = domain.memory_pages;
        if let Some(text) = self.memory_problem(kernel, initrd, memory.value) {
            return Err(vec![problem("memory", memory.at, text)]);
        }
        let disks = self.disks(&domain.disks, places)?;
        Ok(DomainConfig {
            name: domain.name,
            kernel,
            initrd,
            cmdline: domain.cmdline,
            memory_pages: memory.value,
            quotas: domain.quotas,
            vcpus: domain.vcpus,
            affinity: domain.affinity,
            share: domain.share,
            backing: domain.backing,
            on_reboot: domain.on_reboot,
            disks,
            vifs: domain.vifs,
        })
    }

    /// The least that has to fit; the hypervisor's builder knows the exact need.
    fn memory_problem(&self, kernel: FileId, initrd: Option<FileId>, pages: u64) -> Option<String> {
        let file = |id: FileId| self.files.get(usize::try_from(id.0).ok()?);
        let initrd = initrd
            .and_then(file)
            .map_or(0, |initrd| initrd.contents.len() as u64);
        let needed = file(kernel)?.end.saturating_add(initrd);
        (needed > pages << 12).then(|| {
            format!(
                "the kernel and initrd end at {} MiB; give the domain more than that",
                needed.div_ceil(1 << 20)
            )
        })
    }

    fn kernel(
        &mut self,
        name: &Located<String>,
        repack: bool,
        places: Places<'_>,
    ) -> Result<FileId, String> {
        let path = match name.value.strip_prefix(MICRO) {
            Some(program) => places.guests.program(program)?,
            None => places.find(&name.value, "vmlinuz")?,
        };
        let key = (path, repack);
        if let Some(&id) = self.ids.get(&key) {
            return Ok(id);
        }
        let contents = read(&key.0, &name.value)?;
        let file = prepare(&name.value, contents, repack)
            .map_err(|error| format!("\"{}\": {error}", name.value))?;
        Ok(self.add(key, file))
    }

    /// The disks, with their images.
    fn disks(
        &mut self,
        disks: &[Disk],
        places: Places<'_>,
    ) -> Result<Vec<DiskConfig>, Vec<Problem>> {
        let mut configs = Vec::new();
        let mut problems = Vec::new();
        for disk in disks {
            let image = disk.image.as_ref().map(|image| {
                let id = self.plain(image, places.base.join(&image.value));
                id.map_err(|text| disks::problem("image", image.at, text))
            });
            let config = image.transpose().and_then(|image| {
                let file = image.and_then(|id| self.files.get(usize::try_from(id.0).ok()?));
                disk.config(image, file.map(|file| file.contents.len() as u64))
            });
            match config {
                Ok(config) => configs.push(config),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(configs)
        } else {
            Err(problems)
        }
    }

    fn initrd(&mut self, name: &Located<String>, places: Places<'_>) -> Result<FileId, String> {
        let path = places.find(&name.value, "initrd.img")?;
        self.plain(name, path)
    }

    /// A file that goes into the archive as it is.
    fn plain(&mut self, name: &Located<String>, path: PathBuf) -> Result<FileId, String> {
        let key = (path, false);
        if let Some(&id) = self.ids.get(&key) {
            return Ok(id);
        }
        let file = File {
            name: name.value.clone(),
            contents: read(&key.0, &name.value)?,
            formats: None,
            end: 0,
        };
        Ok(self.add(key, file))
    }

    fn add(&mut self, key: (PathBuf, bool), file: File) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        self.files.push(file);
        self.ids.insert(key, id);
        id
    }
}

impl Places<'_> {
    /// The path for a name: `debian:NAME` stands for a file of that guest in the cache, anything
    /// else is a path, relative to the description.
    fn find(&self, name: &str, cached_file: &str) -> Result<PathBuf, String> {
        let Some(guest) = name.strip_prefix(CACHED) else {
            return Ok(self.base.join(name));
        };
        let known = self.guests.names();
        let found = self
            .guests
            .cached
            .iter()
            .map(|directory| directory.join(guest).join(cached_file));
        match found.into_iter().find(|path| path.is_file()) {
            Some(path) if known.iter().any(|known| known == guest) => Ok(path),
            _ if known.is_empty() => Err(format!(
                "there is no \"{name}\", as the cache has no guests; run `cargo xtask setup`"
            )),
            _ => Err(format!(
                "there is no \"{name}\" in the cache; it has {}",
                known
                    .iter()
                    .map(|guest| format!("\"{CACHED}{guest}\""))
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
        }
    }
}

impl Guests<'static> {
    /// None: every kernel has a path.
    pub(crate) fn none() -> Self {
        Self {
            cached: &[],
            micro: &|| bail!("no programs of `tests/guests` are to be had here"),
        }
    }
}

impl Guests<'_> {
    /// The path of a program of `tests/guests`.
    fn program(&self, name: &str) -> Result<PathBuf, String> {
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let programs = (self.micro)().map_err(|error| format!("{error:#}"))?;
        let path = programs.join(name);
        if is_name && path.is_file() {
            Ok(path)
        } else {
            Err(format!(
                "there is no \"{MICRO}{name}\"; `tests/guests/src/bin` has the programs"
            ))
        }
    }

    /// The names of the cached guests.
    fn names(&self) -> Vec<String> {
        let directories = self
            .cached
            .iter()
            .filter_map(|path| fs::read_dir(path).ok());
        let mut names: Vec<String> = directories
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let guest = entry.path().join("vmlinuz").is_file();
                guest.then(|| entry.file_name().to_string_lossy().into_owned())
            })
            .collect();
        names.sort();
        names
    }
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, String> {
    let remedy = "paths are relative to the description, `debian:cloud` is Debian's kernel";
    match fs::read(path) {
        Ok(contents) if contents.is_empty() => Err(format!("\"{name}\" is empty; copy it again")),
        Ok(contents) => Ok(contents),
        Err(error) => {
            let cause = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such file".into(),
                _ => error.to_string(),
            };
            Err(format!(
                "cannot read \"{}\": {cause}; {remedy}",
                path.display()
            ))
        }
    }
}

/// Checks a kernel. To pack it anew means to leave out what nobody loads of a plain ELF file, and to
/// compress it as LZ4 when it is in a format that takes the hypervisor ten times as long to unpack.
fn prepare(name: &str, contents: Vec<u8>, repack: bool) -> Result<File, KernelError> {
    let image = Image::identify(&contents)?;
    let was = image.format();
    let mut scratch = vec![0; image.scratch_size()?];
    let elf = image.unpack(&mut scratch, usize::MAX, &mut || ())?;
    let end = Kernel::parse(elf)?.end();
    let slow = matches!(was, Format::Xz | Format::Gzip | Format::Zstd);
    let (now, anew) = match was {
        Format::Elf if repack => (was, trim(elf)),
        _ if slow && repack => (Format::Lz4, Some(compress_lz4(elf)?)),
        _ => (was, None),
    };
    Ok(File {
        name: name.into(),
        contents: anew.unwrap_or(contents),
        formats: Some((now, was)),
        end,
    })
}
