//! `lint`: everything that can be checked without running the program.

mod imports;
mod orphans;
mod panics;
mod unsafe_list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

/// Options of `cargo xtask lint`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write the list of files with unsafe code into docs/safety.md instead of comparing
    #[arg(long)]
    bless_unsafe: bool,
    /// Only the house's own checks: imports, the unsafe list, orphans, file length
    #[arg(long)]
    house: bool,
    /// Only this: build the hypervisor and show where exit handling leads into a panic
    #[arg(long)]
    panics: bool,
}

/// No source file is longer; it would want to be two.
const LINES: usize = 800;

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let files = rust_files(ws.root())?;
    if args.bless_unsafe {
        return unsafe_list::bless(ws.root(), &files);
    }
    let mut failed = Vec::new();
    let mut check = |name: &'static str, problems: Result<Vec<String>>| match problems {
        Ok(problems) if problems.is_empty() => println!("ok      {name}"),
        Ok(problems) => {
            println!("FAILED  {name}\n  {}", problems.join("\n  "));
            failed.push(name);
        }
        Err(error) => {
            println!("FAILED  {name}\n  {error:#}");
            failed.push(name);
        }
    };
    if args.panics {
        check("panics", panics::problems(ws));
        ensure!(failed.is_empty(), "exit handling can panic");
        return Ok(());
    }
    let metadata = metadata(ws)?;
    check("imports", Ok(imports::problems(&metadata)));
    check("unsafe list", unsafe_list::problems(ws.root(), &files));
    check(
        "orphan files",
        orphans::problems(ws.root(), &metadata, &files),
    );
    check("file length", long_files(ws.root(), &files));
    if !args.house {
        for step in STEPS {
            check(step.name, step.run(ws));
        }
        check("panics", panics::problems(ws));
    }
    ensure!(failed.is_empty(), "lint failed: {}", failed.join(", "));
    Ok(())
}

/// A check that is a run of cargo.
#[derive(Debug)]
struct Step {
    name: &'static str,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

const STEPS: &[Step] = &[
    Step {
        name: "rustfmt",
        args: &["fmt", "--all", "--check"],
        env: &[],
    },
    Step {
        name: "clippy",
        args: &["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"],
        env: &[],
    },
    Step {
        name: "clippy, bare metal",
        // Checked for the host's target: the toolchain with clippy need not have the other.
        args: &[
            "clippy", "--quiet", "-p", "boot", "-p", "guests", "--lib", "--bins", "--", "-D",
            "warnings",
        ],
        env: &[("RUSTC_BOOTSTRAP", "1")],
    },
    Step {
        name: "doc",
        args: &["doc", "--quiet", "--no-deps", "--document-private-items"],
        // The crates are documented with their private items, which links may name.
        env: &[(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        )],
    },
];

impl Step {
    fn run(&self, ws: &Workspace) -> Result<Vec<String>> {
        let status = Command::new(cargo())
            .args(self.args)
            .envs(self.env.iter().copied())
            .current_dir(ws.root())
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo")?;
        let line = self.args.join(" ");
        Ok(if status.success() {
            Vec::new()
        } else {
            vec![format!("cargo {line}: {status}")]
        })
    }
}

fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// What cargo knows of our packages.
fn metadata(ws: &Workspace) -> Result<Value> {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(ws.root())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")
}

/// All Rust sources of the tree, relative to its root, sorted.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                let skip = name.starts_with('.') || (name == "target" && dir == root);
                if !skip {
                    open.push(path);
                }
            } else if name.ends_with(".rs") {
                files.push(path.strip_prefix(root).unwrap_or(&path).to_path_buf());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn long_files(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in files {
        let lines = read(root, file)?.lines().count();
        if lines > LINES {
            problems.push(format!(
                "{}: {lines} lines, {LINES} at most",
                file.display()
            ));
        }
    }
    Ok(problems)
}

fn read(root: &Path, file: &Path) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {}", file.display()))
}
