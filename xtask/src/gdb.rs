//! `gdb`: gdb on the hypervisor, in a QEMU of its own or in one that runs already.
//!
//! Both load `xtask/gdb/tessera.py`, which gives gdb the `tessera` commands; see
//! docs/debugging.md.

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
use crate::{build, image, setup};

/// Options of `cargo xtask gdb`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// System description (TOML); without it, one Debian guest
    #[arg(long, value_name = "FILE", conflicts_with = "attach")]
    config: Option<PathBuf>,
    /// Run these gdb commands at the first Rust line (or once attached) instead of asking, then end
    #[arg(long, value_name = "FILE")]
    batch: Option<PathBuf>,
    /// CPUs of the machine; by default one, or as many as the system's affinities name
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64),
        conflicts_with = "attach")]
    cpus: Option<u32>,
    /// Attach to the gdbstub of a QEMU that runs: HOST:PORT, or the path of a socket
    #[arg(long, value_name = "STUB")]
    attach: Option<String>,
    /// The hypervisor with debug information that the attached machine runs; by default the one
    /// built last
    #[arg(long, value_name = "FILE", requires = "attach")]
    symbols: Option<PathBuf>,
}

/// The function the entry code calls; see boot/src/start.rs.
const FIRST_RUST_FUNCTION: &str = "boot_start";

/// The commands for gdb, below the top of the source tree.
const COMMANDS: &str = "xtask/gdb/tessera.py";

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    if let Some(script) = &args.batch {
        ensure!(script.is_file(), "there is no file {}", script.display());
    }
    match &args.attach {
        Some(stub) => attach(ws, args, stub),
        None => start(ws, args),
    }
}

/// Debugs a machine that somebody else has started.
fn attach(ws: &Workspace, args: &Args, stub: &str) -> Result<()> {
    let debug = match &args.symbols {
        Some(file) => file.clone(),
        None => ws.out()?.join("tessera.debug"),
    };
    ensure!(
        debug.is_file(),
        "there is no file {}: name the one that runs by --symbols (cargo xtask build makes one)",
        debug.display()
    );
    let session = Session {
        debug: &debug,
        stub,
        first_stop: None,
        batch: args.batch.as_deref(),
    };
    session.run(ws)
}

/// Debugs a machine of our own, from its first instruction on.
fn start(ws: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(ws)?;
    eprintln!("Building the hypervisor (the first time takes minutes)");
    let image = image::make_of(ws, build::tracing_hypervisor(ws)?, args.config.as_deref())?;
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

    let session = Session {
        debug: &image.debug,
        stub: &socket.display().to_string(),
        first_stop: Some(FIRST_RUST_FUNCTION),
        batch: args.batch.as_deref(),
    };
    let ended = session.run(ws);
    machine.kill();
    ended
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

/// One run of gdb.
struct Session<'a> {
    /// The hypervisor with debug information.
    debug: &'a Path,
    /// Where the gdbstub listens, in gdb's words.
    stub: &'a str,
    /// The function to run to before anything else.
    first_stop: Option<&'a str>,
    /// Commands to run instead of asking.
    batch: Option<&'a Path>,
}

impl Session<'_> {
    fn run(&self, ws: &Workspace) -> Result<()> {
        let mut gdb = self.command(&ws.root().join(COMMANDS));
        gdb.arg("-d").arg(ws.root());
        let mut child = gdb.spawn().context("cannot run gdb (cargo xtask doctor)")?;
        // From here Ctrl-C is for gdb alone.
        let mut interrupt = SigSet::empty();
        interrupt.add(Signal::SIGINT);
        interrupt.thread_block().context("cannot block SIGINT")?;
        let status = child.wait().context("cannot wait for gdb")?;
        ensure!(status.success(), "gdb ended with {status}");
        Ok(())
    }

    fn command(&self, commands: &Path) -> Command {
        let mut gdb = Command::new("gdb");
        gdb.args(["-q", "-nx"]);
        if self.batch.is_some() {
            gdb.arg("-batch").stdin(Stdio::null());
        }
        let mut first = vec![
            "set confirm off".to_owned(),
            "set pagination off".to_owned(),
            "set architecture i386:x86-64".to_owned(),
            // An emulated machine may take its time.
            "set remotetimeout 60".to_owned(),
            format!("source {}", commands.display()),
            format!("target remote {}", self.stub),
        ];
        if let Some(function) = self.first_stop {
            // A hardware breakpoint: the code is not in memory yet, a written one would be lost.
            first.extend([format!("thbreak {function}"), "continue".to_owned()]);
        }
        for command in first {
            gdb.arg("-ex").arg(command);
        }
        if let Some(script) = self.batch {
            gdb.arg("-x").arg(script);
        }
        gdb.arg(self.debug);
        gdb
    }
}

#[cfg(test)]
mod tests {
    use super::Session;
    use std::path::Path;

    fn arguments(first_stop: Option<&str>) -> Vec<String> {
        let session = Session {
            debug: Path::new("/d"),
            stub: "/s",
            first_stop,
            batch: Some(Path::new("/x.gdb")),
        };
        let line = session.command(Path::new("/t.py"));
        line.get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_script_runs_after_the_first_stop() {
        let args = arguments(Some("f"));
        let at = |word: &str| args.iter().position(|arg| arg == word).unwrap();
        assert!(at("continue") < at("/x.gdb") && at("target remote /s") < at("continue"));
        assert!(at("source /t.py") < at("/x.gdb"));
        assert!(args.iter().any(|arg| arg == "-batch"));
    }

    #[test]
    fn an_attached_machine_stays_where_it_is() {
        let args = arguments(None);
        assert!(!args.iter().any(|arg| arg == "continue"));
        assert!(args.iter().any(|arg| arg == "target remote /s"));
    }
}
