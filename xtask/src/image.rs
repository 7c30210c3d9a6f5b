//! `image`: the hypervisor and one system as a bootable ISO, for BIOS and UEFI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::system::config::Config;
use ::system::{Archive, DiskSource};
use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use crate::{build, setup, system};

/// Options of `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// System description (TOML); without it, one Debian guest
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to write the image
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The system that runs without `--config`.
const DEFAULT_SYSTEM: &str = "xtask/systems/default.toml";

/// What a machine boots from: two files, and the ISO that holds both.
#[derive(Debug)]
pub(crate) struct Image {
    /// The hypervisor.
    pub(crate) hypervisor: PathBuf,
    /// The hypervisor with debug information, which does not boot from here.
    pub(crate) debug: PathBuf,
    /// The boot archive.
    pub(crate) archive: PathBuf,
    /// Both, with GRUB.
    pub(crate) iso: PathBuf,
    /// The machine it asks for.
    pub(crate) machine: MachineSize,
}

/// A machine large enough for a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineSize {
    /// CPUs, such that every affinity names one that is there.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// A network card, because a network has an uplink.
    pub(crate) nic: bool,
}

/// What the hypervisor, its archive and the firmware may take, beside the guests' memory.
const OVERHEAD_MIB: u64 = 256;
/// Smaller machines save nothing.
const LEAST_MIB: u32 = 1024;
/// Larger ones have to be asked for: the host has to have that memory.
const MOST_MIB: u32 = 8192;

impl MachineSize {
    /// What every system gets at least.
    pub(crate) const LEAST: Self = Self {
        cpus: 1,
        memory_mib: LEAST_MIB,
        nic: false,
    };

    /// For the domains of a configuration, with room for what each may have by ballooning
    /// and write to its disks.
    fn of(config: &Config) -> Self {
        let cpus = config
            .domains
            .iter()
            .flat_map(|domain| domain.affinity.iter().flatten());
        let pages: u64 = config
            .domains
            .iter()
            .map(|domain| domain.quotas.max_memory_pages)
            .sum();
        let disks = config.domains.iter().flat_map(|domain| &domain.disks);
        // What is written to a disk takes memory, and so does its image.
        let sectors: u64 = disks
            .map(|disk| match disk.source {
                DiskSource::Ram { image, sectors } => {
                    let kinds = u64::from(!disk.read_only) + u64::from(image.is_some());
                    sectors.saturating_mul(kinds)
                }
                DiskSource::Machine { .. } => 0,
            })
            .fold(0, u64::saturating_add);
        let memory = (pages / 256)
            .saturating_add(sectors / 2048)
            .saturating_add(OVERHEAD_MIB)
            .next_multiple_of(128);
        Self {
            cpus: cpus.max().map_or(1, |highest| highest.saturating_add(1)),
            memory_mib: u32::try_from(memory)
                .unwrap_or(u32::MAX)
                .clamp(LEAST_MIB, MOST_MIB),
            nic: config
                .networks
                .iter()
                .any(|network| network.uplink.is_some()),
        }
    }
}

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    setup::ensure(ws)?;
    let image = make(ws, args.config.as_deref())?;
    let place = match &args.output {
        None => image.iso,
        Some(output) => {
            fs::copy(&image.iso, output)
                .with_context(|| format!("cannot write {}", output.display()))?;
            output.clone()
        }
    };
    println!("{}", place.display());
    Ok(())
}

/// Builds the hypervisor, packs the system `config` and makes the ISO.
pub(crate) fn make(ws: &Workspace, config: Option<&Path>) -> Result<Image> {
    eprintln!("Building the hypervisor (the first time takes minutes)");
    make_of(ws, build::hypervisor(ws)?, config)
}

/// Packs the system `config` and makes the ISO of a hypervisor that was built.
pub(crate) fn make_of(ws: &Workspace, built: build::Built, config: Option<&Path>) -> Result<Image> {
    let build::Built {
        image: hypervisor,
        debug,
        ..
    } = built;
    let default = ws.root().join(DEFAULT_SYSTEM);
    let out = ws.out()?;
    let archive = out.join("system.tsa");
    let report = system::pack(
        config.unwrap_or(&default),
        system::Guests {
            cached: &[&ws.cache().join("guests")],
            micro: &|| build::bare_package(ws, "guests"),
        },
        &archive,
    )?;
    eprintln!("{report}");
    let bytes = fs::read(&archive).context("cannot read the boot archive")?;
    let machine = MachineSize::of(Archive::parse(&bytes)?.config());
    let iso_path = out.join("tessera.iso");
    iso(&hypervisor, Some(&archive), &Extras::default(), &iso_path)?;
    Ok(Image {
        hypervisor,
        debug,
        archive,
        iso: iso_path,
        machine,
    })
}

