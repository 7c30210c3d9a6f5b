//! Debian's own Bochs 2.7, unpacked into the cache: the fallback where 3.0 cannot be built, and a
//! second opinion for the tests.
//!
//! Its program is linked with a desktop's libraries, of which it uses none here; they are
//! unpacked with it and installed nowhere. Built for its debugger, it runs several CPUs by another
//! loop than the built one, without the mistake that `mends` mends there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::super::archive::Archive;
use super::super::tool;

/// The unpacked packages, below the cache. The number grows when their launcher changes.
const PLACE: &str = "bochs/packaged-1";
const PROGRAM: &str = "bochs";
/// The second is the smallest of the displays that the first insists on.
const PACKAGES: &[&str] = &["bochs", "bochs-term"];

/// Where its launcher is, once it is unpacked.
pub(super) fn program(cache: &Path) -> PathBuf {
    cache.join(PLACE).join(PROGRAM)
}

/// Fetches and unpacks it.
pub(super) fn install(cache: &Path, archive: &Archive) -> Result<()> {
    tool::step("Bochs 2.7: fetching Debian's packages; nothing is installed on the machine");
    let work = super::super::work_dir(cache, "bochs-packaged")?;
    let ready = work.join("ready");
    let root = ready.join("root");
    // Of what its dependencies drag along only the libraries matter.
    let needed = |package: &str| package.starts_with("lib") || package.starts_with("bochs");
    archive.unpack_closure(PACKAGES, &work.join("packages"), &root, needed)?;
    ensure!(
        root.join("usr/bin/bochs-bin").is_file(),
        "the package bochs has no bochs-bin any more"
    );
    let launcher = ready.join(PROGRAM);
    fs::write(&launcher, LAUNCHER).context("cannot write the launcher of Bochs")?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
    super::super::put(&ready, &cache.join(PLACE))?;
    fs::remove_dir_all(&work).context("cannot clean the cache")
}

/// Starts the unpacked program with its own loader, libraries and plugins.
const LAUNCHER: &str = r#"#!/bin/sh
root="$(dirname "$(readlink -f "$0")")/root"
libraries="$root/usr/lib/x86_64-linux-gnu"
export LTDL_LIBRARY_PATH="$libraries/bochs/plugins"
exec "$root/lib64/ld-linux-x86-64.so.2" --inhibit-cache \
    --library-path "$root/lib/x86_64-linux-gnu:$libraries" "$root/usr/bin/bochs-bin" "$@"
"#;
