//! Bochs: 3.0 built from Debian's newer source package into the cache (three times as fast as the
//! packaged 2.7, whose debugger is always on), else the packaged one.

mod mends;
mod packaged;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::archive::Archive;
use super::tool;

pub(crate) use mends::FAULTS;

/// Directory in the cache; a change of the options or of `mends` takes a new name.
const BUILT: &str = "bochs/3.0-5";
/// Why there is none, once building it has failed.
const FAILED: &str = "bochs/3.0-5.failed";

/// No debugger (it costs most of the speed), all of VT-x, no display.
const OPTIONS: &[&str] = &[
    "--enable-smp",
    "--enable-x86-64",
    "--enable-cpu-level=6",
    "--enable-vmx=2",
    "--enable-avx",
    "--enable-evex",
    "--enable-handlers-chaining",
    "--enable-trace-linking",
    "--enable-all-optimizations",
    "--enable-fast-function-calls",
    "--enable-repeat-speedups",
    "--enable-pci",
    "--enable-e1000",
    "--enable-ne2000",
    "--enable-protection-keys",
    "--enable-cet",
    "--enable-memtype",
    "--enable-monitor-mwait",
    "--enable-configurable-msrs",
    "--enable-alignment-check",
    "--disable-docbook",
    "--with-nogui",
];
const FLAGS: &str = "-O3 -fomit-frame-pointer";

/// A Bochs that can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bochs {
    /// The emulator.
    pub(crate) program: PathBuf,
    /// Value of `display_library`: a display that shows nothing.
    pub(crate) display: &'static str,
    /// Whether it is the packaged build, which has the interactive debugger.
    pub(crate) packaged: bool,
}

/// Firmware, from the packages bochsbios and vgabios.
pub(crate) const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
/// See `BIOS`.
pub(crate) const VGA_BIOS: &str = "/usr/share/vgabios/vgabios.bin";

/// Where ours is, once it is built.
pub(crate) fn program(cache: &Path) -> PathBuf {
    cache.join(BUILT).join("bochs")
}

/// The Bochs to use, if there is one: ours, or the packaged one where ours could not be built.
pub(crate) fn find(cache: &Path) -> Option<Bochs> {
    let program = program(cache);
    if program.is_file() {
        return Some(Bochs {
            program,
            display: "nogui",
            packaged: false,
        });
    }
    failure(cache).and_then(|_| packaged(cache))
}

/// The packaged one, if it is there.
pub(crate) fn packaged(cache: &Path) -> Option<Bochs> {
    let program = packaged::program(cache);
    program.is_file().then_some(Bochs {
        program,
        display: "rfb, options=\"timeout=0\"",
        packaged: true,
    })
}

/// Why Bochs 3.0 could not be built here, if that was tried.
pub(crate) fn failure(cache: &Path) -> Option<String> {
    fs::read_to_string(cache.join(FAILED)).ok()
}

/// Forgets an earlier failure, so that `find` asks for the build again.
pub(super) fn forget_failure(cache: &Path) {
    // If it cannot be removed it stays, which `find` then tells.
    let _ = fs::remove_file(cache.join(FAILED));
}

/// Builds Bochs 3.0, or takes the packaged one if that fails.
pub(super) fn install(cache: &Path, archive: &Archive) -> Result<()> {
    tool::step("Bochs 3.0: emulates a CPU with VT-x on any machine; built once, about two minutes");
    let Err(error) = build(cache, archive) else {
        return Ok(());
    };
    tool::warn(&format!("Bochs 3.0 cannot be built: {error:#}"));
    tool::warn("taking the packaged Bochs; `cargo xtask setup --refresh` tries 3.0 again");
    fs::create_dir_all(cache.join("bochs"))?;
    fs::write(cache.join(FAILED), format!("{error:#}")).context("cannot write to the cache")?;
    install_packaged(cache, archive)
}

/// Fetches the packaged one, unless it is there.
pub(super) fn install_packaged(cache: &Path, archive: &Archive) -> Result<()> {
    match packaged(cache) {
        Some(_) => Ok(()),
        None => packaged::install(cache, archive),
    }
}

fn build(cache: &Path, archive: &Archive) -> Result<()> {
    let work = super::work_dir(cache, "bochs")?;
    let source = archive.source("bochs")?;
    let tarball = work.join("bochs.tar.xz");
    archive.fetch(&source, &tarball)?;
    let tree = work.join("tree");
    fs::create_dir(&tree)?;
    let mut tar = Command::new("tar");
    tar.arg("-xf")
        .arg(&tarball)
        .arg("--strip-components=1")
        .arg("-C")
        .arg(&tree);
    tool::run(&mut tar)?;
    mends::apply(&tree)?;

    let log_path = cache.join("bochs-build.log");
    let mut log = File::create(&log_path).context("cannot write to the cache")?;
    let hint = || format!("see {}", log_path.display());
    tool::step("Bochs 3.0: configuring");
    let mut configure = Command::new("./configure");
    configure
        .args(OPTIONS)
        .env("CFLAGS", FLAGS)
        .env("CXXFLAGS", FLAGS)
        .current_dir(&tree);
    tool::progress(
        &mut configure,
        "Bochs 3.0: configuring",
        usize::MAX,
        |_| false,
        &mut log,
    )
    .with_context(hint)?;
    let mut dry = Command::new("make");
    let total = tool::output(dry.arg("-n").current_dir(&tree))?
        .lines()
        .filter(compiles)
        .count();
    ensure!(total > 0, "the build has nothing to compile; {}", hint());
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("make");
    make.arg(format!("-j{jobs}")).current_dir(&tree);
    tool::progress(
        &mut make,
        "Bochs 3.0: compiling",
        total,
        |line| compiles(&line),
        &mut log,
    )
    .with_context(hint)?;

    let ready = work.join("ready");
    fs::create_dir(&ready)?;
    fs::rename(tree.join("bochs"), ready.join("bochs")).context("the build left no program")?;
    super::put(&ready, &cache.join(BUILT))?;
    fs::remove_dir_all(&work).context("cannot clean the cache")?;
    Ok(())
}

/// Whether a line of make's output is one compilation.
fn compiles(line: &&str) -> bool {
    line.contains(" -c ")
}
