//! Bochs: emulates a CPU with VT-x on any host.
//!
//! COM1 is a TCP connection that Bochs makes to a port we listen on: its socket mode waits when we
//! are slow to read and takes a typed character only when the guest has room, while its terminal
//! mode loses bytes both ways.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Boot, Firmware, LOG, NIC_ADDRESS, Pace, Plan, Running, Spec, last_words, spawn};
use crate::setup::bochs::{self, Bochs};
use crate::workspace::Workspace;

/// The model whose VT-x has all the optional features; see docs/using.md for others.
const MODEL: &str = "corei7_skylake_x";
/// The most memory in MiB that Bochs takes for the machine's; it keeps the rest in a file.
const MOST_HOST_MIB: u32 = 2048;
/// The file that describes further MSRs.
const MSRS: &str = "msrs.def";
/// How long Bochs may take to open the serial connection.
const CONNECT: Duration = Duration::from_secs(20);

/// The command line and configuration for `spec`, with COM1, and COM2 if there is one, connecting to `lines`.
pub(super) fn plan(ws: &Workspace, spec: &Spec, lines: &[String]) -> Result<Plan> {
    ensure!(
        spec.firmware == Firmware::Bios,
        "Bochs has no UEFI firmware: use --machine qemu"
    );
    let Boot::Iso(iso) = &spec.boot else {
        bail!("Bochs boots ISO images only");
    };
    let found = if spec.packaged_bochs {
        bochs::packaged(ws.cache())
    } else {
        bochs::find(ws.cache())
    };
    let bochs = found.context("no Bochs on this machine: run `cargo xtask setup`")?;
    ensure!(
        spec.faults.is_empty() || !bochs.packaged,
        "only Bochs 3.0, as set-up builds it, can have faults: try `cargo xtask setup --refresh`"
    );
    let mut files = vec![("bochsrc", configuration(spec, iso, lines, &bochs))];
    let mut args: Vec<String> = ["-q", "-f", "bochsrc"].map(str::to_owned).into();
    if !bochs.packaged {
        files.push((MSRS, last_branch_msrs()));
    }
    if bochs.packaged {
        // The packaged build stops in its debugger first: tell it to go on.
        files.push(("debugger.rc", "c\n".to_owned()));
        args.extend(["-rc".to_owned(), "debugger.rc".to_owned()]);
    }
    args.extend(spec.extra_args.iter().cloned());
    Ok(Plan {
        program: bochs.program,
        args,
        env: faults(&spec.faults),
        files,
    })
}

fn faults(words: &[String]) -> Vec<(&'static str, String)> {
    if words.is_empty() {
        return Vec::new();
    }
    vec![(bochs::FAULTS, words.join(","))]
}

/// Starts Bochs and waits until it has connected its serial lines.
pub(super) fn start(ws: &Workspace, spec: &Spec) -> Result<Running> {
    let disk = spec.disk.as_deref().map(own).transpose()?;
    let listen = || TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1");
    let com1 = listen()?;
    let com2 = spec.debug_line.then(listen).transpose()?;
    let mut lines = vec![com1.local_addr()?.to_string()];
    if let Some(com2) = &com2 {
        lines.push(com2.local_addr()?.to_string());
    }
    let (mut child, dir) = spawn(&plan(ws, spec, &lines)?, None)?;
    let mut connect = |listener| accept(listener, || Ok(child.try_wait()?.is_some())).map(file);
    let connected =
        connect(&com1).and_then(|com1| Ok((com1, com2.as_ref().map(connect).transpose()?)));
    match connected {
        Ok((serial, debug_line)) => Ok(Running {
            child,
            serial,
            debug_line,
            disk,
            dir,
        }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error.context(format!("Bochs did not start:\n{}", last_words(dir.path()))))
        }
    }
}

/// Locks a disk's image for one machine. Bochs's own lock is a file beside it, which stays when Bochs
/// is killed and would keep the next one out.
fn own(image: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).open(image);
    let file = file.with_context(|| format!("cannot write the disk {}", image.display()))?;
    file.try_lock()
        .with_context(|| format!("the disk {} is in use by another machine", image.display()))?;
    let mut left = image.as_os_str().to_owned();
    left.push(".lock");
    match fs::remove_file(&left) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", left.display()))
        }
        _ => Ok(file),
    }
}

fn file(stream: TcpStream) -> File {
    File::from(OwnedFd::from(stream))
}

/// Waits for the one connection, as long as Bochs is alive.
fn accept(listener: &TcpListener, mut ended: impl FnMut() -> Result<bool>) -> Result<TcpStream> {
    let limit = Instant::now() + CONNECT;
    while Instant::now() < limit {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(100u8))? > 0 {
            let (stream, _) = listener
                .accept()
                .context("cannot accept the serial connection")?;
            stream.set_nodelay(true)?;
            return Ok(stream);
        }
        ensure!(!ended()?, "it ended before it opened its serial line");
    }
    bail!(
        "it did not open its serial line within {} s",
        CONNECT.as_secs()
    )
}

