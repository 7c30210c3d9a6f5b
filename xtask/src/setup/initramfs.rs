//! The guests' initial RAM disk: busybox, the kernel's own modules, and an init that gives a shell.

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
memory=$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
echo
echo \"Linux $(uname -r) on Tessera: $(nproc) CPU, $((memory / 1024)) MiB.\"
echo 'poweroff ends this domain, reboot starts it again.'
echo
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

/// Modules to take along, with what they need; which of them are loaded is the user's affair.
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

/// Builds the archive: `modules` are file names (`msr.ko`) with their content, uncompressed, for
/// the kernel that calls itself `release`; `applets` are busybox's names for itself with path.
pub(super) fn build(
    busybox: &[u8],
    applets: &[String],
    release: &str,
    modules: &BTreeMap<String, Vec<u8>>,
) -> Vec<u8> {
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
    cpio.file("etc/inittab", 0o644, INITTAB.as_bytes());
    cpio.file("etc/init.d/rcS", 0o755, RCS.as_bytes());
    cpio.file("etc/init.d/console", 0o755, CONSOLE.as_bytes());
    cpio.file("etc/profile", 0o644, PROFILE.as_bytes());
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
    cpio.finish()
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
        if let Some(all) = closure(name, &needs) {
            let rest: Vec<&str> = all.into_iter().filter(|other| other != name).collect();
            text.push_str(format!("{name}: {}", rest.join(" ")).trim_end());
            text.push('\n');
            usable.insert(*name);
        }
    }
    (text, usable)
}

/// `name` and everything it needs, if that is all there.
fn closure<'a>(name: &'a str, needs: &BTreeMap<&'a str, Vec<String>>) -> Option<BTreeSet<&'a str>> {
    let mut all = BTreeSet::from([name]);
    let mut open = vec![name];
    while let Some(next) = open.pop() {
        for need in needs.get(next)? {
            let (need, _) = needs.get_key_value(need.as_str())?;
            if all.insert(need) {
                open.push(need);
            }
        }
    }
    Some(all)
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
    use super::{build, dependencies, needed};
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
        ]);
        let (text, usable) = dependencies(&all);
        assert_eq!(text, "a.ko: b.ko c.ko\nb.ko: c.ko\nc.ko:\n");
        assert_eq!(
            usable.into_iter().collect::<Vec<_>>(),
            ["a.ko", "b.ko", "c.ko"]
        );
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        let applets = ["bin/busybox".to_owned(), "bin/sh".to_owned()];
        let make = || build(b"bb", &applets, "6.1.0", &modules(&[("a.ko", "")]));
        assert_eq!(make(), make());
        let text = String::from_utf8_lossy(&make()).into_owned();
        assert_eq!(text.matches("bin/busybox\0").count(), 1);
        assert!(text.contains("lib/modules/6.1.0/a.ko"));
    }
}
