//! `size`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// The verb.
pub(crate) fn run(_ws: &Workspace) -> Result<()> {
    bail!("size is not in this tree yet")
}
