//! The lines for programs that a run leaves on the serial line, read into figures.
//!
//! * `bench: NAME=MEDIAN min=MIN`, from the micro-guest
//! * `boot: dom=NAME since_entry=N ...`, from the hypervisor, when a domain is built
//! * `stats: dom=NAME vcpu=N exit=REASON count=N ...`, when a domain has ended
//! * `stats: frames total=N ...`, when the run ends

use std::collections::BTreeMap;

use serde::Serialize;

/// How long an operation takes a guest, there and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RoundTrip {
    pub(super) name: String,
    pub(super) median: u64,
    pub(super) min: u64,
}

/// What one exit reason came to over all vCPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Exit {
    pub(crate) reason: String,
    pub(crate) count: u64,
    pub(crate) root_median: u64,
    pub(crate) root_max: u64,
    pub(crate) vmreads: u64,
    pub(crate) vmwrites: u64,
    /// VMREADs and VMWRITEs outside the set KVM shadows for a nested hypervisor.
    pub(crate) unshadowed: u64,
}

/// Named numbers of one line.
pub(super) type Numbers = BTreeMap<String, u64>;

/// The `key=value` words of a line behind its `mark`; nothing for other lines.
fn words<'a>(line: &'a str, mark: &str) -> Option<Vec<(&'a str, &'a str)>> {
    let (_, rest) = line.split_once(mark)?;
    Some(
        rest.split_whitespace()
            .filter_map(|word| word.split_once('='))
            .collect(),
    )
}

fn numbers(words: &[(&str, &str)]) -> Numbers {
    let number = |(key, value): &(&str, &str)| Some(((*key).to_owned(), value.parse().ok()?));
    words.iter().filter_map(number).collect()
}

/// The micro-guest's measurements, in its order.
pub(super) fn round_trips<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<RoundTrip> {
    lines
        .filter_map(|line| {
            let words = words(line, "bench: ")?;
            let &(name, median) = words.first()?;
            let min = words.iter().find(|(key, _)| *key == "min")?.1;
            Some(RoundTrip {
                name: name.to_owned(),
                median: median.parse().ok()?,
                min: min.parse().ok()?,
            })
        })
        .collect()
}

/// The first domain's way to its first instruction, and its name.
pub(super) fn boot<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<(String, Numbers)> {
    lines.find_map(|line| {
        let words = words(line, " boot: ").filter(|words| !words.is_empty())?;
        let name = words.iter().find(|(key, _)| *key == "dom")?.1;
        Some((name.to_owned(), numbers(&words)))
    })
}

/// The frames at the end of the run.
pub(super) fn frames<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Numbers> {
    lines.find_map(|line| Some(numbers(&words(line, "stats: frames ")?)))
}

/// All exits by reason, the most frequent first.
pub(crate) fn exits<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Exit> {
    let mut all: BTreeMap<String, Exit> = BTreeMap::new();
    for line in lines {
        let Some(words) = words(line, "stats: ") else {
            continue;
        };
        let Some(&(_, reason)) = words.iter().find(|(key, _)| *key == "exit") else {
            continue;
        };
        let numbers = numbers(&words);
        let of = |key: &str| numbers.get(key).copied().unwrap_or(0);
        let exit = all.entry(reason.to_owned()).or_default();
        exit.reason = reason.to_owned();
        // The median over several vCPUs is that of the one with most of these exits.
        if of("count") >= exit.count {
            exit.root_median = of("root_median");
        }
        exit.count += of("count");
        exit.root_max = exit.root_max.max(of("root_max"));
        exit.vmreads += of("vmread");
        exit.vmwrites += of("vmwrite");
        exit.unshadowed += of("unshadowed");
    }
    let mut exits: Vec<Exit> = all.into_values().collect();
    exits.sort_by_key(|exit| std::cmp::Reverse(exit.count));
    exits
}

#[cfg(test)]
mod tests {
    use super::{boot, exits, frames, round_trips};

    const RUN: &str = "\
[    0.05] vmm_core: boot: dom=bench since_entry=2873852 build=2050540 copied_bytes=22703
[    0.00] boot: memory: 1048124 KiB usable
bench: timing_overhead=2
bench: xen_version=143 min=140
[    2.0] vmm_core: stats: dom=debian vcpu=0 exit=vmcall count=10 root_median=80 root_max=900 vmread=30 vmwrite=10 unshadowed=0
[    2.0] vmm_core: stats: dom=debian vcpu=1 exit=vmcall count=5 root_median=90 root_max=70 vmread=15 vmwrite=5 unshadowed=1
[    2.0] vmm_core: stats: dom=debian vcpu=0 exit=hlt count=40 root_median=8 root_max=9 vmread=0 vmwrite=0 unshadowed=0
[    3.7] vmm_core: stats: frames total=130312 free=129964 hypervisor=93 adds_up=true
";

    #[test]
    fn measurements_are_read() {
        let trips = round_trips(RUN.lines());
        assert_eq!(trips.len(), 1);
        assert_eq!(
            (trips[0].name.as_str(), trips[0].median, trips[0].min),
            ("xen_version", 143, 140)
        );
    }

    #[test]
    fn boot_and_frames_are_read() {
        let (name, numbers) = boot(RUN.lines()).unwrap();
        assert_eq!(
            (name.as_str(), numbers["since_entry"]),
            ("bench", 2_873_852)
        );
        assert_eq!(frames(RUN.lines()).unwrap()["hypervisor"], 93);
    }

    #[test]
    fn exits_add_up_over_vcpus() {
        let exits = exits(RUN.lines());
        assert_eq!(exits[0].reason, "hlt");
        let vmcall = &exits[1];
        assert_eq!(
            (vmcall.count, vmcall.root_median, vmcall.root_max),
            (15, 80, 900)
        );
        assert_eq!(
            (vmcall.vmreads, vmcall.vmwrites, vmcall.unshadowed),
            (45, 15, 1)
        );
    }
}
