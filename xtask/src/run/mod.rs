//! `run`: boots a system and connects this terminal to its consoles.

mod escape;
mod session;
mod terminal;
pub(crate) mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::image::{self, MachineSize};
use crate::machine::{self, Boot, Firmware, Host, Kind, Pace, Running, Spec};
use crate::setup;
use crate::workspace::Workspace;
use session::{Ended, Outcome};
use watch::End;

/// Options of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// System description (TOML); without it, one Debian guest
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Image of `cargo xtask image`, booted as it is: nothing is set up or built
    #[arg(long, value_name = "ISO", conflicts_with = "config")]
    image: Option<PathBuf>,
    /// Emulator; by default QEMU where KVM offers nested VT-x, else Bochs
    #[arg(long, value_enum)]
    machine: Option<Kind>,
    /// CPUs of the machine; by default one, or as many as the system's affinities name
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Memory of the machine in MiB; by default 1024, or more if the system's guests need it
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    memory: Option<u32>,
    /// Give the machine a network card, as for a system with an uplink; behind it this host is at
    /// 10.0.2.2
    #[arg(long)]
    nic: bool,
    /// CPU model, in the emulator's own words
    #[arg(long, value_name = "MODEL")]
    cpu_model: Option<String>,
    /// A file that is the machine's ATA disk, which it may write
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// Start from UEFI firmware (QEMU only)
    #[arg(long)]
    uefi: bool,
    /// Stop after this time, with an error
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Show what would be started, and start nothing
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    /// Whether it boots what was built before, and so needs no source tree.
    pub(crate) fn boots_an_image(&self) -> bool {
        self.image.is_some()
    }
}

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<ExitCode> {
    let host = Host::probe();
    let (kind, reason) = machine::choose(&host, args.machine);
    let (boot, size) = match &args.image {
        Some(image) => (Boot::Iso(found(image)?), MachineSize::LEAST),
        None => built(ws, args, kind)?,
    };
    let spec = Spec {
        cpus: args.cpus.unwrap_or(size.cpus),
        memory_mib: args.memory.unwrap_or(size.memory_mib),
        pace: Pace::RealTime,
        firmware: if args.uefi {
            Firmware::Uefi
        } else {
            Firmware::Bios
        },
        cpu_model: args.cpu_model.clone(),
        disk: args.disk.as_deref().map(found).transpose()?,
        nic: args.nic || size.nic,
        ..Spec::new(kind, boot)
    };
    if args.dry_run {
        show(ws, &spec, &host)?;
        return Ok(ExitCode::SUCCESS);
    }
    warn(&spec, &host);
    eprintln!(
        "Machine: {} ({reason}). Ctrl-] h: help, Ctrl-] q: power off, Ctrl-] x: kill.",
        kind.name()
    );
    let mut running = machine::start(ws, &spec)?;
    let ended = session::connect(&running, args.timeout.map(Duration::from_secs))?;
    let verdict = verdict(&ended, &mut running, args.timeout);
    running.kill();
    verdict.map(|()| ExitCode::SUCCESS)
}

/// Builds what the machine boots from; how large it has to be.
fn built(ws: &Workspace, args: &Args, kind: Kind) -> Result<(Boot, MachineSize)> {
    setup::ensure(ws)?;
    let image = image::make(ws, args.config.as_deref())?;
    let boot = if kind == Kind::Bochs || args.uefi {
        Boot::Iso(image.iso)
    } else {
        Boot::Kernel {
            image: image.hypervisor,
            archive: image.archive,
        }
    };
    Ok((boot, image.machine))
}

/// The place of an image, for an emulator that runs in another directory.
fn found(image: &Path) -> Result<PathBuf> {
    fs::canonicalize(image).with_context(|| format!("cannot find the image {}", image.display()))
}

/// Says what will go wrong with this machine, if that is known.
fn warn(spec: &Spec, host: &Host) {
    if spec.kind == Kind::Qemu
        && let Err(reason) = host.nested_vtx()
    {
        eprintln!("Warning: QEMU has no VT-x here, so no guest will run: {reason}");
    }
}

/// Says what would be started, and for QEMU what of this host has to be right.
fn show(ws: &Workspace, spec: &Spec, host: &Host) -> Result<()> {
    let plan = machine::plan(ws, spec)?;
    println!("{}", plan.command_line());
    for (name, text) in plan.files() {
        println!("\n{name}:\n{}", text.trim_end());
    }
    if spec.kind == Kind::Qemu {
        println!("\nthis host:");
        for check in host.checks() {
            match check.remedy {
                None => println!("ok       {} {}", check.what, check.found),
                Some(remedy) => println!(
                    "MISSING  {} {}\n         remedy: {remedy}",
                    check.what, check.found
                ),
            }
        }
    }
    Ok(())
}

/// Whether the run went well, else what went wrong.
fn verdict(ended: &Ended, running: &mut Running, limit: Option<u64>) -> Result<()> {
    let panic = ended
        .panic
        .as_ref()
        .map(|panic| format!("{panic} (see above); "));
    let panic = panic.unwrap_or_default();
    match &ended.outcome {
        Outcome::Said(words) if words.good() => Ok(()),
        Outcome::Said(words) => {
            let how = match words.end {
                End::PowerOff => "powered off",
                End::Reboot => "restarted the machine, which did not come back",
                End::Halt => "halted",
            };
            bail!("{panic}the hypervisor {how}: {}", words.reason)
        }
        Outcome::Died => {
            let status = running.wait_briefly()?;
            let messages = running.emulator_messages();
            let status = status.map_or("still running".to_owned(), |status| status.to_string());
            bail!(
                "{panic}the emulator ended ({status}) without the hypervisor's last words; it said:\n{}",
                if messages.is_empty() {
                    "(nothing)"
                } else {
                    &messages
                }
            )
        }
        Outcome::Killed => bail!("the machine was killed by Ctrl-] x"),
        Outcome::Signal(name) => bail!("stopped by {name}; the machine was killed"),
        Outcome::TimedOut => {
            bail!(
                "{panic}the run did not end within {} s; the machine was killed",
                limit.unwrap_or(0)
            )
        }
    }
}
