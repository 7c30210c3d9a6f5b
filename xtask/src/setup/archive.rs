//! A private apt configuration in the cache: the machine's own Debian mirrors, read without
//! touching the machine's package state and without root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::sources::{self, Source};
use super::tool;

/// Suite whose source package of Bochs is built.
const SOURCE_SUITE: &str = "trixie";

/// The private configuration.
#[derive(Debug)]
pub(super) struct Archive {
    dir: PathBuf,
}

/// A file of a source package.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceFile {
    pub(super) uri: String,
    pub(super) name: String,
    /// As apt writes it: `SHA256:...`.
    pub(super) checksum: String,
}

impl Archive {
    /// Derives the configuration from the machine's and reads the package lists.
    pub(super) fn open(cache: &Path, codename: &str) -> Result<Self> {
        let archive = Self {
            dir: cache.join("apt"),
        };
        for dir in ["lists/partial", "archives/partial"] {
            let dir = archive.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let machine = machine_sources(Path::new("/etc/apt"))?;
        let mut entries = sources::binary_entries(&machine, codename);
        entries.extend(sources::source_entries(&machine, codename, SOURCE_SUITE));
        ensure!(
            !entries.is_empty(),
            "/etc/apt names no mirror of Debian {codename} main: add one and try again"
        );
        fs::write(
            archive.dir.join("debian.sources"),
            sources::to_deb822(&entries),
        )
        .context("cannot write the private apt configuration")?;
        archive.update()?;
        Ok(archive)
    }

    fn update(&self) -> Result<()> {
        tool::step("reading the package lists of this machine's Debian mirrors");
        let ended = tool::run(self.command("/usr/bin/apt-get").args(["-qq", "update"]));
        // One unreachable entry of several is no reason to stop: what counts is whether the
        // packages are found, and that is asked next.
        if let Err(error) = ended {
            tool::warn(&format!("{error:#}"));
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::sourcelist={dir}/debian.sources"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}"),
            format!("Dir::Cache::archives={dir}/archives"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C.UTF-8").current_dir(&self.dir);
        command
    }

    /// Name and version of the one package that the newest `package` depends on first.
    pub(super) fn first_dependency(&self, package: &str) -> Result<(String, String)> {
        let mut show = self.command("/usr/bin/apt-cache");
        let text = tool::output(show.args(["show", "--no-all-versions", package]))?;
        first_dependency(&text)
            .with_context(|| format!("package {package} names no kernel it depends on"))
    }

    /// The version of `package` that would be fetched.
    pub(super) fn version(&self, package: &str) -> Result<String> {
        let mut show = self.command("/usr/bin/apt-cache");
        let text = tool::output(show.args(["show", "--no-all-versions", package]))?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(version
            .with_context(|| format!("package {package} has no version"))?
            .to_owned())
    }

    /// Fetches one binary package into `dir`, checked against the signed lists, and returns it.
    pub(super) fn download(&self, package: &str, version: &str, dir: &Path) -> Result<PathBuf> {
        let mut apt = self.command("/usr/bin/apt-get");
        apt.arg("-q")
            .arg("download")
            .arg(format!("{package}={version}"))
            .current_dir(dir);
        tool::run(&mut apt)?;
        let prefix = format!("{package}_");
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".deb") {
                return Ok(path);
            }
        }
        bail!("apt-get download {package} left no package behind")
    }

    /// Fetches the packages `wanted` and all they depend on into `packages`, as for an empty
    /// machine, and unpacks those that are `needed` below `root`. Nothing is installed.
    pub(super) fn unpack_closure(
        &self,
        wanted: &[&str],
        packages: &Path,
        root: &Path,
        needed: impl Fn(&str) -> bool,
    ) -> Result<()> {
        for dir in [&packages.join("partial"), root] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let empty = packages.join("status");
        fs::write(&empty, "").context("cannot write to the cache")?;
        let mut apt = self.command("/usr/bin/apt-get");
        apt.arg("-o")
            .arg(format!("Dir::State::status={}", empty.display()))
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", packages.display()))
            .args(["-o", "Debug::NoLocking=1", "-q", "-y"])
            .args(["--no-install-recommends", "--download-only", "install"])
            .args(wanted);
        tool::run(&mut apt)?;
        for entry in fs::read_dir(packages)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".deb") && needed(&name) {
                tool::run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(root))?;
            }
        }
        Ok(())
    }

    /// The upstream sources of `package` in the newer suite.
    pub(super) fn source(&self, package: &str) -> Result<SourceFile> {
        let mut apt = self.command("/usr/bin/apt-get");
        let text = tool::output(apt.args(["source", "--print-uris", "-qq", package]))?;
        parse_uris(&text)
            .into_iter()
            .find(|file| file.name.contains(".orig.tar"))
            .with_context(|| format!("the sources of {package} are in no mirror of this machine"))
    }

    /// Fetches a source file to `path`; apt's own helper checks the sum.
    pub(super) fn fetch(&self, file: &SourceFile, path: &Path) -> Result<()> {
        let mut helper = self.command("/usr/lib/apt/apt-helper");
        helper
            .args(["download-file", &file.uri])
            .arg(path)
            .arg(&file.checksum);
        tool::run(&mut helper)
    }
}

/// All entries under `/etc/apt`, in both formats.
fn machine_sources(etc: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc.join("sources.list.d")) {
        files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let mut all = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => all.extend(sources::parse_list(&text)),
            Some("sources") => all.extend(sources::parse_deb822(&text)),
            _ => {}
        }
    }
    Ok(all)
}

/// The first package of the `Depends` field, with the version it must have.
fn first_dependency(show: &str) -> Option<(String, String)> {
    let depends = show
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    let first = depends.split([',', '|']).next()?.trim();
    let (name, rest) = first.split_once(" (= ")?;
    Some((name.to_owned(), rest.strip_suffix(')')?.to_owned()))
}

/// Lines of the form `'URI' NAME SIZE SUM`.
fn parse_uris(text: &str) -> Vec<SourceFile> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let uri = words
            .next()?
            .strip_prefix('\'')?
            .strip_suffix('\'')?
            .to_owned();
        let name = words.next()?.to_owned();
        let checksum = words.nth(1)?.to_owned();
        checksum.starts_with("SHA").then_some(SourceFile {
            uri,
            name,
            checksum,
        })
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::{first_dependency, parse_uris};

    #[test]
    fn kernel_metapackage_names_the_kernel() {
        let show = "Package: linux-image-amd64\nVersion: 6.1.9-1\n\
                    Depends: linux-image-6.1.0-9-amd64 (= 6.1.9-1), other\n";
        let expected = ("linux-image-6.1.0-9-amd64".to_owned(), "6.1.9-1".to_owned());
        assert_eq!(first_dependency(show), Some(expected));
        assert_eq!(first_dependency("Package: x\nDepends: any\n"), None);
    }

    #[test]
    fn uris_come_with_name_and_checksum() {
        let text = "'http://m/b_3.0%2bdfsg.orig.tar.xz' b_3.0+dfsg.orig.tar.xz 99 SHA256:ab\n\
                    noise\n'http://m/b.dsc' b.dsc 10 MD5Sum:cd\n";
        let files = parse_uris(text);
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].name, "b_3.0+dfsg.orig.tar.xz");
        assert_eq!(files[0].checksum, "SHA256:ab");
    }
}
