//! `build`: the hypervisor for bare metal.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

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

/// Builds the hypervisor (release profile).
pub(crate) fn hypervisor(_ws: &Workspace) -> Result<Built> {
    bail!("the bare-metal build is not in this tree yet")
}
