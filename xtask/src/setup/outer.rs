//! The outer system of nested runs: Debian's cloud kernel with KVM, Debian's QEMU with its
//! libraries and firmware, and busybox, in one RAM disk. Bochs gives it a CPU with VT-x.
//!
//! `outer` in the cache holds `vmlinuz`, `initrd.img` and `version`. What a run adds is a second
//! RAM disk after this one ([`files`]).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::cpio::Cpio;
use super::kernels::{self, FLAVOURS, Lazy};
use super::{initramfs, qemu, tool};

/// Changes whenever the RAM disk's content is made in another way.
const RECIPE: &str = "2";

/// KVM, what it needs, and MSRs for its user.
const MODULES: &[&str] = &["irqbypass", "kvm", "kvm-intel", "msr"];

/// Firmware below the unpacked packages, at its own place: BIOS, option ROMs that start a kernel.
const FIRMWARE: &[&str] = &[
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/kvmvapic.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/multiboot_dma.bin",
    "usr/share/qemu/pvh.bin",
];

/// UEFI firmware, where this machine and the outer system have it.
const OVMF: &str = "usr/share/OVMF/OVMF_CODE_4M.fd";

/// Where a run's own files are in the outer system.
pub(crate) const FILES: &str = "files";

const INITTAB: &str = "\
::sysinit:/etc/init.d/rcS
::respawn:/bin/cttyhack /etc/init.d/console
::shutdown:/bin/umount -a
";

const RCS: &str = "\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
dmesg -n 1
";

/// Takes a command a line and says when it is ready for one and how the last one ended. What is
/// typed is not echoed, so that it cannot be taken for an answer.
const CONSOLE: &str = "\
#!/bin/sh
export HOME=/root PATH=/sbin:/usr/sbin:/bin:/usr/bin
cd /files
while stty sane -echo && echo 'outer: ready' && IFS= read -r line; do
    eval \"$line\"
    echo \"outer: status $?\"
done
";

/// Its directory, whether or not it is there.
pub(crate) fn dir(cache: &Path) -> PathBuf {
    cache.join("outer")
}

/// The kernel package's name and version, if the outer system is there and current.
pub(crate) fn found(cache: &Path) -> Option<String> {
    let dir = dir(cache);
    let text = fs::read_to_string(dir.join("version")).ok()?;
    let (version, recipe) = text.trim().rsplit_once(' ')?;
    (recipe == RECIPE && dir.join("vmlinuz").is_file() && dir.join("initrd.img").is_file())
        .then(|| version.to_owned())
}

/// Makes it from the packages in the cache, which are fetched if they are not there.
pub(super) fn install(cache: &Path, archive: &mut Lazy<'_>) -> Result<()> {
    tool::step("outer system: Debian with KVM and QEMU, for nested runs in Bochs");
    let packages = cache.join("packages");
    fs::create_dir_all(&packages).context("cannot write to the cache")?;
    let root = match qemu::unpacked(cache) {
        Some(root) => root,
        None => {
            qemu::install(cache, archive.get()?)?;
            qemu::unpacked(cache).context("QEMU was unpacked and is gone")?
        }
    };
    let work = super::work_dir(cache, "outer")?;
    let [cloud, _] = FLAVOURS;
    let (kernel, parts) = kernels::unpacked(archive, &packages, cloud, MODULES, &work, false)?;
    let mut cpio = initramfs::base(&parts);
    for dir in ["lib64", "lib/x86_64-linux-gnu", "usr/share", FILES] {
        cpio.directory(dir);
    }
    for dir in ["usr/share/seabios", "usr/share/qemu", "usr/share/OVMF"] {
        cpio.directory(dir);
    }
    for name in FIRMWARE {
        add(&mut cpio, name, &root.join(name), 0o644)?;
    }
    add(&mut cpio, OVMF, &Path::new("/").join(OVMF), 0o644)?;
    add_program(&mut cpio, &root)?;
    cpio.file("etc/inittab", 0o644, INITTAB.as_bytes());
    cpio.file("etc/init.d/rcS", 0o755, RCS.as_bytes());
    cpio.file("etc/init.d/console", 0o755, CONSOLE.as_bytes());

    let ready = work.join("ready");
    fs::create_dir(&ready)?;
    fs::rename(
        kernels::only_file(&work.join("boot"), "vmlinuz-")?,
        ready.join("vmlinuz"),
    )?;
    fs::write(ready.join("initrd.img"), cpio.finish())?;
    fs::write(ready.join("version"), format!("{kernel} {RECIPE}\n"))?;
    super::put(&ready, &dir(cache))?;
    fs::remove_dir_all(&work).context("cannot clean the cache")
}

/// QEMU with its loader and libraries, where the loader looks without being told.
fn add_program(cpio: &mut Cpio, root: &Path) -> Result<()> {
    let program = format!("usr/bin/{}", qemu::PROGRAM);
    let text = tool::output(qemu::loader(root).arg("--list").arg(root.join(&program)))?;
    let libraries = libraries(&text);
    ensure!(!libraries.is_empty(), "QEMU names no libraries");
    for (name, path) in libraries {
        add(cpio, &format!("lib/x86_64-linux-gnu/{name}"), path, 0o755)?;
    }
    let loader = root.join(qemu::LOADER);
    add(cpio, "lib64/ld-linux-x86-64.so.2", &loader, 0o755)?;
    add(cpio, &program, &root.join(&program), 0o755)
}

/// Name and place of each library, from the loader's list: `NAME => PATH (ADDRESS)`.
pub(crate) fn libraries(list: &str) -> Vec<(&str, &Path)> {
    list.lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once(" => ")?;
            let (path, _) = rest.rsplit_once(" (")?;
            // The loader itself is named by its whole path.
            (!name.starts_with('/')).then_some((name, Path::new(path)))
        })
        .collect()
}

fn add(cpio: &mut Cpio, name: &str, from: &Path, mode: u32) -> Result<()> {
    let data = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    cpio.file(name, mode, &data);
    Ok(())
}

/// A RAM disk that puts `files` (name, place on this machine) into [`FILES`].
pub(crate) fn files(files: &[(&str, &Path)]) -> Result<Vec<u8>> {
    let mut cpio = Cpio::default();
    cpio.directory(FILES);
    for (name, from) in files {
        add(&mut cpio, &format!("{FILES}/{name}"), from, 0o644)?;
    }
    Ok(cpio.finish())
}

#[cfg(test)]
mod tests {
    use super::libraries;
    use std::path::Path;

    #[test]
    fn libraries_are_listed_without_the_loader() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibm.so.6 => /c/lib/libm.so.6 (0x00007f01)\n\
                    \t/lib64/ld-linux-x86-64.so.2 => /c/ld.so (0x00007f02)\n";
        assert_eq!(
            libraries(list),
            [("libm.so.6", Path::new("/c/lib/libm.so.6"))]
        );
    }
}
