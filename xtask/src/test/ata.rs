//! A stock Debian guest on a partition of an ATA disk, which outlives it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::gpt::{self, Partition};
use super::linux::{PROMPT, answer, ask, domain};
use super::{Case, Scenario, Script, Tier, Transcript};
use crate::machine::{Boot, Kind, Spec};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "linux-ata",
    tier: Tier::Bochs,
    about: "a filesystem on a partition of an ATA disk: written, powered off, read again",
    limit: Duration::from_secs(900),
    run,
}];

/// Sectors of the disk: whole cylinders.
const SECTORS: usize = 82 * 16 * 63;
const DATA: Partition = Partition {
    name: "data",
    sectors: 2048..2048 + 48 * 1024,
};
const KEPT: Partition = Partition {
    name: "kept",
    sectors: 60 * 1024..61 * 1024,
};
/// Where Bochs has the disk.
const PLACE: &str = "ata-0000:00:01.1-1.0";
/// Files with bytes that no other has.
const FILL: &str = "for f in 1 2 3; do head -c 3000001 /dev/urandom >/mnt/$f; done; \
                    cp /bin/busybox /mnt/; (cd /mnt; sha256sum 1 2 3 busybox >sums); sync";

/// The disks of a domain.
fn description() -> String {
    let disk = |name: &str, of: &str, rest: &str| {
        format!("[[domain.disk]]\nname = \"{name}\"\ndisk = \"{of}\"\n{rest}\n")
    };
    let disks = disk("xvda", PLACE, "partition = \"data\"")
        + &disk("xvdb", PLACE, "partition = \"kept\"\nread_only = true");
    let other = |name: &str, disk: &str| domain(name, "cloud", "128M", disk);
    domain("debian", "cloud", "256M", &disks)
        + &other(
            "greedy",
            &disk("xvda", PLACE, "start = \"2M\"\nsize = \"1M\""),
        )
        + &other("lost", &disk("xvda", PLACE, "partition = \"nowhere\""))
        + &other(
            "far",
            &disk("xvda", PLACE, "start = \"39M\"\nsize = \"2M\""),
        )
        + &other("absent", &disk("xvda", "no such disk", ""))
}

fn run(case: &Case<'_>) -> Result<()> {
    let image = case.artifacts.file(case.scenario.name, "img");
    let before = gpt::image(SECTORS, &[DATA, KEPT]);
    gpt::write(&image, &before)?;
    let iso = case.artifacts.iso(case.scenario.name, &description())?;
    let spec = Spec {
        memory_mib: 512,
        disk: Some(image.clone()),
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    };
    let mut script = Script::for_case(case, &spec)?;
    script.expect(PROMPT)?;
    load(&mut script)?;
    write(&mut script)?;
    script.type_line("poweroff")?;
    let said = script.finish()?;
    said.ended_well()?;
    refusals(&said)?;
    look(&image, &before)?;

    let mut script = Script::for_case(case, &spec)?;
    script.expect(PROMPT)?;
    load(&mut script)?;
    read(&mut script)?;
    script.type_line("poweroff")?;
    script.finish()?.ended_well()
}

fn load(script: &mut Script) -> Result<()> {
    let load = "modprobe xen-blkfront; \
                while ! [ -b /dev/xvda -a -b /dev/xvdb ]; do usleep 100000; done; echo \"the\"re";
    ask(script, load, "there")
}

fn done(script: &mut Script, command: &str) -> Result<()> {
    ask(script, &format!("{command}; echo \"do\"ne $?"), "done 0")
}

fn write(script: &mut Script) -> Result<()> {
    let sizes = answer(
        script,
        "cat /sys/block/xvd[ab]/size /sys/block/xvd[ab]/ro | tr '\\n' ' '",
    )?;
    let wanted = format!("{} {} 0 1", DATA.sectors.len(), KEPT.sectors.len());
    ensure!(sizes.trim() == wanted, "sizes and modes: {sizes}");
    ask(
        script,
        "dd if=/dev/zero of=/dev/xvdb bs=512 count=1 && echo writ\"able\" || echo un\"writable\"",
        "unwritable",
    )?;
    done(script, "mkdir -p /mnt; mke2fs /dev/xvda >/tmp/mke2fs 2>&1")?;
    done(script, "mount -t ext4 /dev/xvda /mnt")?;
    done(script, FILL)?;
    // Small and large requests beside the page cache, and at odd places.
    for (block, count) in [("512", 64), ("4k", 64), ("1000k", 3)] {
        done(
            script,
            &format!(
                "dd if=/mnt/busybox of=/mnt/direct.{block} bs={block} count={count} \
                 iflag=fullblock oflag=direct && dd if=/mnt/direct.{block} bs={block} iflag=direct | \
                 cmp -n $(stat -c %s /mnt/direct.{block}) - /mnt/busybox"
            ),
        )?;
    }
    done(script, "umount /mnt")
}

fn read(script: &mut Script) -> Result<()> {
    done(script, "mkdir -p /mnt; mount -t ext4 -o ro /dev/xvda /mnt")?;
    done(script, "(cd /mnt; sha256sum -c sums)")?;
    let bytes = answer(script, "cat /mnt/1 /mnt/2 /mnt/3 | wc -c")?;
    ensure!(bytes == "9000003", "the files have {bytes} bytes");
    done(script, "umount /mnt")
}

/// Each domain that does not start is told of once, and why.
fn refusals(said: &Transcript) -> Result<()> {
    for (name, words) in [
        ("greedy", "debian/xvda overlap on it"),
        ("lost", "it has no partition \"nowhere\""),
        ("far", "reach behind its end"),
        ("absent", "this machine has no such disk"),
    ] {
        said.line_with(&[&format!("{name}: not started: "), words])?;
    }
    Ok(())
}

/// What the host sees: the filesystem is whole, and nothing beside the partition has changed.
fn look(image: &Path, before: &[u8]) -> Result<()> {
    let after = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    ensure!(after.len() == before.len(), "the image has another size");
    let data = DATA.bytes();
    let changed = before
        .iter()
        .zip(&after)
        .enumerate()
        .find(|(at, (old, new))| old != new && !data.contains(at));
    if let Some((at, _)) = changed {
        bail!("byte {at} of the image has changed, outside of the partition");
    }
    let partition = image.with_extension("part");
    fs::write(&partition, after.get(data).unwrap_or_default())?;
    let check = Command::new("/usr/sbin/e2fsck")
        .args(["-f", "-n"])
        .arg(&partition)
        .output()
        .context("cannot run e2fsck: run `cargo xtask setup`")?;
    ensure!(
        check.status.success(),
        "e2fsck: {}",
        String::from_utf8_lossy(&check.stdout)
    );
    Ok(())
}
