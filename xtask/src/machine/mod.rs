//! Machines to boot on: Bochs (has VT-x everywhere) and QEMU (fast, with VT-x only under KVM).
//!
//! [`start`] is all that `run`, `gdb` and the tests need. COM1 of the machine is one connected
//! stream socket: what the machine prints is read from it, what is written to it is typed. A
//! machine never outlives this process: dropping [`Running`] kills it by its process id, and the
//! kernel does so if the thread that started it ends first.

mod bochs;
mod choose;
mod host;
mod qemu;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::workspace::Workspace;

pub(crate) use choose::{Kind, choose};
pub(crate) use host::Host;

/// What the machine boots from.
#[derive(Debug, Clone)]
pub(crate) enum Boot {
    /// A CD image, through the firmware and GRUB.
    Iso(PathBuf),
    /// The hypervisor by QEMU's `-kernel` (PVH) with the boot archive as its module.
    Kernel {
        /// The hypervisor image.
        image: PathBuf,
        /// The boot archive.
        archive: PathBuf,
    },
}

/// How the machine's clock runs against the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Idle time is skipped (Bochs `sync=none`): the fastest way through a test.
    Fast,
    /// About real time, and an idle machine leaves the host idle (Bochs `sync=slowdown`).
    RealTime,
}

/// Firmware of the machine; Bochs has only BIOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// BIOS (SeaBIOS, Bochs BIOS).
    Bios,
    /// UEFI (OVMF).
    Uefi,
}

/// The address of a machine's network card, an Intel 82540EM.
pub(crate) const NIC_ADDRESS: &str = "52:54:00:12:34:56";

/// One machine to start.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The emulator.
    pub(crate) kind: Kind,
    /// What to boot.
    pub(crate) boot: Boot,
    /// Number of CPUs.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Clock.
    pub(crate) pace: Pace,
    /// Firmware.
    pub(crate) firmware: Firmware,
    /// CPU model in the emulator's own words; `None` takes the one known to work.
    pub(crate) cpu_model: Option<String>,
    /// Has a serial port.
    pub(crate) serial_port: bool,
    /// Has a network card ([`NIC_ADDRESS`]), behind which the emulator plays a network: an address by
    /// DHCP, and at 10.0.2.2 this host, on whose loopback interface its servers listen.
    pub(crate) nic: bool,
    /// The packaged Bochs, whatever else is there.
    pub(crate) packaged_bochs: bool,
    /// What is broken in the machine, in the words of `setup/bochs/faults.h` (built Bochs).
    pub(crate) faults: Vec<String>,
    /// The image of an ATA disk, which the machine may write.
    pub(crate) disk: Option<PathBuf>,
    /// A second serial line, which carries a debugger's packets (Bochs).
    pub(crate) debug_line: bool,
    /// Further arguments for the emulator's command line.
    pub(crate) extra_args: Vec<String>,
}

impl Spec {
    /// A machine of `kind` with one CPU, 1 GiB and BIOS that runs as fast as it can.
    pub(crate) fn new(kind: Kind, boot: Boot) -> Self {
        Self {
            kind,
            boot,
            cpus: 1,
            memory_mib: 1024,
            pace: Pace::Fast,
            firmware: Firmware::Bios,
            cpu_model: None,
            serial_port: true,
            nic: false,
            packaged_bochs: false,
            faults: Vec::new(),
            disk: None,
            debug_line: false,
            extra_args: Vec::new(),
        }
    }
}

/// An emulator's command line with the files it needs, ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    program: PathBuf,
    args: Vec<String>,
    /// Environment variables to set.
    env: Vec<(&'static str, String)>,
    /// Name and content of files to put into the run directory, where the emulator is started.
    files: Vec<(&'static str, String)>,
}

impl Plan {
    /// The command line as one would type it.
    pub(crate) fn command_line(&self) -> String {
        let mut line = self.program.display().to_string();
        for arg in &self.args {
            line.push(' ');
            line.push_str(arg);
        }
        line
    }

    /// The configuration files, for people.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (*name, text.as_str()))
    }
}

