//! `xtf`: Xen's own test suite on Tessera, its verdicts beside Xen's.
//!
//! The Xen Test Framework's HVM tests are tiny kernels with a PVH entry. Each runs as a domain,
//! many in one emulated machine, and says on its console how it ended. Tessera holds none of XTF:
//! the tree is the caller's, fetched and built where he likes.

mod boots;
mod table;
mod tree;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use crate::{build, setup};
use boots::Runner;
use table::Row;
use tree::{Environment, Instance};

/// Options of `cargo xtask xtf`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A built XTF tree
    #[arg(value_name = "DIR")]
    tree: PathBuf,
    /// Run these kinds of guests only
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ENV")]
    env: Vec<Environment>,
    /// Run only tests whose name (`hvm64-xsa-122`) contains this
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Run only tests of this category of XTF's (functional, xsa, utility, ...)
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
    /// Show the tests with Xen's verdicts and run none
    #[arg(long)]
    list: bool,
    /// Tests in one boot
    #[arg(long, default_value_t = 25, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Boots side by side
    #[arg(long, default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Memory of each test's domain in MiB
    #[arg(long, default_value_t = 32, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(8..=1024))]
    memory: u32,
    /// Give up on a boot after this time
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Write the verdicts to this file as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    fn selects(&self, test: &Instance) -> bool {
        let any = |wanted: &[String], fits: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|word| fits(word))
        };
        let name = test.name();
        (self.env.is_empty() || self.env.contains(&test.environment))
            && any(&self.only, &|word| name.contains(word))
            && any(&self.category, &|word| test.category == word)
    }
}

/// The verb. It fails when a test does worse than on Xen.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<ExitCode> {
    let all = tree::instances(&args.tree)?;
    let tests: Vec<Instance> = all.into_iter().filter(|test| args.selects(test)).collect();
    ensure!(
        !tests.is_empty(),
        "no test is selected; `cargo xtask xtf {} --list` shows all",
        args.tree.display()
    );
    let xen = table::reference()?;
    if args.list {
        print!("{}", table::list(&tests, &xen));
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(ws)?;
    eprintln!("Building the hypervisor (the first time takes minutes)");
    let built = build::hypervisor(ws)?;
    let dir = ws.out()?.join("xtf");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let runner = Runner {
        ws,
        hypervisor: &built.image,
        dir: dir.clone(),
        limit: Duration::from_secs(args.timeout),
        memory_mib: args.memory,
        batch: args.batch.into(),
        jobs: args.jobs.into(),
    };
    let outcomes = runner.run(&tests)?;
    let rows: Vec<Row<'_>> = tests
        .iter()
        .zip(&outcomes)
        .map(|(test, outcome)| Row::new(test, outcome, &xen))
        .collect();
    print!("{}", table::render(&rows));
    eprintln!(
        "What the machines said: {}",
        dir.join("boot-*.log").display()
    );
    if let Some(file) = &args.json {
        let text =
            serde_json::to_string_pretty(&table::json(&rows)).context("cannot write JSON")?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let worse = rows.iter().any(Row::is_worse);
    Ok(if worse {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
