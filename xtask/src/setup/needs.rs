//! What has to be on the machine, and what of it is.

use super::kernels::{self, FLAVOURS};
use super::packages::PACKAGES;
use super::{bochs, outer, packages, qemu, rust};
use crate::toolchain::TARGET;
use crate::workspace::Workspace;

/// One thing that is needed.
#[derive(Debug)]
pub(crate) struct Need {
    /// Package or part.
    pub(crate) name: String,
    /// Its use.
    pub(crate) why: String,
    /// What was found, if it was.
    pub(crate) found: Option<String>,
    /// What to do on Debian if it was not.
    pub(crate) remedy: String,
    /// What to do elsewhere.
    pub(crate) by_hand: String,
}

impl Need {
    /// Whether it is there.
    pub(crate) fn met(&self) -> bool {
        self.found.is_some()
    }
}

const REMEDY: &str = "cargo xtask setup";

/// Looks for everything. Takes a few milliseconds: it only looks at files.
pub(crate) fn survey(ws: &Workspace) -> Vec<Need> {
    let mut needs: Vec<Need> = PACKAGES.iter().map(package).collect();
    needs.extend(bare_metal());
    needs.push(emulator(ws));
    needs.push(Need {
        name: "QEMU".to_owned(),
        why: "runs it where KVM has VT-x; gdb".to_owned(),
        found: qemu::find(ws.cache()).map(|program| program.display().to_string()),
        remedy: REMEDY.to_owned(),
        by_hand: format!("provide {} on the search path", qemu::PROGRAM),
    });
    needs.extend(FLAVOURS.iter().map(|flavour| Need {
        name: format!("guest kernel {}", flavour.name),
        why: flavour.why.to_owned(),
        found: flavour.found(ws.cache()),
        remedy: REMEDY.to_owned(),
        by_hand: format!(
            "in {}: vmlinuz of Debian's {}, an initrd.img, and a file version that says \"NAME {}\"",
            flavour.dir(ws.cache()).display(),
            flavour.package,
            kernels::RECIPE
        ),
    }));
    needs.push(Need {
        name: "outer system".to_owned(),
        why: "Debian with KVM and QEMU: nested runs in Bochs".to_owned(),
        found: outer::found(ws.cache()),
        remedy: REMEDY.to_owned(),
        by_hand: format!(
            "copy {} from a Debian machine after its `{REMEDY}`",
            outer::dir(ws.cache()).display()
        ),
    });
    needs
}

fn package(package: &packages::Package) -> Need {
    Need {
        name: package.name.to_owned(),
        why: package.why.to_owned(),
        found: package.present().then(|| package.file.to_owned()),
        remedy: REMEDY.to_owned(),
        by_hand: format!(
            "provide {} (Debian's package {})",
            package.file, package.name
        ),
    }
}

fn bare_metal() -> Vec<Need> {
    let by_hand = format!("rustup target add {}", TARGET);
    let found = rust::find();
    let missing = rust::missing();
    if found.is_none() && !missing.is_empty() {
        let need = |part| Need {
            by_hand: by_hand.clone(),
            ..package(part)
        };
        return missing.iter().map(need).collect();
    }
    vec![Need {
        name: "bare-metal Rust".to_owned(),
        why: "compiles the hypervisor".to_owned(),
        found,
        // Debian's packages are here and will not do: too old.
        remedy: by_hand.clone(),
        by_hand,
    }]
}

fn emulator(ws: &Workspace) -> Need {
    let found = bochs::find(ws.cache()).map(|bochs| match bochs::failure(ws.cache()) {
        Some(why) if bochs.packaged => {
            format!(
                "{} (packaged, slow; 3.0 failed: {why})",
                bochs.program.display()
            )
        }
        _ => bochs.program.display().to_string(),
    });
    Need {
        name: "Bochs 3.0".to_owned(),
        why: "emulates a CPU with VT-x; built from Debian's source package".to_owned(),
        found,
        remedy: REMEDY.to_owned(),
        by_hand: format!(
            "a Bochs 3.0 with --enable-vmx=2 --with-nogui as {}",
            bochs::program(ws.cache()).display()
        ),
    }
}