/// What an ISO holds and starts.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    /// The commands of GRUB's only menu entry.
    pub(crate) commands: &'a str,
    /// Files in `/boot`, by name. The first tells the volume from others.
    pub(crate) files: &'a [(&'a str, &'a Path)],
    /// Modules that the commands need on BIOS, beside the usual ones.
    pub(crate) modules: &'a [&'a str],
}

/// What GRUB does beside loading the hypervisor's two files; nothing in an image for users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extras<'a> {
    /// The hypervisor's command line.
    pub(crate) cmdline: &'a str,
    /// Commands before anything is loaded, each on its line.
    pub(crate) commands: &'a str,
    /// As in [`Contents`].
    pub(crate) modules: &'a [&'a str],
}

impl Contents<'_> {
    /// Run by GRUB before the menu: the volume it started from may be only the UEFI partition.
    fn early(&self) -> String {
        let mark = self.files.first().map_or("", |(name, _)| name);
        format!("search.file /boot/{mark} root\nset prefix=($root)/boot/grub\n")
    }

    /// Boots at once.
    fn menu(&self) -> String {
        let commands = self.commands;
        format!("set timeout=0\nset default=0\nmenuentry Start {{\n{commands}}}\n")
    }
}

/// What GRUB needs to get from the firmware to the hypervisor.
const MODULES: &[&str] = &[
    "iso9660",
    "search_fs_file",
    "multiboot2",
    "normal",
    "configfile",
    "boot",
];

/// The date of everything in an image, so that equal files give an equal image.
const EPOCH: &str = "1767225600";
const DATE: &str = "2026010100000000";

/// Makes the ISO `out` from the hypervisor and a boot archive; the tests use one without archive.
pub(crate) fn iso(
    hypervisor: &Path,
    archive: Option<&Path>,
    extras: &Extras<'_>,
    out: &Path,
) -> Result<()> {
    let Extras {
        cmdline,
        commands,
        modules,
    } = extras;
    let blank = if cmdline.is_empty() { "" } else { " " };
    let mut commands = format!("{commands}    multiboot2 /boot/tessera{blank}{cmdline}\n");
    let mut files = vec![("tessera", hypervisor)];
    if let Some(archive) = archive {
        commands.push_str("    module2 /boot/system.tsa\n");
        files.push(("system.tsa", archive));
    }
    let contents = Contents {
        commands: &commands,
        files: &files,
        modules,
    };
    write(&contents, out)
}