/// What would be run for `spec`, without running it.
pub(crate) fn plan(ws: &Workspace, spec: &Spec) -> Result<Plan> {
    match spec.kind {
        Kind::Bochs => {
            let lines = vec!["127.0.0.1:PORT".to_owned(); 1 + usize::from(spec.debug_line)];
            bochs::plan(ws, spec, &lines)
        }
        Kind::Qemu => qemu::plan(ws, spec),
    }
}

/// The command line for `spec` in QEMU on a host whose KVM offers nested VT-x, where the program is
/// on the search path and files are where `spec` says.
pub(crate) fn nested_command(spec: &Spec) -> Vec<String> {
    qemu::nested_command(spec)
}

/// Starts a machine; COM1 is connected when this returns.
///
/// The calling thread must live as long as the machine: the kernel kills the machine with it.
pub(crate) fn start(ws: &Workspace, spec: &Spec) -> Result<Running> {
    match spec.kind {
        Kind::Bochs => bochs::start(ws, spec),
        Kind::Qemu => qemu::start(ws, spec),
    }
}

/// A machine that was started; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    serial: File,
    debug_line: Option<File>,
    /// The image of its disk, locked, where the emulator's own lock outlives it.
    disk: Option<File>,
    dir: TempDir,
}

impl Running {
    /// COM1 as two handles on one socket: the first to read, the second to write.
    pub(crate) fn serial(&self) -> Result<(File, File)> {
        let copy = || {
            self.serial
                .try_clone()
                .context("cannot duplicate the serial line's handle")
        };
        Ok((copy()?, copy()?))
    }

    /// COM2, if the machine has it.
    pub(crate) fn debug_line(&self) -> Result<File> {
        let line = self.debug_line.as_ref();
        line.context("this machine has no second serial line")?
            .try_clone()
            .context("cannot duplicate the debug line's handle")
    }

    /// The emulator's exit status, once it has ended.
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .context("cannot wait for the emulator")
    }

    /// The emulator's exit status, given a moment to end after it has hung up.
    pub(crate) fn wait_briefly(&mut self) -> Result<Option<ExitStatus>> {
        for _ in 0..20 {
            if let Some(status) = self.status()? {
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(None)
    }

    /// Ends the machine at once.
    pub(crate) fn kill(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.disk.take());
    }

    /// The last lines the emulator itself wrote (not the serial line), to explain its death.
    pub(crate) fn emulator_messages(&self) -> String {
        last_words(self.dir.path())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

const OUTPUT: &str = "emulator.out";
const LOG: &str = "bochs.log";

/// The end of the emulator's output and the errors of its log.
fn last_words(dir: &Path) -> String {
    let read = |name| {
        fs::read(dir.join(name))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    };
    let output = read(OUTPUT);
    let log = read(LOG);
    let mut lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines.extend(
        log.lines()
            .filter(|line| line.contains(">>PANIC<<") || line.contains("p[")),
    );
    let skip = lines.len().saturating_sub(10);
    lines.split_off(skip).join("\n")
}

/// Puts the plan's files into a new run directory and starts the emulator there.
fn spawn(plan: &Plan, stdio: Option<OwnedFd>) -> Result<(Child, TempDir)> {
    let dir = tempfile::Builder::new()
        .prefix("tessera-machine-")
        .tempdir()
        .context("cannot create a directory for the machine's files")?;
    for (name, text) in &plan.files {
        fs::write(dir.path().join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    let output = File::create(dir.path().join(OUTPUT)).context("cannot create a log file")?;
    let (stdin, stdout) = match stdio {
        Some(fd) => (Stdio::from(fd.try_clone()?), Stdio::from(fd)),
        None => (Stdio::null(), Stdio::from(output.try_clone()?)),
    };
    // `setpriv` (util-linux, always there) asks the kernel to kill the emulator if we die.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&plan.program)
        .args(&plan.args)
        .envs(plan.env.iter().map(|(name, value)| (name, value)))
        .current_dir(dir.path())
        .stdin(stdin)
        .stdout(stdout)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", plan.program.display()))?;
    Ok((child, dir))
}
