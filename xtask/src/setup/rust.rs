//! The Rust that builds for bare metal: an installed `x86_64-unknown-none`, else Debian's compiler
//! with the sources of its standard library.

use std::process::Command;

use super::packages::Package;
use crate::build::Toolchain;

/// The bare-metal target.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// Debian's compiler, its cargo, and the library sources that `-Zbuild-std` compiles. Debian has an
/// older compiler under the same file names, so what tells them apart is the package's own notice.
pub(crate) const DEBIAN: &[Package] = &[
    Package {
        name: "rustc-web",
        file: "/usr/share/doc/rustc-web/copyright",
        why: "compiles for bare metal (no x86_64-unknown-none in this Rust toolchain)",
    },
    Package {
        name: "cargo-web",
        file: "/usr/share/doc/cargo-web/copyright",
        why: "builds with rustc-web",
    },
    Package {
        name: "rust-web-src",
        file: "/usr/share/doc/rust-web-src/copyright",
        why: "core and alloc for bare metal",
    },
];

/// Oldest compiler that builds the tree.
const OLDEST: (u32, u32) = (1, 95);

/// What compiles for bare metal here, in words; `None` if nothing does.
pub(crate) fn find() -> Option<String> {
    let toolchain = Toolchain::find().ok()?;
    if toolchain.builds_core() {
        // The system's own compiler, which may be any age.
        let output = Command::new(SYSTEM_RUSTC).arg("--version").output().ok()?;
        let version = version(&String::from_utf8_lossy(&output.stdout))?;
        (version >= OLDEST).then_some(())?;
    }
    Some(toolchain.to_string())
}

const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// Major and minor number in `rustc 1.96.0 (…)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Those of Debian's packages that are not here.
pub(crate) fn missing() -> Vec<Package> {
    DEBIAN
        .iter()
        .filter(|package| !package.present())
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::version;

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
