//! Descriptions in a directory of their own: what is packed, and what each mistake is told.

mod uplinks;

use super::*;
use ::system::config::{End, LogLevel, MemoryBacking, OnReboot};
use ::system::kernel::{Format, Image, compress_lz4};
use ::system::network::{Action, VifConfig};
use ::system::synthetic::compressed::GZIP;
use ::system::synthetic::{Elf, bzimage};
use ::system::{Archive, FileId, Quotas, Share};
use tempfile::TempDir;

mod disks;

/// A directory with kernels, an initrd and a cache.
struct Fixture {
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { directory };
        let elf = Elf::default().build();
        fixture.write("kernel.elf", &elf);
        let lz4 = bzimage(&compress_lz4(&elf).unwrap());
        fixture.write("vmlinuz", &lz4);
        fixture.write("cache/cloud/vmlinuz", &lz4);
        fixture.write("cache/cloud/initrd.img", b"070701 cached");
        fixture.write("initrd.img", b"070701");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn pack(&self, description: &str) -> Result<(PackReport, Vec<u8>)> {
        self.write("system.toml", description.as_bytes());
        let out = self.path("system.tsa");
        let guests = Guests {
            cached: &[&self.path("cache")],
            micro: &|| Ok(self.path("micro")),
        };
        let report = pack(&self.path("system.toml"), guests, &out)?;
        Ok((report, fs::read(out).unwrap()))
    }

    /// The error without the directory's name.
    fn error(&self, description: &str) -> String {
        let error = format!("{:#}", self.pack(description).unwrap_err());
        assert!(
            !self.path("system.tsa").exists(),
            "an archive in spite of {error}"
        );
        let directory = format!("{}/", self.directory.path().display());
        error.replace(&directory, "")
    }
}

/// A good domain, and what `change` adds to it in a last line.
fn with(line: &str) -> String {
    format!("[[domain]]\nname = \"web\"\nkernel = \"vmlinuz\"\nmemory = \"64M\"\n{line}\n")
}

#[test]
fn a_full_description_is_packed() {
    let fixture = Fixture::new();
    let description = r#"
        [host]
        log_level = "debug"
        on_panic = "reboot"
        on_idle = "halt"
        vmx_mask = ["ept-1g", "vpid"]

        [[domain]]
        name = "debian"
        kernel = "debian:cloud"
        initrd = "debian:cloud"
        cmdline = "console=hvc0"
        memory = "1G"
        max_memory = "2G"
        backing = "at-start"
        vcpus = 2
        event_ports = 4095
        page_table_frames = 3000
        affinity = [0, 1]
        on_reboot = "stop"
        max_grant_frames = 8
        max_maptrack_frames = 0
        max_grant_version = 1

        [[domain]]
        name = "micro"
        kernel = "kernel.elf"
        initrd = "initrd.img"
        memory = "2048K"
    "#;
    let (report, bytes) = fixture.pack(description).unwrap();
    assert_eq!(
        report.to_string(),
        "domain debian: 1024 MiB, 2 vCPUs, kernel debian:cloud (LZ4, 0.1 MiB), initrd \
         debian:cloud (0.1 MiB)\n\
         domain micro: 2 MiB, 1 vCPU, kernel kernel.elf (ELF, 0.1 MiB), initrd initrd.img (0.1 \
         MiB)\n\
         boot archive: 0.1 MiB"
    );
    let archive = Archive::parse(&bytes).unwrap();
    let host = &archive.config().host;
    assert_eq!(host.log_level, LogLevel::Debug);
    assert_eq!((host.on_panic, host.on_idle), (End::Reboot, End::Halt));
    assert_eq!(host.vmx_mask, ["ept-1g", "vpid"]);
    let [debian, micro] = archive.config().domains.as_slice() else {
        panic!("two domains");
    };
    assert_eq!((debian.memory_pages, debian.vcpus), (1 << 18, 2));
    let quotas = debian.quotas;
    assert_eq!((quotas.event_ports, quotas.table_frames), (4095, 3000));
    assert_eq!(quotas.max_memory_pages, 1 << 19);
    assert_eq!(debian.affinity.as_deref(), Some([0, 1].as_slice()));
    assert_eq!(debian.backing, MemoryBacking::AtStart);
    assert_eq!(debian.on_reboot, OnReboot::Stop);
    let limits = quotas.grants;
    assert_eq!((limits.max_version, limits.max_frames), (1, 8));
    assert_eq!(limits.max_maptrack_frames, 0);
    assert_eq!(
        archive.file(debian.initrd.unwrap(), &mut || ()).unwrap(),
        b"070701 cached"
    );
    assert_eq!((micro.memory_pages, micro.vcpus), (512, 1));
    assert_eq!(micro.affinity, None);
    assert_eq!(micro.quotas, Quotas::usual(1, 512));
    assert_eq!(micro.backing, MemoryBacking::OnTouch);
    assert_eq!(micro.on_reboot, OnReboot::Restart);
    assert_eq!(
        archive.file(micro.kernel, &mut || ()).unwrap(),
        Elf::default().build()
    );
}

