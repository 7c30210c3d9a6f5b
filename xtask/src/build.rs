//! `build`: the hypervisor and the micro-guests for bare metal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::symbols;
use crate::toolchain::{TARGET, Toolchain};
use crate::workspace::Workspace;

/// Flags for every crate of a bare-metal build. The linker scripts come from the packages' own
/// build scripts, so one set of compiled dependencies serves them all.
const RUSTFLAGS: [&str; 4] = [
    "-Clinker=ld",
    "-Clinker-flavor=ld",
    "-Crelocation-model=static",
    "-Cforce-frame-pointers=yes",
];

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
