//! `bench`: figures, not verdicts. A readable table, and JSON in `target/bench.json`.
//!
//! Two boots in Bochs, where the TSC counts instructions: the micro-guest that times round trips,
//! on the hypervisor as it ships, and a Debian guest to its shell and off, on a hypervisor that
//! counts what each exit costs. Instructions say nothing of the time a VM exit itself takes.
//! `--nested` counts the exits to an outer hypervisor ([`nested`]).

pub(crate) mod figures;
pub(crate) mod nested;
mod nested_boot;
mod table;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::machine::{Boot, Kind, Spec};
use crate::test::{Artifacts, Script, Transcript};
use crate::workspace::Workspace;
use crate::{build, setup, size};

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the Debian guest out
    #[arg(long)]
    quick: bool,
    /// Count exits to KVM instead, in the outer system: JSON in `target/bench-nested.json`
    #[arg(long)]
    nested: bool,
}

/// No boot takes longer.
const LIMIT: Duration = Duration::from_secs(900);

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(ws)?;
    eprintln!("Building the hypervisor and the micro-guests (the first time takes minutes)");
    let artifacts = Artifacts::build(ws)?;
    if args.nested {
        return count_nested(ws, &artifacts);
    }
    let footprint = size::footprint(artifacts.hypervisor())?;
    eprintln!("Booting the micro-guest that times round trips");
    let micro = boot_micro(&artifacts)?;
    let linux = if args.quick {
        None
    } else {
        eprintln!("Building the hypervisor that counts");
        let counting = Artifacts::with(ws, build::counting_hypervisor(ws)?)?;
        eprintln!("Booting Debian");
        Some(boot_linux(&counting)?)
    };

    let trips = figures::round_trips(micro.lines());
    let exits = linux
        .as_ref()
        .map(|said| figures::exits(said.lines()))
        .unwrap_or_default();
    let boots: Vec<_> = [Some(&micro), linux.as_ref()]
        .into_iter()
        .flatten()
        .filter_map(|said| figures::boot(said.lines()))
        .collect();
    let frames = figures::frames(micro.lines()).unwrap_or_default();
    print!(
        "{}",
        table::render(&trips, &boots, &footprint, &frames, &exits)
    );

    let path = ws.target().join("bench.json");
    let report = json!({
        "unit": "instructions (TSC ticks in Bochs) unless named otherwise",
        "round_trips": trips,
        "boots": boots,
        "image_bytes": footprint.file,
        "image_bytes_without_symbols": footprint.file.saturating_sub(footprint.symbols),
        "image_memory_bytes": footprint.memory,
        "frames": frames,
        "exits": exits,
    });
    write_report(&path, &report)
}

fn write_report(path: &Path, report: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("cannot write JSON")?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nJSON: {}", path.display());
    Ok(())
}

fn count_nested(ws: &Workspace, artifacts: &Artifacts) -> Result<()> {
    eprintln!("Booting the outer system");
    let (phases, debian) = nested::run(artifacts)?;
    print!(
        "{}{}",
        nested::render(&phases),
        nested_boot::render(&debian)
    );
    let report = json!({
        "unit": "exits to KVM: for one operation of a guest of Tessera in QEMU/KVM, and in all",
        "phases": phases,
        "debian_boot": debian,
    });
    write_report(&ws.target().join("bench-nested.json"), &report)
}

fn boot_micro(artifacts: &Artifacts) -> Result<Transcript> {
    let toml = format!(
        "[[domain]]\nname = \"bench\"\nkernel = {:?}\nmemory = \"16M\"\nvcpus = 2\n\
         [[domain.disk]]\nname = \"xvda\"\nsize = \"1M\"\n",
        artifacts.guest("bench").display().to_string()
    );
    let said = start(artifacts, "bench-micro", &toml)?.finish()?;
    said.ended_well()?;
    said.line_with(&["verdict: pass"])?;
    Ok(said)
}

/// One Debian guest.
const DEBIAN: &str = "[[domain]]\nname = \"debian\"\nkernel = \"debian:cloud\"\n\
                      initrd = \"debian:cloud\"\ncmdline = \"console=hvc0\"\nmemory = \"256M\"\n";

fn boot_linux(artifacts: &Artifacts) -> Result<Transcript> {
    let mut script = start(artifacts, "bench-linux", DEBIAN)?;
    script.expect("~ # ")?;
    script.type_line("poweroff")?;
    let said = script.finish()?;
    said.ended_well()?;
    Ok(said)
}

fn start(artifacts: &Artifacts, name: &str, toml: &str) -> Result<Script> {
    let iso = artifacts.iso(name, toml)?;
    let spec = Spec {
        memory_mib: 512,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    };
    Script::start(artifacts.workspace(), &spec, &artifacts.log(name), LIMIT)
}