#[test]
fn the_examples_are_packed() {
    let fixture = Fixture::new();
    fixture.write("micro/unikernel", &Elf::default().build());
    fixture.write("unikernel.toml", b"what it has on its disk");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("systems");
    let mut count = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        fixture.pack(&source).unwrap();
        // What is commented out stands at its default: with it, everything stays as it is. The
        // two blanks keep all places.
        let uncomment = |line: &str| match line.strip_prefix("# ") {
            Some(code) if code.contains(" = ") && !code.ends_with('.') => format!("  {code}"),
            _ => line.to_owned(),
        };
        let spelled_out = source.lines().map(uncomment).collect::<Vec<_>>();
        let mut spelled_out = description::read(&spelled_out.join("\n")).unwrap();
        let mut silent = description::read(&source).unwrap();
        // Absent, it stands for all CPUs, which nothing else can say.
        for domain in spelled_out.domains.iter_mut().chain(&mut silent.domains) {
            domain.affinity = None;
        }
        assert_eq!(spelled_out, silent);
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn claims_on_cpu_time_are_packed() {
    let packed = |lines: &str| {
        let (_, bytes) = Fixture::new().pack(&with(lines)).unwrap();
        Archive::parse(&bytes).unwrap().config().domains[0].share
    };
    let share = Share {
        weight: 512,
        warp: 10_000,
        warp_limit: 5_000,
        unwarp: 0x8000,
    };
    let lines = "weight = 512\nwarp = 10_000\nwarp_limit = 5000\nunwarp = 0x8000";
    assert_eq!(packed(lines), share);
    assert_eq!(packed(""), Share::default());
}

#[test]
fn a_file_that_two_domains_use_is_packed_once() {
    let fixture = Fixture::new();
    let two = with("") + &with("").replace("web", "db");
    let (_, bytes) = fixture.pack(&two).unwrap();
    let archive = Archive::parse(&bytes).unwrap();
    assert_eq!(archive.files().len(), 1);
    assert_eq!(archive.config().domains[1].kernel, FileId(0));
}

#[test]
fn slow_compressions_are_packed_anew_unless_told_not_to() {
    let fixture = Fixture::new();
    fixture.write("vmlinuz", &bzimage(GZIP));
    let packed = |line| {
        let (report, bytes) = fixture.pack(&with(line)).unwrap();
        let archive = Archive::parse(&bytes).unwrap();
        let file = archive.file(FileId(0), &mut || ()).unwrap();
        let image = Image::identify(file).unwrap();
        let mut scratch = vec![0; image.scratch_size().unwrap()];
        let elf = image.unpack(&mut scratch, 0, &mut || ()).unwrap();
        assert_eq!(elf, Elf::default().build());
        (image.format(), report.to_string())
    };
    let (format, report) = packed("");
    assert_eq!(format, Format::Lz4);
    assert!(
        report.contains("vmlinuz (gzip, packed anew as LZ4, 0.1 MiB)"),
        "{report}"
    );
    let (format, report) = packed("repack = false");
    assert_eq!(format, Format::Gzip);
    assert!(report.contains("vmlinuz (gzip, 0.1 MiB)"), "{report}");
}

/// Each row: what is added to a good domain, and the error without its place.
const MISTAKES: [(&str, &str); 26] = [
    (
        "max_grant_frames = 0",
        "5:20: max_grant_frames: it cannot be 0; choose 1 to 1024",
    ),
    (
        "max_grant_version = 3",
        "5:21: max_grant_version: it cannot be 3; choose 1 to 2",
    ),
    (
        "vpcus = 2",
        "5:1: vpcus: unknown key; did you mean `vcpus`?",
    ),
    (
        "drive = \"a.img\"",
        "5:1: drive: unknown key; the keys here are name, kernel, memory, initrd, cmdline, \
         max_memory, backing, vcpus, event_ports, page_table_frames, affinity, weight, warp, \
         warp_limit, unwarp, on_reboot, max_grant_version, max_grant_frames, max_maptrack_frames, \
         repack, disk, vif",
    ),
    (
        "vcpus = \"two\"",
        "5:9: vcpus: expected a whole number from 0 on, found the string \"two\"; write for \
         example `vcpus = 2`",
    ),
    (
        "vcpus = -1",
        "5:9: vcpus: expected a whole number from 0 on, found the number -1; write for \
         example `vcpus = 2`",
    ),
    (
        "vcpus = 0",
        "5:9: vcpus: a domain cannot have 0 vCPUs; give it 1 to 128",
    ),
    (
        "vcpus = 0xfff_ffff_ffff",
        "5:9: vcpus: a domain cannot have 4294967295 vCPUs; give it 1 to 128",
    ),
    (
        "affinity = [0, 256]",
        "5:12: affinity: there is no CPU 256; the numbers go from 0 to 255",
    ),
    (
        "affinity = []",
        "5:12: affinity: there is no CPU to run on; name one, or leave the key out",
    ),
    (
        "affinity = [\"all\"]",
        "5:12: affinity: expected a list of whole numbers, found a list; write for example \
         `affinity = [0, 1]`",
    ),
    (
        "max_memory = \"32M\"",
        "5:14: max_memory: \"32M\" is less than the memory at the start; give it as much or more, \
         or leave the key out",
    ),
    (
        "max_memory = \"2T\"",
        "5:14: max_memory: a domain cannot have \"2T\" of memory; give it 1M to 1T",
    ),
    (
        "event_ports = 200000",
        "5:15: event_ports: a domain cannot have 200000 event ports; give it 1 to 131071",
    ),
    (
        "page_table_frames = 7",
        "5:21: page_table_frames: this domain cannot have 7 page-table frames; give it 52 to \
         16777216, or leave the key out",
    ),
    (
        "weight = 0",
        "5:10: weight: there is no weight 0; give 1 to 65535",
    ),
    (
        "weight = 1.5",
        "5:10: weight: expected a whole number from 0 on, found the number 1.5; write for example \
         `weight = 512`",
    ),
    (
        "warp = 10000001",
        "5:8: warp: 10000001 microseconds are too long; give 0 to 10000000 (ten seconds)",
    ),
    (
        "warp_limit = 5000",
        "5:14: warp_limit: nothing is borrowed without a warp; add for example `warp = 10000`",
    ),
    (
        "warp = 5\nunwarp = 7",
        "6:10: unwarp: there is no pause without a limit; add for example `warp_limit = 5000`",
    ),
    (
        "backing = true",
        "5:11: backing: expected a string, found true; write for example `backing = \"on-touch\"`",
    ),
    (
        "on_reboot = \"explode\"",
        "5:13: on_reboot: \"explode\" is unknown; use \"restart\", \"stop\"",
    ),
    (
        "repack = 1",
        "5:10: repack: expected true or false, found the number 1; write for example `repack \
         = false`",
    ),
    (
        "initrd = \"no.img\"",
        "5:10: initrd: cannot read \"no.img\": there is no such file; paths are relative to \
         the description, `debian:cloud` is Debian's kernel",
    ),
    (
        "initrd = \"debian:slim\"",
        "5:10: initrd: there is no \"debian:slim\" in the cache; it has \"debian:cloud\"",
    ),
    (
        "[[domain]]\nname = \"web\"\nkernel = \"kernel.elf\"\nmemory = \"2M\"",
        "6:8: name: two domains are called \"web\"; give each its own name",
    ),
];

#[test]
fn programs_of_this_tree_have_names() {
    let fixture = Fixture::new();
    fixture.write("micro/hello", &Elf::default().build());
    let named = |name: &str| with("").replace("\"vmlinuz\"", &format!("\"guest:{name}\""));
    let (report, _) = fixture.pack(&named("hello")).unwrap();
    assert!(
        report.to_string().contains("kernel guest:hello (ELF"),
        "{report}"
    );
    fs::remove_file(fixture.path("system.tsa")).unwrap();
    for name in ["halo", "../micro/hello"] {
        assert_eq!(
            fixture.error(&named(name)),
            format!(
                "system.toml:3:10: kernel: there is no \"guest:{name}\"; `tests/guests/src/bin` has \
                 the programs"
            )
        );
    }
}

#[test]
fn mistakes_in_a_domain() {
    let fixture = Fixture::new();
    for (line, expected) in MISTAKES {
        assert_eq!(
            fixture.error(&with(line)),
            format!("system.toml:{expected}")
        );
    }
    let long = format!("cmdline = \"{}\"", "x".repeat(2048));
    assert_eq!(
        fixture.error(&with(&long)),
        "system.toml:5:11: cmdline: the command line has 2048 bytes; at most 2047 fit, without a \
         NUL"
    );
}

#[test]
fn mistakes_in_the_mask() {
    let fixture = Fixture::new();
    let mask = |list: &str| format!("{}[host]\nvmx_mask = {list}\n", with(""));
    for (list, expected) in [
        (
            "[\"vpid\", \"ept-3g\"]",
            "7:21: vmx_mask: \"ept-3g\" is no feature of VT-x; did you mean \"ept-1g\"?",
        ),
        (
            "[\n\"teleport\"]",
            "8:1: vmx_mask: \"teleport\" is no feature of VT-x; docs/hardware.md lists all",
        ),
        (
            "\"vpid\"",
            "7:12: vmx_mask: expected a list of strings, found the string \"vpid\"; write for \
             example `vmx_mask = [\"ept-1g\"]`",
        ),
    ] {
        assert_eq!(
            fixture.error(&mask(list)),
            format!("system.toml:{expected}")
        );
    }
    // As the hypervisor takes them.
    fixture.pack(&mask("[\"VPID\", \"ept_1g\"]")).unwrap();
}

#[test]
fn mistakes_in_sizes() {
    let fixture = Fixture::new();
    let error = |size: &str| {
        let description = with("").replace("\"64M\"", size);
        let error = fixture.error(&description);
        error
            .strip_prefix("system.toml:4:10: memory: ")
            .map(str::to_owned)
            .unwrap_or(error)
    };
    for size in ["256", "M", "", "1.5G", "-1G", "256MB", "1 G", "64m"] {
        assert_eq!(
            error(&format!("\"{size}\"")),
            format!(
                "\"{size}\" is no size; write a whole number and K, M, G or T, such as \"256M\""
            )
        );
    }
    assert_eq!(
        error("256"),
        "expected a string, found the number 256; write for example `memory = \"256M\"`"
    );
    for size in ["0M", "1020K", "2T", "99999999999999999999G", "16777217T"] {
        assert_eq!(
            error(&format!("\"{size}\"")),
            format!("a domain cannot have \"{size}\" of memory; give it 1M to 1T")
        );
    }
    assert_eq!(
        error("\"1025K\""),
        "\"1025K\" is no whole number of pages; write a multiple of 4K"
    );
    assert_eq!(
        error("\"1M\""),
        "the kernel and initrd end at 2 MiB; give the domain more than that"
    );
}

#[test]
fn mistakes_in_kernels() {
    let fixture = Fixture::new();
    let good = fs::read(fixture.path("vmlinuz")).unwrap();
    let error = |kernel: &[u8]| {
        fixture.write("vmlinuz", kernel);
        fixture.error(&with(""))
    };
    let no_note = Elf {
        entry: None,
        ..Elf::default()
    };
    assert_eq!(
        error(&no_note.build()),
        "system.toml:3:10: kernel: \"vmlinuz\": kernel has no PVH entry note (Xen, PHYS32_ENTRY): use a kernel \
         with CONFIG_PVH=y, or add the note to the image"
    );
    assert_eq!(
        error(&good[..good.len() - 100]),
        format!(
            "system.toml:3:10: kernel: \"vmlinuz\": kernel is truncated: its compressed payload ends at byte \
             {}, the file has {}; copy it again",
            good.len() - 16,
            good.len() - 100
        )
    );
    assert_eq!(
        error(b""),
        "system.toml:3:10: kernel: \"vmlinuz\" is empty; copy it again"
    );
    assert_eq!(
        error(b"a text"),
        "system.toml:3:10: kernel: \"vmlinuz\": kernel is neither an ELF file nor a bzImage: give a Linux \
         vmlinuz or vmlinux, or another ELF file with a PVH entry"
    );
}

#[test]
fn mistakes_in_the_whole() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.error(""),
        "system.toml:1:1: domain: missing; add for example `[[domain]]`"
    );
    assert_eq!(
        fixture.error("domain = []"),
        "system.toml:1:1: domain: there are 0 domains; describe 1 to 1024"
    );
    assert_eq!(
        fixture.error("[domain]\nname = \"a\""),
        "system.toml:1:1: domain: expected a list of tables, found a table; start each with `[[domain]]`"
    );
    assert_eq!(
        fixture.error("host = 3\n[[domain]]"),
        "system.toml:1:8: host: expected a table, found the number 3; start it with `[host]`\n\
         system.toml:2:1: name: missing; add for example `name = \"web\"`\n\
         system.toml:2:1: kernel: missing; add for example `kernel = \"debian:cloud\"`\n\
         system.toml:2:1: memory: missing; add for example `memory = \"256M\"`"
    );
    let empty_cache = with("").replace("\"vmlinuz\"", "\"debian:cloud\"");
    fs::remove_dir_all(fixture.path("cache")).unwrap();
    assert_eq!(
        fixture.error(&empty_cache),
        "system.toml:3:10: kernel: there is no \"debian:cloud\", as the cache has no guests; run \
         `cargo xtask setup`"
    );
    let error = fixture.error("[[domain]\nname = \"a\"");
    assert!(error.starts_with("system.toml:1:"), "{error}");
    assert!(error.contains(": not TOML: "), "{error}");
    let error = format!(
        "{:#}",
        pack(Path::new("no.toml"), Guests::none(), Path::new("x")).unwrap_err()
    );
    assert_eq!(
        error,
        "cannot read the system description no.toml; name an existing TOML file: No such file or \
         directory (os error 2)"
    );
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = description::read(&text);
        }

        #[test]
        fn any_values_are_read_or_refused(
            key in prop::sample::select(vec![
                "name", "kernel", "memory", "vcpus", "affinity", "cmdline", "x", "on_reboot",
            ]),
            value in prop::sample::select(vec![
                "1", "-1", "\"\"", "\"1M\"", "\"\u{e9}M\"", "[]", "[1]", "[[1]]", "{}", "{ a = 1 }", "true",
                "1.5", "2026-01-01", "0xffffffffffff", "\"a\\u0000b\"",
            ]),
        ) {
            let _ = description::read(&format!("[[domain]]\n{key} = {value}\n"));
            let _ = description::read(&format!("{key} = {value}\n[[domain]]\n"));
            let _ = description::read(&format!("[host]\n{key} = {value}\n"));
        }
    }
}

