//! `image`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// Options of `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The verb.
pub(crate) fn run(_ws: &Workspace, _args: &Args) -> Result<()> {
    bail!("image is not in this tree yet")
}
