//! `run`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// Options of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The verb.
pub(crate) fn run(_ws: &Workspace, _args: &Args) -> Result<std::process::ExitCode> {
    bail!("run is not in this tree yet")
}