#[test]
fn networks_and_interfaces_are_packed() {
    let fixture = Fixture::new();
    let (report, archive) = fixture
        .pack(
            r#"
        [[network]]
        name = "lan"

        [[network]]
        name = "dmz"

        [[domain]]
        name = "web"
        kernel = "kernel.elf"
        memory = "2M"

        [[domain.vif]]
        network = "dmz"
        mac = "02:00:00:00:00:2a"
        more_addresses = 8
        rate = "10M"
        rules = ["allow arp", "allow in tcp port 80"]
        otherwise = "deny"

        [[domain.vif]]
        network = "lan"
    "#,
        )
        .unwrap();
    let archive = Archive::parse(&archive).unwrap();
    let config = archive.config();
    let names: Vec<_> = config.networks.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["lan", "dmz"]);
    let [dmz, lan] = config.domains[0].vifs.as_slice() else {
        panic!("two interfaces");
    };
    assert_eq!((dmz.network, dmz.more_addresses), (1, 8));
    assert_eq!(dmz.mac.to_string(), "02:00:00:00:00:2a");
    let rate = dmz.rate.unwrap();
    assert_eq!((rate.bytes_per_second, rate.burst), (10 << 20, 256 << 10));
    assert_eq!((dmz.rules.len(), dmz.otherwise), (2, Action::Deny));
    assert_eq!(*lan, VifConfig::new(0, "web", 1));
    let told = format!(
        ", 02:00:00:00:00:2a on dmz under 2 rules, {} on lan\n",
        lan.mac
    );
    assert!(report.to_string().contains(&told), "{report}");
}

