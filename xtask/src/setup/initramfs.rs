//! Initial RAM disks: busybox and the kernel's own modules; for the guests, an init that gives a
//! shell.

use std::collections::{BTreeMap, BTreeSet};

use super::cpio::Cpio;

/// Started by the kernel; busybox init then reads `INITTAB`.
const INITTAB: &str = "\
::sysinit:/etc/init.d/rcS
::respawn:-/bin/cttyhack /etc/init.d/console
::ctrlaltdel:/sbin/reboot
";

const RCS: &str = "\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
ln -s /proc/self/fd /dev/fd
dmesg -n 4
/etc/init.d/devices
memory=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
echo
echo \"Linux $(uname -r) on Tessera: $(nproc) CPU, $((memory / 1024)) MiB.\"
echo 'poweroff ends this domain, reboot starts it again.'
echo
";

/// Loads the drivers of the disks and networks that the xenstore names, and waits a while for what
/// they find, so that it is there at the first prompt.
const DEVICES: &str = "\
#!/bin/sh
cd /sys/bus/xen/devices || exit 0
driver() {
    [ -e $2 ] && modprobe $1
}
waits() {
    for device in vbd-* vif-*; do
        [ -e $device ] && ! [ -e $device/block -o -e $device/net ] && return 0
    done
    return 1
}
driver xen-blkfront vbd-*
driver xen-netfront vif-*
for tenth in $(seq 50); do
    waits || break
    usleep 100000
done
";

/// Runs on the console as its session leader, so that Ctrl-C reaches what runs there.
/// `tessera.run="COMMANDS"` (or all of it in quotes) on the kernel's command line runs them once
/// before the shell.
const CONSOLE: &str = "\
#!/bin/sh
export HOME=/root PATH=/sbin:/usr/sbin:/bin:/usr/bin
cd
cmdline=$(cat /proc/cmdline)
case \"$cmdline\" in
*tessera.run=*)
    if [ ! -e /tmp/tessera.run ]; then
        run=${cmdline#*tessera.run=}
        case \"$cmdline\" in
        *'\"tessera.run='*) run=${run%%'\"'*} ;;
        *'tessera.run=\"'*) run=${run#'\"'}; run=${run%%'\"'*} ;;
        *) run=${run%% *} ;;
        esac
        echo \"$run\" >/tmp/tessera.run
        sh /tmp/tessera.run
        echo \"tessera.run: exit status $?\"
    fi
    ;;
esac
exec sh -l
";

const PROFILE: &str = "export PS1='\\w \\$ '\n";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";

/// Modules to take along, with what they need. Besides `DEVICES`, which of them are loaded is the
/// user's affair.
pub(super) const MODULES: &[&str] = &[
    "cpuid",
    "msr",
    "xen-blkfront",
    "xen-evtchn",
    "xen-gntalloc",
    "xen-gntdev",
    "xen-netfront",
    "xen-privcmd",
    "xenfs",
];

/// What every RAM disk is made of.
#[derive(Debug)]
pub(super) struct Parts {
    /// The one program.
    pub(super) busybox: Vec<u8>,
    /// Its names for itself, with path.
    pub(super) applets: Vec<String>,
    /// What the kernel calls itself.
    pub(super) release: String,
    /// The kernel's modules: file names (`msr.ko`) with their content, uncompressed.
    pub(super) modules: BTreeMap<String, Vec<u8>>,
}

/// Builds a guest's RAM disk.
pub(super) fn build(parts: &Parts) -> Vec<u8> {
    let mut cpio = base(parts);
    cpio.file("etc/inittab", 0o644, INITTAB.as_bytes());
    cpio.file("etc/init.d/rcS", 0o755, RCS.as_bytes());
    cpio.file("etc/init.d/devices", 0o755, DEVICES.as_bytes());
    cpio.file("etc/init.d/console", 0o755, CONSOLE.as_bytes());
    cpio.file("etc/profile", 0o644, PROFILE.as_bytes());
    cpio.finish()
}

