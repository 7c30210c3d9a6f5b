//! `ci`: the whole gate, lint and then test.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// The verb.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    // Each verb in a process of its own: the gate is exactly what one would type.
    let program = std::env::current_exe().context("cannot find this program")?;
    for verb in ["lint", "test"] {
        eprintln!("ci: cargo xtask {verb}");
        let status = Command::new(&program)
            .arg(verb)
            .current_dir(ws.root())
            .status()
            .with_context(|| format!("cannot run cargo xtask {verb}"))?;
        ensure!(status.success(), "cargo xtask {verb} failed");
    }
    Ok(())
}
