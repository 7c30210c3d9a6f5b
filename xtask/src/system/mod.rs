//! System descriptions: TOML in, boot archive out.
//!
//! `description` reads the text, `images` the files it names; what they find wrong are
//! `Problems`, each with its line. The commented example is `xtask/systems/default.toml`.

mod description;
mod disks;
mod images;
mod networks;
mod problem;
mod rules;
mod table;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use ::system::config::Config;
use ::system::write_archive;
use anyhow::{Context, Result};

pub(crate) use images::Guests;
use images::{File, Images, Places};
use problem::Problems;

/// What went into an archive, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackReport {
    lines: Vec<String>,
    /// The archive's size in bytes.
    size: u64,
}

impl fmt::Display for PackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        write!(f, "boot archive: {}", mebibytes(self.size))
    }
}

/// Checks the description in `config` and writes the boot archive to `out`.
///
/// Files are named by paths relative to the description, or as `debian:NAME`: that is `vmlinuz`
/// and `initrd.img` of a cached guest; `guest:NAME` is a program of `tests/guests`.
pub(crate) fn pack(config: &Path, guests: Guests<'_>, out: &Path) -> Result<PackReport> {
    let (report, archive) = assemble(config, guests)?;
    // Written beside and renamed, so that an interrupted run leaves no half of an archive.
    let draft = PathBuf::from(format!("{}.part", out.display()));
    fs::write(&draft, archive).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, out).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(report)
}

fn assemble(path: &Path, guests: Guests<'_>) -> Result<(PackReport, Vec<u8>)> {
    let source = fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the system description {}; name an existing TOML file",
            path.display()
        )
    })?;
    let places = Places {
        base: path.parent().unwrap_or(Path::new("")),
        guests,
    };
    let mut images = Images::default();
    let config = description::read(&source)
        .and_then(|description| images.collect(description, places))
        .map_err(|problems| Problems::new(path, &source, problems))?;
    let files: Vec<_> = images
        .files()
        .iter()
        .map(|file| (file.name.as_str(), file.contents.as_slice()))
        .collect();
    let archive = write_archive(&config, &files)
        .with_context(|| format!("cannot pack {}", path.display()))?;
    let report = PackReport {
        lines: lines(&config, images.files()),
        size: archive.len() as u64,
    };
    Ok((report, archive))
}

fn lines(config: &Config, files: &[File]) -> Vec<String> {
    let file = |id: ::system::FileId| usize::try_from(id.0).ok().and_then(|id| files.get(id));
    let show = |file: &File| {
        let format = match file.formats {
            Some((now, was)) if now != was => format!("{was}, packed anew as {now}, "),
            Some((now, _)) => format!("{now}, "),
            None => String::new(),
        };
        let size = mebibytes(file.contents.len() as u64);
        format!("{} ({format}{size})", file.name)
    };
    let line = |domain: &::system::DomainConfig| {
        let kernel = file(domain.kernel).map(show).unwrap_or_default();
        let initrd = domain.initrd.and_then(file).map(show);
        let initrd = initrd.map_or_else(String::new, |initrd| format!(", initrd {initrd}"));
        let memory = mebibytes(domain.memory_pages << 12);
        let vcpus = domain.vcpus;
        let disks: String = domain
            .disks
            .iter()
            .map(|disk| disks::show(disk, files))
            .collect();
        let vifs: String = domain
            .vifs
            .iter()
            .map(|vif| networks::show(vif, &config.networks))
            .collect();
        format!(
            "domain {}: {memory}, {vcpus} vCPU{}, kernel {kernel}{initrd}{disks}{vifs}",
            domain.name,
            if vcpus == 1 { "" } else { "s" }
        )
    };
    let uplinks = config.networks.iter().filter_map(networks::show_uplink);
    uplinks.chain(config.domains.iter().map(line)).collect()
}

fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    match tenths % 10 {
        0 => format!("{} MiB", tenths / 10),
        rest => format!("{}.{rest} MiB", tenths / 10),
    }
}

#[cfg(test)]
mod tests;
