//! What a stock Linux does with disks: part of a scenario that boots one anyway.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::linux::{answer, ask};
use super::{Artifacts, Script};
use crate::setup::for_tests;

/// Kilobytes of the image.
const IMAGE_KIB: usize = 1001;

/// Bytes that look like nothing in particular, so many kilobytes of them.
fn contents(kib: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let words = core::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(kib * 128).flatten().collect()
}

/// Makes an image of so many kilobytes.
pub(super) fn image(artifacts: &Artifacts, name: &str, kib: usize) -> Result<PathBuf> {
    let image = artifacts.file(name, "img");
    fs::write(&image, contents(kib))
        .with_context(|| format!("cannot write {}", image.display()))?;
    Ok(image)
}

/// Makes an image and describes three disks: the image, read-only, an empty one that may be
/// written, and one that holds a program.
pub(super) fn describe(artifacts: &Artifacts, name: &str) -> Result<String> {
    let image = image(artifacts, name, IMAGE_KIB)?;
    let checker = for_tests::e2fsck(artifacts.workspace())?;
    let [image, checker] = [image, checker].map(|path| path.display().to_string());
    Ok(format!(
        "[[domain.disk]]\nname = \"xvda\"\nimage = {image:?}\nread_only = true\n\
         [[domain.disk]]\nname = \"xvdb\"\nsize = \"8M\"\n\
         [[domain.disk]]\nname = \"xvdc\"\nimage = {checker:?}\nread_only = true\n"
    ))
}

/// Uses both disks, and checks all that comes back.
pub(super) fn use_them(script: &mut Script) -> Result<()> {
    found(script)?;
    let sizes = answer(
        script,
        "cat /sys/block/xvd[ab]/size /sys/block/xvd[ab]/ro | tr '\\n' ' '",
    )?;
    let sectors = IMAGE_KIB * 2;
    ensure!(
        sizes.trim() == format!("{sectors} 16384 1 0"),
        "sizes and modes: {sizes}"
    );
    ask(
        script,
        "dd if=/dev/zero of=/dev/xvda bs=512 count=1 && echo writ\"able\" || echo un\"writable\"",
        "unwritable",
    )?;
    let sum = answer(script, "sha256sum </dev/xvda")?;
    // Unaligned to pages, in requests of every size up to a MiB, through the page cache and
    // beside it. The kernel splits, merges and reorders as it likes.
    for (from, to, block, flags) in [
        ("/dev/xvda", "/dev/xvdb", "512", ""),
        ("/dev/xvda", "/dev/xvdb", "77k", "iflag=direct oflag=direct"),
        ("/dev/xvda", "/dev/xvdb", "1001k", "conv=fsync"),
    ] {
        script.type_line(&format!(
            "dd if={from} of={to} bs={block} seek=1 {flags}; sync"
        ))?;
        let copied = answer(
            script,
            &format!(
                "dd if={to} bs={block} skip=1 iflag=direct | head -c {} | sha256sum",
                IMAGE_KIB * 1024
            ),
        )?;
        ensure!(
            copied == sum,
            "a copy in blocks of {block}: {copied}, not {sum}"
        );
    }
    filesystem(script, "/dev/xvdb")?;
    check_filesystem(script)
}

/// A filesystem that is there again after it was taken down.
pub(super) fn filesystem(script: &mut Script, disk: &str) -> Result<()> {
    let make = format!("mkdir -p /mnt; mke2fs {disk} >/tmp/mke2fs 2>&1; echo \"do\"ne $?");
    ask(script, &make, "done 0")?;
    let mount = format!("mount -t ext4 {disk} /mnt; echo \"do\"ne $?");
    ask(script, &mount, "done 0")?;
    let fill =
        "for f in 1 2 3; do cp /bin/busybox /mnt/$f; done; sync; umount /mnt; echo \"do\"ne $?";
    ask(script, fill, "done 0")?;
    let check = format!(
        "echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 -o ro {disk} /mnt; \
         for f in 1 2 3; do cmp /bin/busybox /mnt/$f || echo differ\"ent\"; done; \
         umount /mnt; echo \"do\"ne $?"
    );
    script.type_line(&check)?;
    ensure!(
        script.expect_any(&["different", "done 0"])? == 1,
        "a file is not what it was"
    );
    script.expect("# ")
}

/// The filesystem is clean: with the program on the third disk, whose size is that of its sectors.
fn check_filesystem(script: &mut Script) -> Result<()> {
    let check = "cp /dev/xvdc /tmp/e2fsck; chmod +x /tmp/e2fsck; /tmp/e2fsck -fn /dev/xvdb; \
                 echo \"clea\"n $?";
    ask(script, check, "clean 0")
}

/// After a restart: the image is there, what was written is not.
pub(super) fn find_them_anew(script: &mut Script) -> Result<()> {
    found(script)?;
    let left = answer(script, "tr -d '\\000' </dev/xvdb | wc -c")?;
    ensure!(
        left == "0",
        "{left} bytes are left of what was written before the restart"
    );
    Ok(())
}

/// Two vCPUs use a disk at once, each by a queue of its own.
pub(super) fn two_queues(script: &mut Script) -> Result<()> {
    let queues = answer(script, "ls /sys/block/xvda/mq")?;
    ensure!(queues == "0 1", "queues: {queues}");
    let ports = answer(script, "grep -c 'blkif' /proc/interrupts")?;
    ensure!(ports == "2", "ports: {ports}");
    // Each copies a pattern of its own, in small requests, to its half and back.
    let copy = "for c in 0 1; do (yes $c$(uname -a) | head -c 4194304 >/tmp/$c; \
                taskset $((c + 1)) dd if=/tmp/$c of=/dev/xvda bs=16k seek=$((c * 512)) oflag=direct; \
                taskset $((c + 1)) dd if=/dev/xvda bs=16k skip=$((c * 512)) count=256 iflag=direct | \
                cmp - /tmp/$c && touch /tmp/same$c) & done; wait; \
                ls /tmp/same0 /tmp/same1 && echo \"bo\"th";
    ask(script, copy, "both")?;
    let used = "grep blkif /proc/interrupts | awk '$2 + $3 > 20 {n++} END {print n}'";
    let used = answer(script, used)?;
    ensure!(used == "2", "{used} queues had events");
    Ok(())
}

/// They are there without a word, like the network's driver if there were a network.
fn found(script: &mut Script) -> Result<()> {
    let found = answer(
        script,
        "ls /dev/xvda /dev/xvdb; grep -c netfront /proc/modules",
    )?;
    ensure!(found == "/dev/xvda /dev/xvdb 0", "at the prompt: {found}");
    Ok(())
}
