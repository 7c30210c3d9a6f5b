//! Guest kernels: the stock Debian kernels of the moment, unpacked into the cache and never
//! installed, each with an initial RAM disk.
//!
//! `guests/cloud` and `guests/standard` hold `vmlinuz`, `initrd.img` and `version`; the packages
//! stay beside them, so that a changed RAM disk needs no network.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::archive::Archive;
use super::initramfs::{self, Parts};
use super::tool;

/// Changes whenever the RAM disk's content is made in another way.
pub(crate) const RECIPE: &str = "3";

/// One of the two kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// Directory name under `guests`.
    pub(crate) name: &'static str,
    /// The package that always depends on the newest kernel.
    pub(crate) package: &'static str,
    /// Its use.
    pub(crate) why: &'static str,
}

/// The kernels to keep.
pub(crate) const FLAVOURS: [Flavour; 2] = [
    Flavour {
        name: "cloud",
        package: "linux-image-cloud-amd64",
        why: "Debian's kernel for virtual machines: the default guest",
    },
    Flavour {
        name: "standard",
        package: "linux-image-amd64",
        why: "Debian's standard kernel: guest in the tests",
    },
];

/// A newer kernel, which is fetched when a test wants it.
pub(crate) const NEWER: Flavour = Flavour {
    name: "cloud-6.12",
    package: "linux-image-6.12-cloud-amd64",
    why: "Debian's newer kernel for virtual machines: guest in the tests",
};

impl Flavour {
    /// Its directory, whether or not it is there.
    pub(crate) fn dir(&self, cache: &Path) -> PathBuf {
        cache.join("guests").join(self.name)
    }

    /// The kernel package's name and version, if it is there with a current RAM disk.
    pub(crate) fn found(&self, cache: &Path) -> Option<String> {
        let dir = self.dir(cache);
        let text = fs::read_to_string(dir.join("version")).ok()?;
        let (version, recipe) = text.trim().rsplit_once(' ')?;
        (recipe == RECIPE && dir.join("vmlinuz").is_file() && dir.join("initrd.img").is_file())
            .then(|| version.to_owned())
    }
}

/// Brings `flavour` up to date. Without `refresh`, packages that are in the cache will do.
pub(super) fn install(
    cache: &Path,
    archive: &mut Lazy<'_>,
    flavour: Flavour,
    refresh: bool,
) -> Result<()> {
    tool::step(&format!("guest kernel {}: {}", flavour.name, flavour.why));
    let packages = cache.join("packages");
    fs::create_dir_all(&packages).context("cannot write to the cache")?;
    let work = super::work_dir(cache, "kernel")?;
    let (kernel, parts) = unpacked(
        archive,
        &packages,
        flavour,
        initramfs::MODULES,
        &work,
        refresh,
    )?;
    let ready = work.join("ready");
    fs::create_dir(&ready)?;
    fs::rename(
        only_file(&work.join("boot"), "vmlinuz-")?,
        ready.join("vmlinuz"),
    )?;
    fs::write(ready.join("initrd.img"), initramfs::build(&parts))?;
    fs::write(ready.join("version"), format!("{kernel} {RECIPE}\n"))?;
    super::put(&ready, &flavour.dir(cache))?;
    fs::remove_dir_all(&work).context("cannot clean the cache")
}

/// Unpacks busybox, the kernel (to `boot/vmlinuz-*`) and its `modules` below `work`; returns the
/// kernel package's name and version, and what a RAM disk for it is made of.
pub(super) fn unpacked(
    archive: &mut Lazy<'_>,
    packages: &Path,
    flavour: Flavour,
    modules: &[&str],
    work: &Path,
    refresh: bool,
) -> Result<(String, Parts)> {
    let busybox = package(archive, packages, "busybox-static", refresh, |archive| {
        Ok((
            "busybox-static".to_owned(),
            archive.version("busybox-static")?,
        ))
    })?;
    let kernel = package(archive, packages, flavour.package, refresh, |archive| {
        archive.first_dependency(flavour.package)
    })?;
    unpack(&busybox.file, work, &["./bin/busybox", "./usr/bin/busybox"])?;
    let patterns: Vec<String> = modules.iter().map(|name| format!("*/{name}.ko*")).collect();
    let mut wanted = vec!["./boot/vmlinuz-*"];
    wanted.extend(patterns.iter().map(String::as_str));
    unpack(&kernel.file, work, &wanted)?;

    let vmlinuz = only_file(&work.join("boot"), "vmlinuz-")?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|name| work.join(name));
    let busybox = busybox
        .iter()
        .find(|path| path.is_file())
        .context("no busybox in its package")?;
    let applets = tool::output(Command::new(busybox).arg("--list-full"))?;
    let parts = Parts {
        busybox: fs::read(busybox)?,
        applets: applets.lines().map(str::to_owned).collect(),
        release: file_name(&vmlinuz)
            .trim_start_matches("vmlinuz-")
            .to_owned(),
        modules: found_modules(work)?,
    };
    Ok((kernel.version, parts))
}