/// A system with busybox and modules, but without anything for busybox init to do.
pub(super) fn base(parts: &Parts) -> Cpio {
    let Parts {
        busybox,
        applets,
        release,
        modules,
    } = parts;
    let mut cpio = Cpio::default();
    for dir in [
        "bin",
        "dev",
        "etc",
        "etc/init.d",
        "lib",
        "lib/modules",
        "proc",
        "root",
        "sbin",
    ] {
        cpio.directory(dir);
    }
    for dir in ["sys", "tmp", "usr", "usr/bin", "usr/sbin", "var", "var/run"] {
        cpio.directory(dir);
    }
    // The kernel opens the console before init has mounted anything.
    cpio.character_device("dev/console", 5, 1);
    cpio.file("bin/busybox", 0o755, busybox);
    for applet in applets.iter().filter(|name| name.as_str() != "bin/busybox") {
        cpio.symlink(applet, "/bin/busybox");
    }
    cpio.symlink("init", "/bin/busybox");
    cpio.file("etc/passwd", 0o644, PASSWD.as_bytes());
    cpio.file("etc/group", 0o644, GROUP.as_bytes());
    let dir = format!("lib/modules/{release}");
    cpio.directory(&dir);
    let (dependencies, usable) = dependencies(modules);
    for (name, content) in modules
        .iter()
        .filter(|(name, _)| usable.contains(name.as_str()))
    {
        cpio.file(&format!("{dir}/{name}"), 0o644, content);
    }
    cpio.file(
        &format!("{dir}/modules.dep"),
        0o644,
        dependencies.as_bytes(),
    );
    cpio
}

/// The text of `modules.dep`, and the modules whose needs are all there.
fn dependencies(modules: &BTreeMap<String, Vec<u8>>) -> (String, BTreeSet<&str>) {
    let needs: BTreeMap<&str, Vec<String>> = modules
        .iter()
        .map(|(name, content)| (name.as_str(), needed(content)))
        .collect();
    let mut text = String::new();
    let mut usable = BTreeSet::new();
    for name in needs.keys() {
        let mut order = Vec::new();
        if load_order(name, &needs, &mut order).is_some() {
            // modprobe loads what a line names from its end to its start.
            let line: Vec<&str> = order.into_iter().rev().skip(1).collect();
            text.push_str(format!("{name}: {}", line.join(" ")).trim_end());
            text.push('\n');
            usable.insert(*name);
        }
    }
    (text, usable)
}

/// Appends what `name` needs and then `name` to `order`, if all of that is there. Modules never
/// need each other in a circle: the kernel could not load them.
fn load_order<'a>(
    name: &'a str,
    needs: &'a BTreeMap<&'a str, Vec<String>>,
    order: &mut Vec<&'a str>,
) -> Option<()> {
    if order.contains(&name) {
        return Some(());
    }
    for need in needs.get(name)? {
        load_order(need, needs, order)?;
    }
    order.push(name);
    Some(())
}

/// The file names in a module's `depends=` note.
fn needed(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = module
        .get(at.saturating_add(KEY.len())..)
        .unwrap_or_default();
    let value = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| format!("{name}.ko"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Parts, build, dependencies, needed};
    use std::collections::BTreeMap;

    fn modules(list: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let content = |depends: &str| format!("ELF\0depends={depends}\0name=x").into_bytes();
        list.iter()
            .map(|(name, depends)| ((*name).to_owned(), content(depends)))
            .collect()
    }

    #[test]
    fn a_module_names_its_needs() {
        assert_eq!(needed(b"x\0depends=a,b\0y"), ["a.ko", "b.ko"]);
        assert!(needed(b"x\0depends=\0").is_empty());
        assert!(needed(b"no note").is_empty());
    }

    #[test]
    fn dependencies_are_closed_and_the_rest_is_left_out() {
        let all = modules(&[
            ("a.ko", "b"),
            ("b.ko", "c"),
            ("c.ko", ""),
            ("d.ko", "missing"),
            ("e.ko", "c,a"),
        ]);
        let (text, usable) = dependencies(&all);
        assert_eq!(
            text,
            "a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:\ne.ko: a.ko b.ko c.ko\n"
        );
        assert_eq!(
            usable.into_iter().collect::<Vec<_>>(),
            ["a.ko", "b.ko", "c.ko", "e.ko"]
        );
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        let parts = Parts {
            busybox: b"bb".to_vec(),
            applets: vec!["bin/busybox".to_owned(), "bin/sh".to_owned()],
            release: "6.1.0".to_owned(),
            modules: modules(&[("a.ko", "")]),
        };
        let make = || build(&parts);
        assert_eq!(make(), make());
        let text = String::from_utf8_lossy(&make()).into_owned();
        assert_eq!(text.matches("bin/busybox\0").count(), 1);
        assert!(text.contains("lib/modules/6.1.0/a.ko"));
    }
}
