//! `build`: the hypervisor and the micro-guests for bare metal.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::symbols;
use crate::workspace::Workspace;

/// The compiler target of everything that runs without an operating system.
const TARGET: &str = "x86_64-unknown-none";

/// Flags for every crate of a bare-metal build. The linker scripts come from the packages' own
/// build scripts, so one set of compiled dependencies serves them all.
const RUSTFLAGS: [&str; 4] = [
    "-Clinker=ld",
    "-Clinker-flavor=ld",
    "-Crelocation-model=static",
    "-Cforce-frame-pointers=yes",
];

/// Where distributions without rustup keep cargo and rustc.
const SYSTEM_BIN: &str = "/usr/bin";

/// Options of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The files one build gives.
#[derive(Debug)]
pub(crate) struct Built {
    /// What boots: multiboot2 and PVH, symbol table inside, no debug information.
    pub(crate) image: PathBuf,
    /// The same program with debug information, for gdb and symbolising.
    pub(crate) debug: PathBuf,
}

/// The verb.
pub(crate) fn run(ws: &Workspace, _args: &Args) -> Result<()> {
    let built = hypervisor(ws)?;
    println!("{}", built.image.display());
    Ok(())
}

/// Builds the hypervisor (release profile), fills in its symbol table and strips a copy.
pub(crate) fn hypervisor(ws: &Workspace) -> Result<Built> {
    finish(ws, "tessera", &[])
}

/// Builds a hypervisor that counts what its exits cost, which costs a little itself.
pub(crate) fn counting_hypervisor(ws: &Workspace) -> Result<Built> {
    finish(ws, "tessera-count", &["--features", "vmm-core/count"])
}

/// Builds a hypervisor that keeps the last exits of each vCPU for a debugger.
pub(crate) fn tracing_hypervisor(ws: &Workspace) -> Result<Built> {
    let options = ["--features", "vmm-core/exit-trace"];
    finish(ws, "tessera-trace", &options)
}

fn finish(ws: &Workspace, name: &str, options: &[&str]) -> Result<Built> {
    let linked = bare_package_with(ws, "boot", options)?.join("tessera");
    let out = ws.out()?;
    let built = Built {
        image: out.join(name),
        debug: out.join(format!("{name}.debug")),
    };
    let mut program = fs::read(&linked).with_context(|| format!("reading {}", linked.display()))?;
    symbols::fill(&mut program).with_context(|| format!("symbols of {}", linked.display()))?;
    write_if_changed(&built.debug, &program)?;
    strip(&built.debug, &built.image)?;
    Ok(built)
}

/// Builds all programs of one package for bare metal and returns the directory they are in.
pub(crate) fn bare_package(ws: &Workspace, package: &str) -> Result<PathBuf> {
    bare_package_with(ws, package, &[])
}

fn bare_package_with(ws: &Workspace, package: &str, options: &[&str]) -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let target_dir = ws.target().join("bare");
    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(ws.root())
        .args(["build", "--release", "--bins", "--package", package])
        .args(options)
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    let status = cargo
        .status()
        .with_context(|| format!("starting {}", cargo.get_program().to_string_lossy()))?;
    ensure!(
        status.success(),
        "the bare-metal build of package {package} failed ({toolchain})"
    );
    Ok(target_dir.join(TARGET).join("release"))
}

/// A cargo and rustc that can compile for bare metal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    bin: PathBuf,
    /// The target's core library comes compiled with the toolchain; else it is built from source.
    has_target: bool,
}

impl std::fmt::Display for Toolchain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.has_target {
            "with the target installed"
        } else {
            "building core"
        };
        write!(f, "{}, {how}", self.bin.join("cargo").display())
    }
}

impl Toolchain {
    /// Finds one: the active rustup toolchain if it has the target, then any other that has it,
    /// then the distribution's own with its library sources.
    pub(crate) fn find() -> Result<Self> {
        let active = env::var_os("RUSTUP_TOOLCHAIN");
        for sysroot in rustup_toolchains(active) {
            if has_target(&sysroot) {
                return Ok(Self {
                    bin: sysroot.join("bin"),
                    has_target: true,
                });
            }
        }
        let system = Path::new(SYSTEM_BIN);
        if let Some(sysroot) = sysroot_of(&system.join("rustc"))
            && system.join("cargo").is_file()
        {
            if has_target(&sysroot) {
                return Ok(Self {
                    bin: system.to_path_buf(),
                    has_target: true,
                });
            }
            if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
                return Ok(Self {
                    bin: system.to_path_buf(),
                    has_target: false,
                });
            }
        }
        bail!(
            "no Rust toolchain here can compile for {TARGET}.\n\
             Either: rustup target add {TARGET}\n\
             or, on Debian: apt-get install cargo-web rustc-web rust-web-src"
        )
    }

    /// Whether it compiles core itself: then it is the system's own.
    pub(crate) const fn builds_core(&self) -> bool {
        !self.has_target
    }

    /// A cargo command that uses this toolchain whatever the caller's environment selects.
    fn cargo(&self) -> Command {
        let mut cargo = Command::new(self.bin.join("cargo"));
        for variable in [
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
        ] {
            cargo.env_remove(variable);
        }
        cargo.env("RUSTC", self.bin.join("rustc"));
        if !self.has_target {
            // The compiler is a stable release; building core with it needs the unstable switch.
            cargo.env("RUSTC_BOOTSTRAP", "1").args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
        }
        cargo
    }
}

/// The directories of rustup's toolchains, `active` first.
fn rustup_toolchains(active: Option<OsString>) -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let Some(home) = home else { return Vec::new() };
    let Ok(entries) = fs::read_dir(home.join("toolchains")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort_by_key(|path| (path.file_name() != active.as_deref(), path.clone()));
    found
}

/// True when the toolchain brings the target's compiled core library.
fn has_target(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib")
        .join(TARGET)
        .join("lib")
        .is_dir()
}

fn sysroot_of(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// Writes the file only when its contents differ, so later steps can go by its age.
fn write_if_changed(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    fs::write(path, contents).with_context(|| format!("writing {}", path.display()))
}

/// Copies a program without its symbols.
pub(crate) fn strip(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("objcopy")
        .arg("--strip-all")
        .args([from, to])
        .status()
        .context("starting objcopy (Debian package binutils)")?;
    ensure!(status.success(), "objcopy cannot strip {}", from.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_found_by_its_library() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_target(dir.path()));
        fs::create_dir_all(dir.path().join("lib/rustlib/x86_64-unknown-none/lib")).unwrap();
        assert!(has_target(dir.path()));
    }

    #[test]
    fn unchanged_files_keep_their_age() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        write_if_changed(&file, b"a").unwrap();
        let age = fs::metadata(&file).unwrap().modified().unwrap();
        write_if_changed(&file, b"a").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), age);
        write_if_changed(&file, b"b").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"b");
    }
}