/// Opens the archive at the first need, because that costs time and network.
#[derive(Debug)]
pub(super) struct Lazy<'a> {
    pub(super) cache: &'a Path,
    pub(super) codename: &'a str,
    pub(super) archive: Option<Archive>,
}

impl Lazy<'_> {
    pub(super) fn get(&mut self) -> Result<&Archive> {
        if self.archive.is_none() {
            self.archive = Some(Archive::open(self.cache, self.codename)?);
        }
        self.archive.as_ref().context("no package archive")
    }
}

/// A package file in the cache.
#[derive(Debug)]
pub(super) struct Package {
    file: PathBuf,
    /// `name version`.
    version: String,
}

impl Package {
    pub(super) fn file(&self) -> &Path {
        &self.file
    }
}

/// The package that `resolve` names, kept in the cache as `slot` with a note of its version.
pub(super) fn package(
    archive: &mut Lazy<'_>,
    packages: &Path,
    slot: &str,
    refresh: bool,
    resolve: impl Fn(&Archive) -> Result<(String, String)>,
) -> Result<Package> {
    let file = packages.join(format!("{slot}.deb"));
    let note = packages.join(format!("{slot}.version"));
    let cached = fs::read_to_string(&note).ok().filter(|_| file.is_file());
    if let (Some(version), false) = (&cached, refresh) {
        return Ok(Package {
            file,
            version: version.trim().to_owned(),
        });
    }
    let archive = archive.get()?;
    let (name, number) = resolve(archive)?;
    let version = format!("{name} {number}");
    if cached.is_none_or(|cached| cached.trim() != version) {
        tool::step(&format!("fetching {version}"));
        let work = super::work_dir(packages, "fetch")?;
        let fetched = archive.download(&name, &number, &work)?;
        // The note goes first and comes back last: it never names another package's file.
        if note.exists() {
            fs::remove_file(&note)?;
        }
        fs::rename(fetched, &file)?;
        fs::write(&note, &version)?;
        fs::remove_dir_all(&work)?;
    }
    Ok(Package { file, version })
}

/// Unpacks those files of a package that match `patterns`.
pub(super) fn unpack(package: &Path, dir: &Path, patterns: &[&str]) -> Result<()> {
    let mut deb = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let tarball = deb.stdout.take().context("dpkg-deb has no output")?;
    let tar = Command::new("tar")
        .args(["-x", "--no-same-owner", "--wildcards", "-C"])
        .arg(dir)
        .args(patterns)
        .stdin(tarball)
        // It complains about patterns without a file; what counts is looked for afterwards.
        .stderr(Stdio::null())
        .status()
        .context("cannot run tar")?;
    let status = deb.wait()?;
    ensure!(
        status.success(),
        "{} cannot be unpacked (tar: {tar})",
        package.display()
    );
    Ok(())
}

/// The kernel modules under `work`, by file name, uncompressed.
fn found_modules(work: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![work.join("lib"), work.join("usr/lib")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry?.path();
            let name = file_name(&path);
            if path.is_dir() {
                open.push(path);
            } else if name.ends_with(".ko") {
                found.insert(name, fs::read(&path)?);
            } else if let Some(plain) = name.strip_suffix(".xz") {
                let output = Command::new("xz").arg("-dc").arg(&path).output();
                let output = output.context("cannot run xz")?;
                ensure!(output.status.success(), "xz cannot unpack {name}");
                found.insert(plain.to_owned(), output.stdout);
            }
        }
    }
    Ok(found)
}

pub(super) fn only_file(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))?;
    entries
        .find_map(|entry| {
            let path = entry.ok()?.path();
            file_name(&path).starts_with(prefix).then_some(path)
        })
        .with_context(|| format!("no {prefix}* in {}", dir.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