fn configuration(spec: &Spec, iso: &Path, lines: &[String], bochs: &Bochs) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = text.write_fmt(args);
        text.push('\n');
    };
    let model = spec.cpu_model.as_deref().unwrap_or(MODEL);
    let msrs = if bochs.packaged {
        String::new()
    } else {
        format!(", msrs={MSRS}")
    };
    line(format_args!(
        "cpu: model={model}, count={}:1:1, ips={}, reset_on_triple_fault=1{msrs}",
        spec.cpus,
        ips(spec.pace)
    ));
    line(format_args!(
        "memory: guest={}, host={}",
        spec.memory_mib,
        spec.memory_mib.min(MOST_HOST_MIB)
    ));
    line(format_args!("romimage: file={}", bochs::BIOS));
    line(format_args!("vgaromimage: file={}", bochs::VGA_BIOS));
    line(format_args!(
        "ata0-master: type=cdrom, path=\"{}\", status=inserted",
        iso.display()
    ));
    if let Some(disk) = &spec.disk {
        line(format_args!(
            "ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15"
        ));
        // No cylinders: as many as the file has.
        line(format_args!(
            "ata1-master: type=disk, path=\"{}\", mode=flat, cylinders=0",
            disk.display()
        ));
    }
    line(format_args!("boot: cdrom"));
    // Without a port at COM1's place the connection still tells that the machine is on.
    let ports = if spec.serial_port {
        ["com1", "com2"]
    } else {
        ["com2", "com1"]
    };
    for (index, port) in ports.into_iter().enumerate() {
        match lines.get(index) {
            Some(address) => line(format_args!(
                "{port}: enabled=1, mode=socket-client, dev={address}"
            )),
            None => line(format_args!("{port}: enabled=0")),
        }
    }
    line(format_args!("{}", pci(spec)));
    let sync = match spec.pace {
        Pace::Fast => "none",
        Pace::RealTime => "slowdown",
    };
    line(format_args!("clock: sync={sync}, time0=utc"));
    line(format_args!("log: {LOG}"));
    line(format_args!("panic: action=fatal"));
    line(format_args!("error: action=ignore"));
    line(format_args!("info: action=ignore"));
    line(format_args!("debug: action=ignore"));
    line(format_args!("display_library: {}", bochs.display));
    if bochs.packaged {
        // Without a sound card that build overruns a buffer and aborts.
        line(format_args!(
            "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy"
        ));
    }
    text
}

/// IA32_DEBUGCTL and the last-branch records of [`MODEL`], which Bochs does not have: registers
/// that keep what is written, with canonical addresses where addresses belong. No branch is ever
/// recorded.
fn last_branch_msrs() -> String {
    const PLAIN: u32 = 0;
    const LINEAR_ADDRESS: u32 = 1;
    let single = [
        (0x1c8, PLAIN),
        (0x1c9, PLAIN),
        (0x1d9, PLAIN),
        (0x1dd, LINEAR_ADDRESS),
        (0x1de, LINEAR_ADDRESS),
    ];
    let stack = (0..32).flat_map(|entry| {
        [
            (0x680 + entry, LINEAR_ADDRESS),
            (0x6c0 + entry, LINEAR_ADDRESS),
            (0xdc0 + entry, PLAIN),
        ]
    });
    let mut text = String::new();
    for (msr, kind) in single.into_iter().chain(stack) {
        // No bit is set at reset, reserved or ignored. Writing to a String cannot fail.
        let _ = writeln!(text, "{msr:#x} {kind} 0 0 0 0 0 0");
    }
    text
}

/// PCI, with a network card if there is one.
fn pci(spec: &Spec) -> String {
    let pci = "pci: enabled=1, chipset=i440fx";
    if spec.nic {
        format!("{pci}, slot1=e1000\ne1000: enabled=1, mac={NIC_ADDRESS}, ethmod=slirp")
    } else {
        pci.to_owned()
    }
}

/// Emulated instructions per second of the machine's own time.
///
/// A machine that keeps to real time executes no more than this, so it wants much; more than the
/// host can do would only make more device time. The others want what costs the host least in all:
/// fewer means more timer ticks per piece of work, more means longer waits for devices.
fn ips(pace: Pace) -> u32 {
    match pace {
        Pace::Fast => 50_000_000,
        Pace::RealTime => 100_000_000,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::own;

    #[test]
    fn a_disk_is_of_one_machine_and_what_a_killed_one_left_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let (image, left) = (dir.path().join("disk"), dir.path().join("disk.lock"));
        assert!(format!("{:#}", own(&image).unwrap_err()).contains("cannot write the disk"));
        fs::write(&image, [0; 512]).unwrap();
        fs::write(&left, "1").unwrap();
        let first = own(&image).unwrap();
        assert!(!left.exists());
        fs::write(&left, "2").unwrap();
        let second = own(&image).unwrap_err();
        assert!(format!("{second:#}").contains("in use by another machine"));
        assert!(left.exists());
        drop(first);
        assert!(own(&image).is_ok());
    }
}
