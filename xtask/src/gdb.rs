//! `gdb`: the hypervisor in QEMU, stopped at its first Rust line in gdb.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};

use crate::machine::{self, Boot, Kind, Spec};
use crate::workspace::Workspace;
use crate::{image, setup};

/// Options of `cargo xtask gdb`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// System description (TOML); without it, one Debian guest
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run these gdb commands at the first Rust line instead of asking, then end
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
    /// CPUs of the machine; by default one, or as many as the system's affinities name
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
}

/// The function the entry code calls; see boot/src/start.rs.
const FIRST_RUST_FUNCTION: &str = "boot_start";

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    if let Some(script) = &args.batch {
        ensure!(script.is_file(), "there is no file {}", script.display());
    }
    setup::ensure(ws)?;
    let image = image::make(ws, args.config.as_deref())?;
    let dir = tempfile::tempdir().context("cannot create a directory for gdb's socket")?;
    let socket = dir.path().join("gdb");
    let boot = Boot::Kernel {
        image: image.hypervisor,
        archive: image.archive,
    };
    let mut spec = Spec {
        cpus: args.cpus.unwrap_or(image.machine.cpus),
        memory_mib: image.machine.memory_mib,
        ..Spec::new(Kind::Qemu, boot)
    };
    let chardev = format!("socket,id=gdb,path={},server=on,wait=off", socket.display());
    // The machine waits (-S) until gdb lets it go.
    spec.extra_args = ["-S", "-chardev", &chardev, "-gdb", "chardev:gdb"]
        .map(str::to_owned)
        .into();

    let serial = ws.out()?.join("gdb-serial.log");
    let mut machine = machine::start(ws, &spec)?;
    let (mut from, _) = machine.serial()?;
    let mut to =
        File::create(&serial).with_context(|| format!("cannot write {}", serial.display()))?;
    // Ends with the machine, whose end closes the line; an error then is that end.
    thread::spawn(move || io::copy(&mut from, &mut to));
    wait_for(&socket, || Ok(machine.status()?.is_some()))
        .with_context(|| format!("QEMU did not start: {}", machine.emulator_messages()))?;
    eprintln!("The hypervisor's console goes to {}", serial.display());

    let mut gdb = command(&image.debug, &socket, args.batch.as_deref());
    gdb.arg("-d").arg(ws.root());
    let mut child = gdb.spawn().context("cannot run gdb (cargo xtask doctor)")?;
    // From here Ctrl-C is for gdb alone.
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt.thread_block().context("cannot block SIGINT")?;
    let status = child.wait().context("cannot wait for gdb")?;
    machine.kill();
    ensure!(status.success(), "gdb ended with {status}");
    Ok(())
}

fn wait_for(socket: &Path, mut ended: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..100 {
        if socket.exists() {
            return Ok(());
        }
        ensure!(!ended()?, "it ended");
        thread::sleep(Duration::from_millis(100));
    }
    bail!("no debug socket after 10 s")
}

fn command(debug: &Path, socket: &Path, batch: Option<&Path>) -> Command {
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx"]);
    if batch.is_some() {
        gdb.arg("-batch").stdin(Stdio::null());
    }
    for command in [
        "set confirm off".to_owned(),
        "set pagination off".to_owned(),
        "set architecture i386:x86-64".to_owned(),
        format!("target remote {}", socket.display()),
        // A hardware breakpoint: the code is not in memory yet, a written one would be lost.
        format!("thbreak {FIRST_RUST_FUNCTION}"),
        "continue".to_owned(),
    ] {
        gdb.arg("-ex").arg(command);
    }
    if let Some(script) = batch {
        gdb.arg("-x").arg(script);
    }
    gdb.arg(debug);
    gdb
}

#[cfg(test)]
mod tests {
    use super::command;
    use std::path::Path;

    #[test]
    fn a_script_runs_after_the_first_stop() {
        let line = command(Path::new("/d"), Path::new("/s"), Some(Path::new("/x.gdb")));
        let args: Vec<_> = line.get_args().map(|arg| arg.to_string_lossy()).collect();
        let at = |word: &str| args.iter().position(|arg| arg == word).unwrap();
        assert!(at("continue") < at("/x.gdb") && at("target remote /s") < at("continue"));
        assert!(args.iter().any(|arg| arg == "-batch"));
    }
}
