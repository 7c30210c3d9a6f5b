//! `fuzz`: libFuzzer on one of the targets of `tests/fuzz`. What it has learnt is kept.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::setup;
use crate::workspace::Workspace;

/// Named to cargo, so that the flags below are not for its build scripts and macros as well.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Has the compiler count how often each edge is taken, where libFuzzer finds the counts.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table";

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to fuzz; without it, the targets are listed
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Stop after so many seconds; 0 for never
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    time: u64,
    /// Fuzz in so many processes, which share what they find
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: u8,
    /// Carry out the operations of one input only, such as one that failed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["time", "jobs"])]
    input: Option<PathBuf>,
}

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<ExitCode> {
    let Some(target) = &args.target else {
        return list(ws);
    };
    setup::ensure(ws)?;
    let fuzzer = build(ws)?;
    let place = ws.target().join("fuzz").join(target);
    let corpus = place.join("corpus");
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut command = Command::new(fuzzer);
    command
        .env("TESSERA_FUZZ_TARGET", target)
        .arg(format!("-artifact_prefix={}/", place.display()))
        .arg("-rss_limit_mb=4096");
    if let Some(input) = &args.input {
        command.arg(input);
    } else {
        // Long inputs from the start: a guest takes longer to make than many operations.
        command
            .args(["-max_len=4096", "-len_control=0", "-print_final_stats=1"])
            .arg(format!("-max_total_time={}", args.time));
        if args.jobs > 1 {
            command.arg(format!("-fork={}", args.jobs));
        }
        command.arg(&corpus);
    }
    let status = command.status().context("cannot run the fuzzer")?;
    println!(
        "{}: what led to new code is in {}",
        target,
        corpus.display()
    );
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn list(ws: &Workspace) -> Result<ExitCode> {
    let mut soak = cargo();
    soak.args([
        "run",
        "--quiet",
        "--package",
        "fuzz",
        "--bin",
        "soak",
        "--",
        "--list",
    ]);
    let status = soak.current_dir(ws.root()).status();
    let status = status.context("cannot run cargo")?;
    ensure!(status.success(), "cargo failed ({status})");
    Ok(ExitCode::SUCCESS)
}

/// Builds the fuzzer, and tells where it is.
fn build(ws: &Workspace) -> Result<PathBuf> {
    let mut build = cargo();
    build
        .args(["build", "--quiet", "--package", "fuzz", "--bin", "fuzz"])
        .args([
            "--profile",
            "fuzz",
            "--features",
            "libfuzzer",
            "--target",
            TRIPLE,
        ])
        .env("RUSTFLAGS", COVERAGE)
        .current_dir(ws.root());
    eprintln!("Building the fuzzer (the first time takes minutes)");
    let status = build.status().context("cannot run cargo")?;
    ensure!(status.success(), "the fuzzer does not build ({status})");
    Ok(ws.target().join(TRIPLE).join("fuzz/fuzz"))
}
