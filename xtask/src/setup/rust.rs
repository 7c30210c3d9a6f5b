//! The Rust that builds for bare metal: an installed `x86_64-unknown-none`, else Debian's compiler
//! with the sources of its standard library.

use super::packages::Package;
use crate::toolchain::Toolchain;

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

/// What compiles for bare metal here, in words; `None` if nothing does.
pub(crate) fn find() -> Option<String> {
    Toolchain::find()
        .ok()
        .map(|toolchain| toolchain.to_string())
}

/// Those of Debian's packages that are not here.
pub(crate) fn missing() -> Vec<Package> {
    DEBIAN
        .iter()
        .filter(|package| !package.present())
        .copied()
        .collect()
}
