//! `setup`: installs and caches what building, running and testing need.
//!
//! Idempotent and safe to interrupt: everything is made in a work directory and renamed into place
//! when whole, and one lock keeps two set-ups apart. When all is there it only looks, which takes
//! a few milliseconds; `run` and `test` therefore always call [`ensure`].

mod archive;
pub(crate) mod bochs;
mod cpio;
pub(crate) mod for_tests;
mod initramfs;
pub(crate) mod kernels;
mod needs;
pub(crate) mod outer;
pub(crate) mod packages;
pub(crate) mod qemu;
pub(crate) mod rust;
mod sources;
mod tool;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::workspace::Workspace;
use kernels::{FLAVOURS, Lazy};
pub(crate) use needs::{Need, survey};

/// Options of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look for newer guest kernels in the package archive, and try again what failed before
    #[arg(long)]
    refresh: bool,
}

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    if args.refresh || !complete(ws) {
        bring_up(ws, args.refresh)?;
    }
    tool::step("everything is here (cargo xtask doctor shows it)");
    Ok(())
}

/// Makes sure that everything is there.
pub(crate) fn ensure(ws: &Workspace) -> Result<()> {
    if complete(ws) {
        Ok(())
    } else {
        bring_up(ws, false)
    }
}

/// Makes sure that the packaged Bochs is there, which only tests need beside the built one. False
/// where the system is not Debian, which alone has it.
pub(crate) fn ensure_packaged_bochs(ws: &Workspace) -> Result<bool> {
    let cache = ws.cache();
    if bochs::packaged(cache).is_some() {
        return Ok(true);
    }
    let Ok(codename) = debian(&fs::read_to_string("/etc/os-release").unwrap_or_default()) else {
        return Ok(false);
    };
    let _lock = lock(&cache.join("setup.lock"))?;
    bochs::install_packaged(cache, &archive::Archive::open(cache, &codename)?)?;
    Ok(true)
}

fn complete(ws: &Workspace) -> bool {
    survey(ws).iter().all(Need::met)
}

fn bring_up(ws: &Workspace, refresh: bool) -> Result<()> {
    let cache = ws.cache();
    let codename = match debian(&fs::read_to_string("/etc/os-release").unwrap_or_default()) {
        Ok(codename) => codename,
        Err(system) => return elsewhere(ws, &system),
    };
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = lock(&cache.join("setup.lock"))?;
    announce(ws, refresh);

    let mut missing: Vec<_> = packages::PACKAGES
        .iter()
        .filter(|package| !package.present())
        .copied()
        .collect();
    if rust::find().is_none() {
        missing.extend(rust::missing());
    }
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    let mut archive = Lazy {
        cache,
        codename: &codename,
        archive: None,
    };
    if refresh {
        bochs::forget_failure(cache);
    }
    if bochs::find(cache).is_none() {
        bochs::install(cache, archive.get()?)?;
    }
    if qemu::find(cache).is_none() {
        qemu::install(cache, archive.get()?)?;
    }
    for flavour in FLAVOURS {
        if refresh || flavour.found(cache).is_none() {
            kernels::install(cache, &mut archive, flavour, refresh)?;
        }
    }
    if refresh || outer::found(cache).is_none() {
        // The kernel's packages were refreshed just now.
        outer::install(cache, &mut archive)?;
    }
    match survey(ws).iter().find(|need| !need.met()) {
        None => Ok(()),
        Some(need) => bail!("{} is still missing: {}", need.name, need.remedy),
    }
}

/// Says what will be done and why before anything is done.
fn announce(ws: &Workspace, refresh: bool) {
    let open: Vec<Need> = survey(ws).into_iter().filter(|need| !need.met()).collect();
    if refresh {
        tool::step("looking for newer guest kernels");
    }
    if open.is_empty() {
        return;
    }
    tool::step("this machine lacks what Tessera needs; it is set up once, in this order:");
    for need in &open {
        eprintln!("         {:24} {}", need.name, need.why);
    }
    tool::step(&format!(
        "packages come from this machine's Debian mirrors; the rest goes to {}",
        ws.cache().display()
    ));
}

/// On another system: names what is missing and stops.
fn elsewhere(ws: &Workspace, system: &str) -> Result<()> {
    let open: Vec<Need> = survey(ws).into_iter().filter(|need| !need.met()).collect();
    if open.is_empty() {
        return Ok(());
    }
    eprintln!("Set-up knows Debian only; this machine runs {system}. Missing here:");
    for need in &open {
        eprintln!(
            "  {:24} {}\n  {:24} -> {}",
            need.name, need.why, "", need.by_hand
        );
    }
    bail!(
        "{} things are missing; provide them and try again",
        open.len()
    )
}

/// The codename of the Debian release this is, else the name of what it is.
fn debian(os_release: &str) -> Result<String, String> {
    let get = |key: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim().trim_matches('"').to_owned())
    };
    match (get("ID").as_deref(), get("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        _ => Err(get("PRETTY_NAME").unwrap_or_else(|| "an unknown system".to_owned())),
    }
}

/// Takes the lock, waiting for another set-up to end.
fn lock(path: &Path) -> Result<Flock<File>> {
    let open = || File::create(path).with_context(|| format!("cannot write {}", path.display()));
    match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => return Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => {}
        Err((_, error)) => bail!("cannot lock {}: {error}", path.display()),
    }
    tool::step("another set-up is running; waiting for it");
    Flock::lock(open()?, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// An empty directory to work in; what an interrupted run left there is removed.
fn work_dir(cache: &Path, name: &str) -> Result<PathBuf> {
    let dir = cache.join("work").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Moves a finished directory to its place, over an older one.
fn put(ready: &Path, place: &Path) -> Result<()> {
    let context = || format!("cannot put {} into place", place.display());
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).with_context(context)?;
    }
    let old = place.with_extension("old");
    if old.exists() {
        fs::remove_dir_all(&old).with_context(context)?;
    }
    if place.exists() {
        fs::rename(place, &old).with_context(context)?;
    }
    fs::rename(ready, place).with_context(context)?;
    if old.exists() {
        fs::remove_dir_all(&old).with_context(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{debian, put, work_dir};
    use std::fs;

    #[test]
    fn debian_is_told_from_others() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(debian(text), Ok("bookworm".to_owned()));
        let other = "ID=fedora\nVERSION_CODENAME=\"\"\nPRETTY_NAME=\"Fedora Linux 42\"\n";
        assert_eq!(debian(other), Err("Fedora Linux 42".to_owned()));
        assert!(debian("").is_err());
    }

    #[test]
    fn a_finished_directory_replaces_the_older_one() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["one", "two"] {
            let work = work_dir(dir.path(), "w").unwrap();
            assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
            fs::write(work.join("f"), content).unwrap();
            put(&work, &dir.path().join("place")).unwrap();
            assert_eq!(
                fs::read_to_string(dir.path().join("place/f")).unwrap(),
                content
            );
        }
        assert!(!dir.path().join("place.old").exists());
    }
}
