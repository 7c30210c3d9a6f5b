//! Bochs: 3.0 built from Debian's newer source package into the cache (three times as fast as the
//! packaged 2.7, whose debugger is always on), else the packaged one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::archive::Archive;
use super::packages::{self, PACKAGED_BOCHS};
use super::tool;

/// Directory in the cache; a change of the options or the mend below takes a new name.
const BUILT: &str = "bochs/3.0-3";
/// Why there is none, once building it has failed.
const FAILED: &str = "bochs/3.0-3.failed";

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

/// A mistake of Bochs 3.0 that only shows with several CPUs. When an exception or a VM exit leaves
/// the emulation of an instruction, the loop for one CPU notes the new instruction pointer before
/// it goes on, and the function that the loop for several calls does not. A VM exit by an
/// interrupt or the preemption timer in front of an exception handler's first instruction then
/// saves the address of the instruction that faulted, with the handler's stack pointer.
const MEND: Mend = Mend {
    file: "cpu/cpu.cc",
    after: "void BX_CPU_C::cpu_run_trace(void)\n{\n",
    add: "  BX_CPU_THIS_PTR prev_rip = RIP;\n  BX_CPU_THIS_PTR speculative_rsp = false;\n\n",
};

/// Lines to add to a source file behind others, which it has once.
struct Mend {
    file: &'static str,
    after: &'static str,
    add: &'static str,
}

impl Mend {
    fn apply(&self, tree: &Path) -> Result<()> {
        let path = tree.join(self.file);
        let source = fs::read_to_string(&path).context("the source is not what it was")?;
        ensure!(
            source.matches(self.after).count() == 1,
            "{} is not what it was: the mend for several CPUs does not fit",
            self.file
        );
        let both = [self.after, self.add].concat();
        fs::write(&path, source.replace(self.after, &both)).context("cannot write to the cache")
    }
}

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
    (failure(cache).is_some() && PACKAGED_BOCHS.present()).then(|| Bochs {
        program: PathBuf::from(PACKAGED_BOCHS.file),
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

/// Builds Bochs 3.0, or installs the packaged one if that fails.
pub(super) fn install(cache: &Path, archive: &Archive) -> Result<()> {
    tool::step("Bochs 3.0: emulates a CPU with VT-x on any machine; built once, about two minutes");
    let Err(error) = build(cache, archive) else {
        return Ok(());
    };
    tool::warn(&format!("Bochs 3.0 cannot be built: {error:#}"));
    tool::warn("taking the packaged Bochs; `cargo xtask setup --refresh` tries 3.0 again");
    fs::create_dir_all(cache.join("bochs"))?;
    fs::write(cache.join(FAILED), format!("{error:#}")).context("cannot write to the cache")?;
    if PACKAGED_BOCHS.present() {
        Ok(())
    } else {
        packages::install(&[PACKAGED_BOCHS])
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
    MEND.apply(&tree)?;

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
