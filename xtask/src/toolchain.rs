//! The cargo and rustc that compile for bare metal.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// The compiler target of everything that runs without an operating system.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// Major and minor number of a compiler.
type Release = (u32, u32);

/// Oldest compiler that builds the tree.
const OLDEST: Release = (1, 95);

/// Where distributions keep cargo and rustc.
const SYSTEM_BIN: &str = "/usr/bin";

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
    /// Finds one: the toolchain that runs this program if it has the target, then rustup's that
    /// have it, the active one first, then the system's own with the target or with its library
    /// sources.
    pub(crate) fn find() -> Result<Self> {
        let own = env::var_os("CARGO").and_then(|cargo| sysroot_around(Path::new(&cargo)));
        let rustups = rustup_toolchains(env::var_os("RUSTUP_TOOLCHAIN"));
        let installed = own
            .into_iter()
            .chain(rustups)
            .find_map(|sysroot| Self::with_target(&sysroot, release));
        if let Some(found) = installed.or_else(Self::of_system) {
            return Ok(found);
        }
        let (major, minor) = OLDEST;
        bail!(
            "no Rust toolchain here, of release {major}.{minor} or newer, can compile for {TARGET}.\n\
             Either: rustup target add {TARGET}\n\
             or, on Debian: apt-get install cargo-web rustc-web rust-web-src"
        )
    }

    /// The toolchain in `sysroot`, if it is whole, new enough and has the target.
    fn with_target(sysroot: &Path, release: fn(&Path) -> Option<Release>) -> Option<Self> {
        let bin = sysroot.join("bin");
        let found = has_target(sysroot) && works(&bin, release);
        found.then_some(Self {
            bin,
            has_target: true,
        })
    }

    fn of_system() -> Option<Self> {
        let bin = PathBuf::from(SYSTEM_BIN);
        if !works(&bin, release) {
            return None;
        }
        let sysroot = sysroot_of(&bin.join("rustc"))?;
        let has_target = has_target(&sysroot);
        let has_sources = sysroot.join("lib/rustlib/src/rust/library/core").is_dir();
        (has_target || has_sources).then_some(Self { bin, has_target })
    }

    /// A cargo command that uses this toolchain whatever the caller's environment selects.
    pub(crate) fn cargo(&self) -> Command {
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

/// The directory whose `bin` has this program.
fn sysroot_around(program: &Path) -> Option<PathBuf> {
    let sysroot = program.parent()?.parent()?;
    program.is_absolute().then(|| sysroot.to_path_buf())
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

/// True when both programs are there and not too old. A toolchain that was linked from a compiler's
/// build has no cargo.
fn works(bin: &Path, release: fn(&Path) -> Option<Release>) -> bool {
    bin.join("cargo").is_file() && release(&bin.join("rustc")).is_some_and(|age| age >= OLDEST)
}

/// What a compiler says it is; `None` if it does not run.
fn release(rustc: &Path) -> Option<Release> {
    let output = Command::new(rustc).arg("--version").output().ok()?;
    version(&String::from_utf8_lossy(&output.stdout))
}

/// Major and minor number in `rustc 1.96.0 (…)`.
fn version(text: &str) -> Option<Release> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn sysroot_of(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::{OLDEST, Toolchain, release, sysroot_around, version};
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn an_installed_target_wants_a_whole_toolchain_that_is_new_enough() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        let found = || Toolchain::with_target(dir.path(), |_| Some(OLDEST));
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("cargo"), "").unwrap();
        assert_eq!(found(), None, "no target");
        fs::create_dir_all(dir.path().join("lib/rustlib/x86_64-unknown-none/lib")).unwrap();
        let whole = found().unwrap();
        assert!(whole.has_target && whole.bin == bin);
        let too_old = Toolchain::with_target(dir.path(), |_| Some((1, 94)));
        assert_eq!(too_old, None);
        let no_rustc = Toolchain::with_target(dir.path(), release);
        assert_eq!(no_rustc, None);
        fs::remove_file(bin.join("cargo")).unwrap();
        assert_eq!(found(), None, "no cargo");
    }

    #[test]
    fn programs_are_in_bin_of_their_toolchain() {
        let sysroot = sysroot_around(Path::new("/opt/rust/bin/cargo"));
        assert_eq!(sysroot, Some(PathBuf::from("/opt/rust")));
        assert_eq!(sysroot_around(Path::new("bin/cargo")), None);
        assert_eq!(sysroot_around(Path::new("cargo")), None);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(
            version("rustc 1.96.0 (ac68faa20 2026-05-25)"),
            Some((1, 96))
        );
        assert_eq!(version("rustc 1.63.0"), Some((1, 63)));
        assert_eq!(version("rustc"), None);
    }
}
