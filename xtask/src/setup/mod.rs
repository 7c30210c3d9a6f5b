//! `setup`: installs and caches what building, running and testing need.

pub(crate) mod bochs;

use anyhow::Result;

use crate::workspace::Workspace;

/// Options of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look for newer guest kernels in the package archive
    #[arg(long)]
    refresh: bool,
}

/// The verb.
pub(crate) fn run(ws: &Workspace, _args: &Args) -> Result<()> {
    ensure(ws)
}

/// Makes sure that everything is there; well under a second if it is.
pub(crate) fn ensure(_ws: &Workspace) -> Result<()> {
    Ok(())
}
