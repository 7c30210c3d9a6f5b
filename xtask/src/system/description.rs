//! The description's text, read into values with their places. Knows no files.

use std::ops::RangeInclusive;

use ::system::config::{
    self, End, HostConfig, LogLevel, MAX_CMDLINE, MAX_DOMAINS, MAX_MEMORY_PAGES, MAX_NAME,
    MAX_PCPUS, MAX_VCPUS, MIN_MEMORY_PAGES, MemoryBacking, OnReboot,
};
use ::system::network::{NetworkConfig, VifConfig};
use ::system::quotas::{
    GrantLimits, MAX_EVENT_PORTS, MAX_GRANT_FRAMES, MAX_GRANT_VERSION, MAX_MAPTRACK_FRAMES,
    MAX_TABLE_FRAMES, Quotas,
};
use ::system::share::Share;
use toml::de::DeTable;

use super::disks::{Disk, read_disks};
use super::networks::Networks;
use super::problem::Problem;
use super::table::{Located, Table, nearest};
use crate::features;

/// A description without mistakes of its own; the files it names have not been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) host: HostConfig,
    pub(super) networks: Vec<NetworkConfig>,
    pub(super) domains: Vec<Domain>,
}

/// One `[[domain]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) kernel: Located<String>,
    pub(super) initrd: Option<Located<String>>,
    pub(super) cmdline: String,
    pub(super) memory_pages: Located<u64>,
    pub(super) vcpus: u32,
    pub(super) affinity: Option<Vec<u32>>,
    pub(super) quotas: Quotas,
    pub(super) share: Share,
    pub(super) backing: MemoryBacking,
    pub(super) on_reboot: OnReboot,
    /// Whether a kernel in a slow compression is packed anew.
    pub(super) repack: bool,
    pub(super) disks: Vec<Disk>,
    pub(super) vifs: Vec<VifConfig>,
}

/// Reads a description.
pub(super) fn read(source: &str) -> Result<Description, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(source);
    let syntax = |error: toml::de::Error| Problem {
        at: error.span().map_or(0, |span| span.start),
        key: String::new(),
        text: format!("not TOML: {}", error.message()),
    };
    let mut problems: Vec<Problem> = errors.into_iter().map(syntax).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut root = Table::new(0, table.into_inner());
    let host = root
        .tables("host", "[host]", &mut problems)
        .into_iter()
        .next();
    let host = host.map_or_else(HostConfig::default, |table| read_host(table, &mut problems));
    let mut networks = Networks::read(&mut root, &mut problems);
    let listed = root.require("domain", "[[domain]]", &mut problems);
    let tables = root.tables("domain", "[[domain]]", &mut problems);
    if listed && problems.is_empty() && !(1..=MAX_DOMAINS).contains(&tables.len()) {
        problems.push(Problem {
            at: 0,
            key: "domain".into(),
            text: format!(
                "there are {} domains; describe 1 to {MAX_DOMAINS}",
                tables.len()
            ),
        });
    }
    root.finish(&mut problems);

    let mut names: Vec<String> = Vec::new();
    let mut domains = Vec::new();
    for table in tables {
        domains.extend(read_domain(table, &mut names, &mut networks, &mut problems));
    }
    if problems.is_empty() {
        let networks = networks.configs();
        Ok(Description {
            host,
            networks,
            domains,
        })
    } else {
        Err(problems)
    }
}

