//! `doctor`: each need, what was found on this machine, and the remedy.

use std::process::ExitCode;

use anyhow::Result;

use crate::machine::{self, Host};
use crate::setup;
use crate::workspace::Workspace;

/// The verb; fails if something is missing.
pub(crate) fn run(ws: &Workspace) -> Result<ExitCode> {
    let needs = setup::survey(ws);
    let width = needs.iter().map(|need| need.name.len()).max().unwrap_or(0);
    for need in &needs {
        match &need.found {
            Some(found) => println!("ok       {:width$}  {found}", need.name),
            None => println!(
                "MISSING  {:width$}  {}\n         {:width$}  remedy: {}",
                need.name, need.why, "", need.remedy
            ),
        }
    }
    let (kind, reason) = machine::choose(&Host::probe(), None);
    println!("info     {:width$}  {} ({reason})", "machine", kind.name());
    println!("info     {:width$}  {}", "cache", ws.cache().display());
    let missing = needs.iter().filter(|need| !need.met()).count();
    if missing == 0 {
        println!("All is here: cargo xtask run");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("{missing} missing: cargo xtask setup (run and test do this themselves)");
        Ok(ExitCode::FAILURE)
    }
}
