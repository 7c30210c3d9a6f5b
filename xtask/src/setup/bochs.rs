//! Bochs: the one built in the cache, else the packaged one.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// A Bochs that can run.
#[derive(Debug, Clone)]
pub(crate) struct Bochs {
    /// The emulator.
    pub(crate) program: PathBuf,
    /// System BIOS.
    pub(crate) bios: PathBuf,
    /// VGA BIOS.
    pub(crate) vga_bios: PathBuf,
    /// Value of `display_library`: a display that shows nothing.
    pub(crate) display: &'static str,
    /// Whether it was built with the interactive debugger.
    pub(crate) debugger: bool,
}

/// Finds the Bochs to use.
pub(crate) fn find(ws: &Workspace) -> Result<Bochs> {
    let bios = PathBuf::from("/usr/share/bochs/BIOS-bochs-latest");
    let vga_bios = PathBuf::from("/usr/share/bochs/VGABIOS-lgpl-latest");
    let own = ws.cache().join("bochs/bochs");
    if own.is_file() {
        return Ok(Bochs {
            program: own,
            bios,
            vga_bios,
            display: "nogui",
            debugger: false,
        });
    }
    let program = PathBuf::from("/usr/bin/bochs-bin");
    if Path::new(&program).is_file() {
        let display = "rfb, options=\"timeout=0\"";
        return Ok(Bochs {
            program,
            bios,
            vga_bios,
            display,
            debugger: true,
        });
    }
    bail!("no Bochs on this machine: run `cargo xtask setup`")
}
