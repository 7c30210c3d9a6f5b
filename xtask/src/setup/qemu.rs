//! QEMU: the one on the search path, else Debian's packages unpacked into the cache.
//!
//! Installing `qemu-system-x86` can take packages of another version away from the machine (a
//! `qemu-utils` from the backports, say). Unpacked with every library it needs, it changes nothing
//! on the machine, and it asks for no root.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::tool;

/// Program and package.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The unpacked packages, below the cache. The number grows when their launcher changes.
const PLACE: &str = "qemu/1";

/// The dynamic loader below the unpacked packages.
pub(super) const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// Where the packages are unpacked, if they are.
pub(super) fn unpacked(cache: &Path) -> Option<PathBuf> {
    let place = cache.join(PLACE);
    place.join(PROGRAM).is_file().then(|| place.join("root"))
}

/// Their dynamic loader, told to take libraries from nowhere else.
pub(super) fn loader(root: &Path) -> Command {
    let mut command = Command::new(root.join(LOADER));
    command
        .args(["--inhibit-cache", "--library-path"])
        .arg(format!(
            "{0}/lib/x86_64-linux-gnu:{0}/usr/lib/x86_64-linux-gnu",
            root.display()
        ));
    command
}

/// The QEMU to use, if there is one: the machine's, else ours.
pub(crate) fn find(cache: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    on_path(&path).or_else(|| {
        let ours = cache.join(PLACE).join(PROGRAM);
        ours.is_file().then_some(ours)
    })
}

fn on_path(path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|dir| dir.join(PROGRAM))
        .find(|program| program.is_file())
}

/// Fetches and unpacks it.
pub(super) fn install(cache: &Path, archive: &Archive) -> Result<()> {
    tool::step("QEMU: fetching Debian's packages; nothing is installed on the machine");
    let work = super::work_dir(cache, "qemu")?;
    let ready = work.join("ready");
    archive.unpack_closure(
        &[PACKAGE],
        &work.join("packages"),
        &ready.join("root"),
        |_| true,
    )?;
    let launcher = ready.join(PROGRAM);
    fs::write(&launcher, LAUNCHER).context("cannot write QEMU's launcher")?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
    tool::output(Command::new(&launcher).arg("--version"))
        .context("the unpacked QEMU does not start")?;
    super::put(&ready, &cache.join(PLACE))?;
    fs::remove_dir_all(&work).context("cannot clean the cache")
}

/// Starts the unpacked program with its own loader, libraries and firmware.
const LAUNCHER: &str = r#"#!/bin/sh
root="$(dirname "$(readlink -f "$0")")/root"
export QEMU_MODULE_DIR="$root/usr/lib/x86_64-linux-gnu/qemu"
exec "$root/lib64/ld-linux-x86-64.so.2" --inhibit-cache \
    --library-path "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu" \
    "$root/usr/bin/qemu-system-x86_64" \
    -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
"#;

#[cfg(test)]
mod tests {
    use super::{PLACE, PROGRAM, on_path};
    use std::ffi::OsStr;
    use std::fs;

    #[test]
    fn the_search_path_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(PLACE);
        fs::create_dir_all(&place).unwrap();
        let path = format!("/nowhere:{}", place.display());
        assert_eq!(on_path(OsStr::new(&path)), None);
        fs::write(place.join(PROGRAM), "").unwrap();
        assert_eq!(on_path(OsStr::new(&path)), Some(place.join(PROGRAM)));
    }
}
