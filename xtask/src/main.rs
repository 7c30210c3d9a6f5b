//! Set-up, build, image, run, test and bench: the project's own commands.
//!
//! `cargo xtask VERB` is the one way to work with the tree; every verb is a module of the same
//! name with a `run` function. `run` and `test` call `setup` first, so a fresh machine needs no
//! other command.
#![expect(
    clippy::std_instead_of_core,
    reason = "a host tool: the standard library is its ground"
)]

mod bench;
mod build;
mod ci;
mod doctor;
mod features;
mod fuzz;
mod gdb;
mod image;
mod lint;
mod machine;
mod nested;
mod run;
mod setup;
mod size;
mod symbols;
mod system;
mod test;
mod toolchain;
mod workspace;
mod xtf;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Tessera: build, run and test the hypervisor.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install and cache what building, running and testing need (run and test do this themselves)
    Setup(setup::Args),
    /// Show each need, what was found on this machine, and the remedy
    Doctor,
    /// Build the hypervisor for bare metal
    Build(build::Args),
    /// Make a bootable ISO (BIOS and UEFI) of the hypervisor and one system
    Image(image::Args),
    /// Boot a system and connect this terminal to its consoles
    Run(run::Args),
    /// Open gdb on the hypervisor, in a QEMU of its own or in one that runs
    Gdb(gdb::Args),
    /// Run the tests: host tier, then real images in emulated machines
    Test(test::Args),
    /// Look for operations that break the hypervisor's parts, with libFuzzer on this machine
    Fuzz(fuzz::Args),
    /// Run Xen's test suite (a built XTF tree), its verdicts beside Xen's
    Xtf(xtf::Args),
    /// Measure, as JSON and as a table
    Bench(bench::Args),
    /// Check formatting, clippy, imports, the unsafe list and file sizes
    Lint(lint::Args),
    /// The whole gate: lint, then test
    Ci,
    /// Show the sections of the hypervisor and the size of the image
    Size,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    let ws = Workspace::find()?;
    if !matches!(&cli.verb, Verb::Run(args) if args.boots_an_image()) {
        ws.ensure_tree()?;
    }
    match cli.verb {
        Verb::Setup(args) => setup::run(&ws, &args)?,
        Verb::Doctor => return doctor::run(&ws),
        Verb::Build(args) => build::run(&ws, &args)?,
        Verb::Image(args) => image::run(&ws, &args)?,
        Verb::Run(args) => return run::run(&ws, &args),
        Verb::Gdb(args) => gdb::run(&ws, &args)?,
        Verb::Test(args) => return test::run(&ws, &args),
        Verb::Fuzz(args) => return fuzz::run(&ws, &args),
        Verb::Xtf(args) => return xtf::run(&ws, &args),
        Verb::Bench(args) => bench::run(&ws, &args)?,
        Verb::Lint(args) => lint::run(&ws, &args)?,
        Verb::Ci => ci::run(&ws)?,
        Verb::Size => size::run(&ws)?,
    }
    Ok(ExitCode::SUCCESS)
}