/// Makes the ISO `out`.
///
/// The steps are those of grub-mkrescue, which itself puts the time and a random number into every
/// image.
pub(crate) fn write(contents: &Contents<'_>, out: &Path) -> Result<()> {
    let dir = tempfile::tempdir().context("cannot create a directory for the image's files")?;
    let tree = dir.path().join("tree");
    let boot = tree.join("boot");
    let grub = boot.join("grub");
    fs::create_dir_all(&grub)?;
    fs::write(grub.join("grub.cfg"), contents.menu())?;
    for (name, from) in contents.files {
        fs::copy(from, boot.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let early = dir.path().join("early.cfg");
    fs::write(&early, contents.early())?;
    loader(
        "i386-pc-eltorito",
        &[&["biosdisk"], contents.modules].concat(),
        &early,
        &grub.join("bios.img"),
    )?;
    let efi = dir.path().join("bootx64.efi");
    loader("x86_64-efi", &[], &early, &efi)?;
    efi_partition(&efi, &grub.join("efi.img"))?;
    let partial = out.with_extension("part");
    let mut xorriso = fixed_time("xorriso");
    xorriso
        .args(["-as", "mkisofs", "-quiet", "-R", "-V", "TESSERA", "-o"])
        .arg(&partial);
    xorriso
        .arg(format!("--modification-date={DATE}"))
        .args(["--set_all_file_dates", DATE]);
    xorriso.args(["--grub2-mbr", "/usr/lib/grub/i386-pc/boot_hybrid.img"]);
    xorriso.args([
        "-b",
        "boot/grub/bios.img",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
    ]);
    xorriso.args([
        "-boot-info-table",
        "--grub2-boot-info",
        "-eltorito-alt-boot",
    ]);
    xorriso.args([
        "-e",
        "boot/grub/efi.img",
        "-no-emul-boot",
        "--efi-boot-part",
    ]);
    xorriso.arg("--efi-boot-image").arg(&tree);
    execute(&mut xorriso)?;
    fs::rename(&partial, out).with_context(|| format!("cannot write {}", out.display()))
}

/// A GRUB program for one firmware, with all its modules inside.
fn loader(format: &str, extra: &[&str], early: &Path, out: &Path) -> Result<()> {
    let mut mkimage = fixed_time("grub-mkimage");
    mkimage
        .args(["-O", format, "-p", "/boot/grub", "-c"])
        .arg(early)
        .arg("-o")
        .arg(out);
    execute(mkimage.args(extra).args(MODULES))
}

/// The small FAT file system that UEFI starts from.
fn efi_partition(program: &Path, out: &Path) -> Result<()> {
    const SIZE: u64 = 1440 << 10;
    fs::File::create(out)?.set_len(SIZE)?;
    let mut format = fixed_time("mformat");
    execute(
        format
            .arg("-i")
            .arg(out)
            .args(["-f", "1440", "-N", "54455353", "::"]),
    )?;
    let mut mkdir = fixed_time("mmd");
    execute(mkdir.arg("-i").arg(out).args(["::EFI", "::EFI/BOOT"]))?;
    let mut copy = fixed_time("mcopy");
    execute(
        copy.arg("-i")
            .arg(out)
            .arg(program)
            .arg("::EFI/BOOT/BOOTX64.EFI"),
    )
}

/// A command for which the time stands still.
fn fixed_time(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Runs it; what it printed is shown only if it fails.
fn execute(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("cannot run {name} (cargo xtask doctor)"))?;
    let words = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "{name} failed ({}): {}",
        done.status,
        words.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Contents, Extras, MachineSize, iso};
    use ::system::Quotas;
    use ::system::Share;
    use ::system::config::{Config, DomainConfig, FileId, HostConfig, MemoryBacking, OnReboot};
    use std::fs;
    use std::path::Path;

    #[test]
    fn equal_files_give_an_equal_image() {
        if !Path::new("/usr/bin/xorriso").exists() || !Path::new("/usr/lib/grub/i386-pc").exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "content").unwrap();
        let make = |name| {
            let out = dir.path().join(name);
            iso(&file, Some(&file), &Extras::default(), &out).unwrap();
            fs::read(out).unwrap()
        };
        assert!(make("one.iso") == make("two.iso"));
    }

    #[test]
    fn the_machine_is_as_large_as_the_system_asks() {
        let domain = |pages, affinity: Option<Vec<u32>>| DomainConfig {
            name: "d".to_owned(),
            kernel: FileId(0),
            initrd: None,
            cmdline: String::new(),
            memory_pages: pages,
            quotas: Quotas::usual(1, pages),
            vcpus: 1,
            affinity,
            share: Share::default(),
            backing: MemoryBacking::OnTouch,
            on_reboot: OnReboot::Restart,
            disks: Vec::new(),
            vifs: Vec::new(),
        };
        let size = |domains| {
            MachineSize::of(&Config {
                host: HostConfig::default(),
                networks: Vec::new(),
                domains,
            })
        };
        let small = size(vec![domain(65536, None)]);
        assert_eq!(
            small,
            MachineSize {
                cpus: 1,
                memory_mib: 1024,
                nic: false,
            }
        );
        let two = size(vec![
            domain(1 << 18, Some(vec![0])),
            domain(65536, Some(vec![0, 2])),
        ]);
        assert_eq!(
            two,
            MachineSize {
                cpus: 3,
                memory_mib: 1536,
                nic: false,
            }
        );
        let mut grows = domain(65536, None);
        grows.quotas.max_memory_pages = 1 << 19;
        assert_eq!(size(vec![grows]).memory_mib, 2304);
        assert_eq!(size(vec![domain(1 << 40, None)]).memory_mib, 8192);
    }

    #[test]
    fn the_menu_does_not_wait() {
        let contents = Contents {
            commands: "    multiboot2 /boot/tessera\n",
            files: &[("tessera", Path::new("/x"))],
            modules: &[],
        };
        let text = contents.menu();
        assert!(text.starts_with("set timeout=0\n"), "{text}");
        assert!(
            text.ends_with("{\n    multiboot2 /boot/tessera\n}\n"),
            "{text}"
        );
        assert!(
            contents
                .early()
                .starts_with("search.file /boot/tessera root\n")
        );
    }
}