#[test]
fn mistakes_about_networks_are_told() {
    let fixture = Fixture::new();
    let error = |keys: &str| {
        let lan = "[[network]]\nname = \"lan\"";
        fixture.error(&with(&format!("[[domain.vif]]\n{keys}\n{lan}")))
    };
    for (keys, told) in [
        (
            "mac = \"02:00:00:00:00:01\"",
            "system.toml:5:1: network: missing; add for example `network = \"lan\"`",
        ),
        (
            "network = \"lam\"",
            "system.toml:6:11: network: there is no network \"lam\"; did you mean \"lan\"?",
        ),
        (
            "network = \"storage\"",
            "system.toml:6:11: network: there is no network \"storage\"; describe it by a \
             [[network]] table with `name = \"storage\"`",
        ),
        (
            "network = \"lan\"\nmac = \"01:00:00:00:00:01\"",
            "system.toml:7:7: mac: \"01:00:00:00:00:01\" is no address of an interface; write six \
             pairs of hexadecimal digits, the first an even number, such as \"02:00:00:00:00:01\"",
        ),
        (
            "network = \"lan\"\nmore_addresses = 2000",
            "system.toml:7:18: more_addresses: an interface cannot have 2000 more addresses; give \
             it 0 to 1024",
        ),
        (
            "network = \"lan\"\nrate = \"100\"",
            "system.toml:7:8: rate: \"100\" is no size; write a whole number and K, M, G or T, \
             such as \"256M\"",
        ),
        (
            "network = \"lan\"\nrate = \"1M\"\nburst = \"4K\"",
            "system.toml:8:9: burst: it cannot be \"4K\"; choose 65536 to 4294967296 bytes",
        ),
        (
            "network = \"lan\"\nburst = \"1M\"",
            "system.toml:7:9: burst: there is no burst without a rate; add for example `rate = \
             \"100M\"`",
        ),
        (
            "network = \"lan\"\nrules = [\"allow tcq\"]",
            "system.toml:7:10: rules: \"tcq\" is no word of a rule; did you mean \"tcp\"?",
        ),
        (
            "network = \"lan\"\nmac = \"02:00:00:00:00:01\"\n[[domain.vif]]\nnetwork = \"lan\"\n\
             mac = \"02:00:00:00:00:01\"",
            "system.toml:10:7: mac: another interface on this network has the address \
             02:00:00:00:00:01; give each its own",
        ),
        (
            "network = \"lan\"\n[[network]]\nname = \"lan\"",
            "system.toml:10:8: name: two networks are called \"lan\"; give each its own name",
        ),
    ] {
        assert_eq!(error(keys), told, "{keys}");
    }
}
