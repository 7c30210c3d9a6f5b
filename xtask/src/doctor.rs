//! `doctor`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// The verb.
pub(crate) fn run(_ws: &Workspace) -> Result<std::process::ExitCode> {
    bail!("doctor is not in this tree yet")
}