fn read_host(mut table: Table<'_>, problems: &mut Vec<Problem>) -> HostConfig {
    let log_level = [
        ("off", LogLevel::Off),
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let ends = [
        ("halt", End::Halt),
        ("reboot", End::Reboot),
        ("poweroff", End::Poweroff),
    ];
    let vmx_mask = read_mask(&mut table, problems);
    let host = HostConfig {
        log_level: table.choice("log_level", &log_level, problems),
        on_panic: table.choice("on_panic", &ends, problems),
        on_idle: table.choice("on_idle", &ends, problems),
        vmx_mask,
    };
    table.finish(problems);
    host
}

/// Names of features to do without. The hypervisor takes them in any case, with `-` or `_`.
fn read_mask(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Vec<String> {
    let mask = table.texts("vmx_mask", r#"vmx_mask = ["ept-1g"]"#, problems);
    let mask = mask.unwrap_or_default();
    for name in &mask {
        let plain = name.value.to_ascii_lowercase().replace('_', "-");
        let text = (!features::names().any(|known| known == plain)).then(|| {
            let remedy = match nearest(features::names(), &plain) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => "docs/hardware.md lists all".to_owned(),
            };
            format!("\"{}\" is no feature of VT-x; {remedy}", name.value)
        });
        check(problems, "vmx_mask", name, text);
    }
    mask.into_iter().map(|name| name.value).collect()
}

/// When memory is zeroed.
const BACKINGS: [(&str, MemoryBacking); 2] = [
    ("on-touch", MemoryBacking::OnTouch),
    ("at-start", MemoryBacking::AtStart),
];
/// What follows a reboot.
const REBOOTS: [(&str, OnReboot); 2] = [("restart", OnReboot::Restart), ("stop", OnReboot::Stop)];

fn read_domain(
    mut table: Table<'_>,
    names: &mut Vec<String>,
    networks: &mut Networks,
    problems: &mut Vec<Problem>,
) -> Option<Domain> {
    let name = required_text(&mut table, "name", r#"name = "web""#, problems);
    let kernel = required_text(&mut table, "kernel", r#"kernel = "debian:cloud""#, problems);
    let memory = required_text(&mut table, "memory", r#"memory = "256M""#, problems);
    let initrd = table.text("initrd", r#"initrd = "initrd.img""#, problems);
    let cmdline = table.text("cmdline", r#"cmdline = "console=hvc0""#, problems);
    let max_memory = table.text("max_memory", r#"max_memory = "512M""#, problems);
    let backing = table.choice("backing", &BACKINGS, problems);
    let vcpus = table.number("vcpus", "vcpus = 2", problems);
    let event_ports = table.number("event_ports", "event_ports = 1023", problems);
    let table_frames = table.number("page_table_frames", "page_table_frames = 768", problems);
    let affinity = table.numbers("affinity", "affinity = [0, 1]", problems);
    let share = read_share(&mut table, problems);
    let on_reboot = table.choice("on_reboot", &REBOOTS, problems);
    let grants = read_grant_limits(&mut table, problems);
    let repack = table.boolean("repack", "repack = false", problems);
    let disks = read_disks(&mut table, problems);
    let own_name = name.as_ref().map_or("", |name| &name.value);
    let vifs = networks.read_vifs(&mut table, own_name, problems);
    table.finish(problems);

    if let Some(name) = &name {
        check(problems, "name", name, name_problem(&name.value, names));
        names.push(name.value.clone());
    }
    if let Some(cmdline) = &cmdline {
        check(
            problems,
            "cmdline",
            cmdline,
            cmdline_problem(&cmdline.value),
        );
    }
    if let Some(vcpus) = &vcpus {
        check(problems, "vcpus", vcpus, vcpus_problem(vcpus.value));
    }
    if let Some(affinity) = &affinity {
        check(
            problems,
            "affinity",
            affinity,
            affinity_problem(&affinity.value),
        );
    }
    let memory_pages = memory.and_then(|memory| read_pages("memory", &memory, problems));
    let vcpus = vcpus.map_or(1, |vcpus| vcpus.value);
    let memory = memory_pages.as_ref().map_or(0, |pages| pages.value);
    let max_memory_pages = read_max_memory(max_memory.as_ref(), memory, problems);
    let quotas = read_quotas(
        (vcpus, memory, max_memory_pages),
        event_ports.as_ref(),
        table_frames.as_ref(),
        problems,
    );
    Some(Domain {
        name: name?.value,
        kernel: kernel?,
        initrd,
        cmdline: cmdline.map(|cmdline| cmdline.value).unwrap_or_default(),
        memory_pages: memory_pages?,
        vcpus,
        quotas: Quotas { grants, ..quotas },
        affinity: affinity.map(|affinity| affinity.value),
        share,
        backing,
        on_reboot,
        repack: repack.is_none_or(|repack| repack.value),
        disks,
        vifs,
    })
}

fn read_pages(
    key: &str,
    size: &Located<String>,
    problems: &mut Vec<Problem>,
) -> Option<Located<u64>> {
    match pages(&size.value) {
        Ok(value) => Some(Located { value, at: size.at }),
        Err(text) => {
            check(problems, key, size, Some(text));
            None
        }
    }
}

/// The most memory, which is what there is at the start unless more is asked for.
fn read_max_memory(
    size: Option<&Located<String>>,
    memory: u64,
    problems: &mut Vec<Problem>,
) -> u64 {
    let Some(size) = size else { return memory };
    let Some(most) = read_pages("max_memory", size, problems) else {
        return memory;
    };
    let less = (most.value < memory).then(|| {
        format!(
            "\"{}\" is less than the memory at the start; give it as much or more, or leave the \
             key out",
            size.value
        )
    });
    check(problems, "max_memory", &most, less);
    most.value
}

/// The limits of what the guest can make the hypervisor set aside, for a domain with so many
/// vCPUs, pages at the start and pages at most.
fn read_quotas(
    (vcpus, memory, max_memory): (u32, u64, u64),
    event_ports: Option<&Located<u32>>,
    table_frames: Option<&Located<u32>>,
    problems: &mut Vec<Problem>,
) -> Quotas {
    let mut quotas = Quotas::usual(vcpus, max_memory);
    if let Some(ports) = event_ports {
        let good = (1..=MAX_EVENT_PORTS).contains(&ports.value);
        let problem = (!good).then(|| {
            format!(
                "a domain cannot have {} event ports; give it 1 to {MAX_EVENT_PORTS}",
                ports.value
            )
        });
        check(problems, "event_ports", ports, problem);
        quotas.event_ports = ports.value;
    }
    if let Some(frames) = table_frames {
        let least = Quotas::least_table_frames(vcpus, memory);
        let good = (least..=MAX_TABLE_FRAMES).contains(&frames.value);
        let problem = (!good).then(|| {
            format!(
                "this domain cannot have {} page-table frames; give it {least} to \
                 {MAX_TABLE_FRAMES}, or leave the key out",
                frames.value
            )
        });
        check(problems, "page_table_frames", frames, problem);
        quotas.table_frames = frames.value;
    }
    quotas
}

/// A domain's claim on CPU time.
fn read_share(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> Share {
    let default = Share::default();
    let mut places = Vec::new();
    let mut number = |key, example, otherwise| {
        let value = table.number(key, example, problems);
        places.extend(value.as_ref().map(|value| (key, value.at)));
        value.map_or(otherwise, |value| value.value)
    };
    let share = Share {
        weight: number("weight", "weight = 512", default.weight),
        warp: number("warp", "warp = 10000", default.warp),
        warp_limit: number("warp_limit", "warp_limit = 5000", default.warp_limit),
        unwarp: number("unwarp", "unwarp = 50000", default.unwarp),
    };
    if let Some((key, text)) = share.mistake() {
        let place = places.iter().find(|(name, _)| *name == key);
        problems.push(Problem {
            at: place.map_or(0, |(_, at)| *at),
            key: key.into(),
            text,
        });
    }
    share
}

fn read_grant_limits(table: &mut Table<'_>, problems: &mut Vec<Problem>) -> GrantLimits {
    let usual = GrantLimits::default();
    let mut limit = |key, range: RangeInclusive<u32>, usual: u32| {
        let Some(number) = table.number(key, &format!("{key} = {usual}"), problems) else {
            return usual;
        };
        let text = (!range.contains(&number.value)).then(|| {
            let (least, most) = range.into_inner();
            format!("it cannot be {}; choose {least} to {most}", number.value)
        });
        check(problems, key, &number, text);
        number.value
    };
    GrantLimits {
        max_version: limit(
            "max_grant_version",
            1..=MAX_GRANT_VERSION,
            usual.max_version,
        ),
        max_frames: limit("max_grant_frames", 1..=MAX_GRANT_FRAMES, usual.max_frames),
        max_maptrack_frames: limit(
            "max_maptrack_frames",
            0..=MAX_MAPTRACK_FRAMES,
            usual.max_maptrack_frames,
        ),
    }
}

pub(super) fn required_text(
    table: &mut Table<'_>,
    key: &'static str,
    example: &str,
    problems: &mut Vec<Problem>,
) -> Option<Located<String>> {
    table.require(key, example, problems);
    table.text(key, example, problems)
}

pub(super) fn check<T>(
    problems: &mut Vec<Problem>,
    key: &str,
    value: &Located<T>,
    problem: Option<String>,
) {
    problems.extend(problem.map(|text| Problem {
        at: value.at,
        key: key.into(),
        text,
    }));
}

fn name_problem(name: &str, others: &[String]) -> Option<String> {
    if !config::is_valid_name(name) {
        return Some(format!(
            "\"{name}\" is no name for a domain; use 1 to {MAX_NAME} letters, digits, '-', '_', '.'"
        ));
    }
    let twice = others.iter().any(|other| other == name);
    twice.then(|| format!("two domains are called \"{name}\"; give each its own name"))
}

fn cmdline_problem(cmdline: &str) -> Option<String> {
    let bad = cmdline.len() > MAX_CMDLINE || cmdline.contains('\0');
    bad.then(|| {
        format!(
            "the command line has {} bytes; at most {MAX_CMDLINE} fit, without a NUL",
            cmdline.len()
        )
    })
}

fn vcpus_problem(vcpus: u32) -> Option<String> {
    let good = (1..=MAX_VCPUS).contains(&vcpus);
    (!good).then(|| format!("a domain cannot have {vcpus} vCPUs; give it 1 to {MAX_VCPUS}"))
}

fn affinity_problem(pcpus: &[u32]) -> Option<String> {
    if pcpus.is_empty() {
        return Some("there is no CPU to run on; name one, or leave the key out".into());
    }
    let beyond = pcpus.iter().find(|&&pcpu| pcpu >= MAX_PCPUS)?;
    let last = MAX_PCPUS - 1;
    Some(format!(
        "there is no CPU {beyond}; the numbers go from 0 to {last}"
    ))
}

/// Bytes of a size with a unit; `None` when they are too many to count.
pub(super) fn bytes(size: &str) -> Result<Option<u64>, String> {
    let malformed = || {
        format!("\"{size}\" is no size; write a whole number and K, M, G or T, such as \"256M\"")
    };
    let shift = match size.chars().last() {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => return Err(malformed()),
    };
    let digits = &size[..size.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let number = digits.parse::<u64>().ok();
    Ok(number.and_then(|number| number.checked_mul(1 << shift)))
}

/// Pages of 4 KiB from a size with a unit.
fn pages(size: &str) -> Result<u64, String> {
    let range = MIN_MEMORY_PAGES..=MAX_MEMORY_PAGES;
    match bytes(size)? {
        Some(bytes) if range.contains(&(bytes >> 12)) && bytes % 4096 == 0 => Ok(bytes >> 12),
        Some(bytes) if bytes % 4096 != 0 => Err(format!(
            "\"{size}\" is no whole number of pages; write a multiple of 4K"
        )),
        _ => Err(format!(
            "a domain cannot have \"{size}\" of memory; give it 1M to 1T"
        )),
    }
}
