//! QEMU: with KVM where the host can, else its own translator (no VT-x there).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Boot, Firmware, Host, NIC_ADDRESS, Plan, Running, Spec, spawn};
use crate::setup::qemu;
use crate::workspace::Workspace;

/// Where Debian puts UEFI firmware.
const OVMF: &str = "/usr/share/OVMF";

/// The command line for `spec`.
pub(super) fn plan(ws: &Workspace, spec: &Spec) -> Result<Plan> {
    let program =
        qemu::find(ws.cache()).context("no QEMU on this machine: run `cargo xtask setup`")?;
    // KVM without nested VT-x gives the machine nothing that counts here.
    let kvm = Host::probe().nested_vtx().is_ok();
    let firmware = match spec.firmware {
        Firmware::Bios => None,
        Firmware::Uefi => Some(ovmf(Path::new(OVMF))?),
    };
    Ok(Plan {
        program,
        args: arguments(spec, kvm, firmware.as_deref()),
        env: Vec::new(),
        files: Vec::new(),
    })
}

/// The whole command line for `spec` under KVM on another system; see [`super::nested_command`].
pub(super) fn nested_command(spec: &Spec) -> Vec<String> {
    let ovmf = Path::new(OVMF).join("OVMF_CODE_4M.fd");
    let ovmf = (spec.firmware == Firmware::Uefi).then_some(ovmf.as_path());
    let mut words = vec![qemu::PROGRAM.to_owned()];
    words.extend(arguments(spec, true, ovmf));
    words
}

/// Starts QEMU with COM1 on its standard input and output, which are one end of a socket pair.
pub(super) fn start(ws: &Workspace, spec: &Spec) -> Result<Running> {
    let (ours, theirs) = UnixStream::pair().context("cannot create a socket pair")?;
    let (child, dir) = spawn(&plan(ws, spec)?, Some(theirs.into()))?;
    Ok(Running {
        child,
        serial: File::from(OwnedFd::from(ours)),
        debug_line: None,
        disk: None,
        dir,
    })
}

/// The UEFI code volume; QEMU keeps the variables in memory for the one run.
fn ovmf(dir: &Path) -> Result<PathBuf> {
    for name in ["OVMF_CODE_4M.fd", "OVMF_CODE.fd"] {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "no UEFI firmware in {}: install the package ovmf (cargo xtask setup)",
        dir.display()
    )
}

fn arguments(spec: &Spec, kvm: bool, ovmf: Option<&Path>) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
    add(&["-nodefaults", "-no-user-config", "-display", "none"]);
    add(&[
        "-machine",
        if kvm {
            "q35,accel=kvm"
        } else {
            "q35,accel=tcg"
        },
    ]);
    let cpu = spec
        .cpu_model
        .as_deref()
        .unwrap_or(if kvm { "host" } else { "max" });
    add(&["-cpu", cpu]);
    add(&["-smp", &spec.cpus.to_string()]);
    add(&["-m", &spec.memory_mib.to_string()]);
    let serial = if spec.serial_port {
        "chardev:com1"
    } else {
        "none"
    };
    add(&["-chardev", "stdio,id=com1,signal=off", "-serial", serial]);
    if let Some(code) = ovmf {
        let drive = format!("if=pflash,format=raw,readonly=on,file={}", quoted(code));
        add(&["-drive", &drive]);
    }
    if let Some(disk) = &spec.disk {
        let drive = format!("if=none,id=disk,format=raw,file={}", quoted(disk));
        add(&["-drive", &drive, "-device", "piix3-ide,id=ide"]);
        add(&["-device", "ide-hd,drive=disk,bus=ide.0"]);
    }
    if spec.nic {
        let card = format!("user,model=e1000,mac={NIC_ADDRESS}");
        add(&["-nic", &card]);
    }
    match &spec.boot {
        Boot::Iso(iso) => {
            add(&["-boot", "d", "-cdrom", &iso.display().to_string()]);
        }
        Boot::Kernel { image, archive } => {
            let image = image.display().to_string();
            add(&["-kernel", &image, "-initrd", &archive.display().to_string()]);
        }
    }
    args.extend(spec.extra_args.iter().cloned());
    args
}

/// A path inside a QEMU option list, where a comma is written twice.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::{arguments, quoted};
    use crate::machine::{Boot, Kind, Spec};
    use std::path::Path;

    #[test]
    fn without_kvm_qemu_translates() {
        let mut spec = Spec::new(Kind::Qemu, Boot::Iso("/x/t.iso".into()));
        spec.nic = true;
        let line = arguments(&spec, false, None).join(" ");
        assert!(
            line.contains("accel=tcg") && line.contains("-cpu max"),
            "{line}"
        );
        assert!(line.contains("-cdrom /x/t.iso"), "{line}");
        assert!(line.contains("-nic user,model=e1000,mac=52:54:"), "{line}");
    }

    #[test]
    fn kernel_goes_with_its_archive() {
        let boot = Boot::Kernel {
            image: "/x/tessera".into(),
            archive: "/x/a".into(),
        };
        let line = arguments(&Spec::new(Kind::Qemu, boot), true, Some(Path::new("/f"))).join(" ");
        assert!(line.contains("-kernel /x/tessera -initrd /x/a"), "{line}");
        assert!(
            line.contains("q35,accel=kvm") && line.contains("if=pflash"),
            "{line}"
        );
        assert!(line.contains("-smp 1 -m 1024"), "{line}");
        assert!(line.contains("-serial chardev:com1"), "{line}");
    }

    #[test]
    fn commas_are_doubled() {
        assert_eq!(quoted(Path::new("/a,b")), "/a,,b");
    }
}
