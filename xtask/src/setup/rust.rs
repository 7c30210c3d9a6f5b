//! The Rust that builds for bare metal: an installed `x86_64-unknown-none`, else Debian's compiler
//! with the sources of its standard library.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::packages::Package;

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

/// A compiler for bare metal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BareMetal {
    /// A toolchain that has the target's libraries; the path is its cargo.
    Target(PathBuf),
    /// `/usr/bin/cargo` and `/usr/bin/rustc`; core and alloc are built from source.
    Debian,
}

/// The compiler to use, if one is here.
pub(crate) fn find() -> Option<BareMetal> {
    if let Some(cargo) = env::var_os("CARGO").map(PathBuf::from)
        && has_target(&cargo)
    {
        return Some(BareMetal::Target(cargo));
    }
    missing().is_empty().then_some(BareMetal::Debian)
}

/// Whether the toolchain that `cargo` belongs to has the target's libraries.
fn has_target(cargo: &Path) -> bool {
    let Some(toolchain) = cargo.parent().and_then(Path::parent) else {
        return false;
    };
    let lib = toolchain.join("lib/rustlib").join(TARGET).join("lib");
    fs::read_dir(lib).is_ok_and(|mut entries| entries.next().is_some())
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
    use super::has_target;
    use std::fs;

    #[test]
    fn a_toolchain_has_the_target_only_with_its_libraries() {
        let dir = tempfile::tempdir().unwrap();
        let cargo = dir.path().join("bin/cargo");
        let lib = dir.path().join("lib/rustlib/x86_64-unknown-none/lib");
        assert!(!has_target(&cargo));
        fs::create_dir_all(&lib).unwrap();
        assert!(!has_target(&cargo));
        fs::write(lib.join("libcore.rlib"), "").unwrap();
        assert!(has_target(&cargo));
    }
}
