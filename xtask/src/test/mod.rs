//! `test`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The verb.
pub(crate) fn run(_ws: &Workspace, _args: &Args) -> Result<()> {
    bail!("test is not in this tree yet")
}
