//! Debian packages: which are needed and why, which are missing, and their installation.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::tool;

/// A package, the file that shows it is there, and its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    pub(crate) why: &'static str,
}

const fn package(name: &'static str, file: &'static str, why: &'static str) -> Package {
    Package { name, file, why }
}

/// What everything but the bare-metal compiler needs.
pub(crate) const PACKAGES: &[Package] = &[
    package(
        "grub-common",
        "/usr/bin/grub-mkrescue",
        "makes the boot image",
    ),
    package(
        "grub-pc-bin",
        "/usr/lib/grub/i386-pc/multiboot2.mod",
        "boots the image from BIOS",
    ),
    package(
        "grub-efi-amd64-bin",
        "/usr/lib/grub/x86_64-efi/multiboot2.mod",
        "boots the image from UEFI",
    ),
    package("xorriso", "/usr/bin/xorriso", "writes the boot image"),
    package(
        "mtools",
        "/usr/bin/mformat",
        "makes the UEFI partition of the boot image",
    ),
    package("binutils", "/usr/bin/ld", "links the hypervisor"),
    package(
        "ovmf",
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "UEFI firmware for QEMU",
    ),
    package("gdb", "/usr/bin/gdb", "debugs the hypervisor"),
    package(
        "bochsbios",
        "/usr/share/bochs/BIOS-bochs-latest",
        "firmware for Bochs",
    ),
    package(
        "vgabios",
        "/usr/share/vgabios/vgabios.bin",
        "firmware for Bochs",
    ),
    package(
        "e2fsprogs",
        "/usr/sbin/e2fsck",
        "checks what a guest wrote to a disk",
    ),
    package("g++", "/usr/bin/g++", "builds Bochs 3.0"),
    package("make", "/usr/bin/make", "builds Bochs 3.0"),
    package(
        "xz-utils",
        "/usr/bin/xz",
        "unpacks sources and kernel modules",
    ),
];

impl Package {
    /// Whether its file is there.
    pub(crate) fn present(&self) -> bool {
        Path::new(self.file).exists()
    }
}

/// Installs `packages`, with sudo when not root.
pub(super) fn install(packages: &[Package]) -> Result<()> {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    tool::step("these Debian packages are missing and will be installed:");
    for package in packages {
        eprintln!("         {:20} {}", package.name, package.why);
    }
    let sudo = !nix::unistd::geteuid().is_root();
    let as_root = format!(
        "run as root:\n  apt-get update && apt-get install --no-install-recommends {}",
        names.join(" ")
    );
    if sudo && !Path::new("/usr/bin/sudo").exists() {
        bail!("not root and no sudo on this machine; {as_root}");
    }
    // A list that cannot be renewed may still do.
    if let Err(error) = apt(sudo, &["-q", "update"]) {
        tool::warn(&format!("{error:#}"));
    }
    let mut args = vec![
        "-q",
        "-y",
        "--no-install-recommends",
        "--no-remove",
        "install",
    ];
    args.extend(&names);
    if let Err(error) = apt(sudo, &args) {
        bail!("{error:#}; if this user may not install packages, {as_root}");
    }
    for package in packages {
        ensure!(
            package.present(),
            "package {} is installed but {} is still missing: try `apt-get install --reinstall {}`",
            package.name,
            package.file,
            package.name
        );
    }
    Ok(())
}

const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(15);

/// Runs apt-get; while another program holds its lock, waits and tries again.
fn apt(sudo: bool, args: &[&str]) -> Result<()> {
    for attempt in 1..=ATTEMPTS {
        let mut command = Command::new(if sudo { "sudo" } else { "env" });
        command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]);
        command
            .args(["apt-get", "-o", "DPkg::Lock::Timeout=120"])
            .args(args);
        let (status, locked) = attempt_once(&mut command)?;
        if status.success() {
            return Ok(());
        }
        ensure!(
            locked && attempt < ATTEMPTS,
            "apt-get {} failed ({status}): see its messages above",
            args.join(" ")
        );
        tool::step("another program is using the package system; trying again in 15 s");
        thread::sleep(PAUSE);
    }
    bail!("the package system stayed locked by another program: try again when it is done")
}

/// Runs it once, its output on the user's terminal; also whether a lock was in its way.
fn attempt_once(command: &mut Command) -> Result<(std::process::ExitStatus, bool)> {
    let mut child = command
        .stdin(Stdio::inherit())
        .stdout(std::io::stderr())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run apt-get")?;
    let mut locked = false;
    if let Some(errors) = child.stderr.take() {
        use std::io::BufRead as _;
        for line in std::io::BufReader::new(errors).lines() {
            let line = line?;
            locked |= line.contains("Could not get lock") || line.contains("Unable to lock");
            eprintln!("{line}");
        }
    }
    Ok((child.wait()?, locked))
}
