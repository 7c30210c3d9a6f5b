//! What only tests need: a newer guest kernel, and a checker of filesystems that runs in guests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::kernels::{self, Lazy, NEWER};
use super::{debian, lock, put, tool, work_dir};
use crate::workspace::Workspace;

/// Where the checker is below the cache, and in its package.
const E2FSCK: &str = "e2fsck/e2fsck.static";
const E2FSCK_PACKAGE: &str = "e2fsck-static";

/// Makes sure that the newer kernel is there.
pub(crate) fn newer_kernel(ws: &Workspace) -> Result<()> {
    let cache = ws.cache();
    if NEWER.found(cache).is_some() {
        return Ok(());
    }
    with_archive(cache, |archive| {
        kernels::install(cache, archive, NEWER, false)
    })
}

/// Debian's `e2fsck`, linked statically; it is fetched if it is not there.
pub(crate) fn e2fsck(ws: &Workspace) -> Result<PathBuf> {
    let cache = ws.cache();
    let program = cache.join(E2FSCK);
    if program.is_file() {
        return Ok(program);
    }
    with_archive(cache, |archive| {
        tool::step("e2fsck: for guests in the tests");
        let packages = cache.join("packages");
        let version = |archive: &Archive| {
            let version = archive.version(E2FSCK_PACKAGE)?;
            Ok((E2FSCK_PACKAGE.to_owned(), version))
        };
        let package = kernels::package(archive, &packages, E2FSCK_PACKAGE, false, version)?;
        let work = work_dir(cache, "e2fsck")?;
        kernels::unpack(package.file(), &work, &["*/e2fsck.static"])?;
        let ready = work.join("ready");
        fs::create_dir(&ready)?;
        let found = ["sbin", "usr/sbin"].map(|dir| work.join(dir).join("e2fsck.static"));
        let found = found.iter().find(|path| path.is_file());
        let found = found.context("no e2fsck.static in its package")?;
        fs::rename(found, ready.join("e2fsck.static"))?;
        let place = program.parent().context("a place in the cache")?;
        put(&ready, place)?;
        fs::remove_dir_all(&work).context("cannot clean the cache")
    })?;
    Ok(program)
}

fn with_archive(cache: &Path, act: impl FnOnce(&mut Lazy<'_>) -> Result<()>) -> Result<()> {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let Ok(codename) = debian(&system) else {
        bail!("only Debian has what this test needs");
    };
    let _lock = lock(&cache.join("setup.lock"))?;
    act(&mut Lazy {
        cache,
        codename: &codename,
        archive: None,
    })
}
