//! How domains share the machine's CPUs: what each reports of its own running, against the ideal.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::micro::{self, Guest};
use super::{Case, Scenario, Tier};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "sched-one-cpu",
        tier: Tier::Bochs,
        about: "three busy domains of weights 1:2:4 on one CPU: shares within 1 %",
        limit: Duration::from_secs(240),
        run: one_cpu,
    },
    Scenario {
        name: "sched-two-cpus",
        tier: Tier::Bochs,
        about: "three equal busy domains on two CPUs: two thirds of a CPU each, within 1 %",
        limit: Duration::from_secs(240),
        run: two_cpus,
    },
    Scenario {
        name: "sched-heavy",
        tier: Tier::Bochs,
        about: "weights 1:2:4 on two CPUs: the heaviest has one for itself",
        limit: Duration::from_secs(240),
        run: heavy,
    },
    Scenario {
        name: "sched-wakes",
        tier: Tier::Bochs,
        about: "beside two busy domains, a warped waker runs at once and a sleeper earns nothing",
        limit: Duration::from_secs(240),
        run: wakes,
    },
    Scenario {
        name: "sched-spin",
        tier: Tier::Bochs,
        about: "beside a busy domain, a vCPU that spins with PAUSE lets its sibling run",
        limit: Duration::from_secs(120),
        run: spin,
    },
    Scenario {
        name: "sched-leftovers",
        tier: Tier::Bochs,
        about: "a guest that never lets the xenstore rest leaves the boot CPU's guest most of its time",
        limit: Duration::from_secs(120),
        run: leftovers,
    },
    Scenario {
        name: "sched-long-work",
        tier: Tier::Bochs,
        about: "a guest that touches all its memory and restarts holds nobody up",
        limit: Duration::from_secs(120),
        run: long_work,
    },
];

/// How often a busy domain reports, and how often in all.
const PERIOD_NS: f64 = 500e6;
const REPORTS: &str = "reports=10";

/// A busy domain.
const fn busy(name: &'static str, keys: &'static str) -> Guest {
    Guest {
        name,
        cmdline: REPORTS,
        keys,
        ..Guest::new("share")
    }
}

/// One report of a busy domain.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Report {
    /// When it was made, in nanoseconds: later than it was due, if the domain had to wait then.
    made: f64,
    running: f64,
    runnable: f64,
    work: f64,
}

/// The reports of a domain, by the host's clock.
fn reports<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeMap<u64, Report> {
    let read = |line: &str| {
        let words: BTreeMap<_, _> = line
            .strip_prefix("share: ")?
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .collect();
        let number = |key: &str| words.get(key)?.parse::<u64>().ok();
        let report = Report {
            made: number("us")? as f64 * 1000.0,
            running: number("running")? as f64,
            runnable: number("runnable")? as f64,
            work: number("work")? as f64,
        };
        Some((number("at")?, report))
    };
    lines.into_iter().filter_map(read).collect()
}

/// What a domain did in the time that all have reported about.
#[derive(Debug, Clone, Copy)]
struct Had {
    /// Parts of a CPU.
    ran: f64,
    /// The part of the time that it ran or waited.
    told: f64,
    /// Work for each nanosecond it ran.
    pace: f64,
}

/// What each of the domains had between the second report that all made and the last.
fn window(all: &[BTreeMap<u64, Report>]) -> Result<Vec<Had>> {
    let first = all.iter().filter_map(|one| one.keys().next()).max();
    let last = all.iter().filter_map(|one| one.keys().last()).min();
    let (first, last) = first.zip(last).context("no reports")?;
    let first = first + 1;
    ensure!(*last >= first + 6, "the domains did not run together");
    let length = (last - first) as f64 * PERIOD_NS;
    all.iter()
        .map(|one| {
            let (begin, end) = one.get(&first).zip(one.get(last)).context("a report")?;
            let ran = end.running - begin.running;
            let waited = end.runnable - begin.runnable;
            Ok(Had {
                ran: ran / length,
                told: (ran + waited) / (end.made - begin.made),
                pace: (end.work - begin.work) / ran,
            })
        })
        .collect()
}

/// Boots busy domains and compares what they had with what is ideal, in parts of a CPU.
fn compare(case: &Case<'_>, cpus: u32, guests: &[Guest], ideal: &[f64]) -> Result<()> {
    let said = micro::boot(case, cpus, guests)?;
    micro::passed(&said, guests)?;
    let reports: Vec<_> = guests
        .iter()
        .map(|guest| reports(said.lines_of(guest.name, guests[0].name)))
        .collect();
    check(&window(&reports)?, ideal)
}

fn check(all: &[Had], ideal: &[f64]) -> Result<()> {
    let paces = all.iter().map(|had| had.pace);
    let mean = paces.sum::<f64>() / all.len() as f64;
    for (had, ideal) in all.iter().zip(ideal) {
        ensure!(
            (had.ran - ideal).abs() < 0.01,
            "a domain ran {:.4} of the time, not {ideal:.4}: {all:?}",
            had.ran
        );
        ensure!(
            (had.told - 1.0).abs() < 0.001,
            "a domain ran and waited {:.4} of the time: {all:?}",
            had.told
        );
        ensure!(
            (had.pace / mean - 1.0).abs() < 0.01,
            "the work done and the time told do not agree: {all:?}"
        );
    }
    Ok(())
}

/// A domain that wakes again and again, and then runs at once for as long as it needs.
const WAKER: Guest = Guest {
    keys: "warp = 10000\nwarp_limit = 2000\nunwarp = 5000",
    ..Guest::new("waker")
};

const WEIGHTED: [Guest; 3] = [
    busy("light", "weight = 100"),
    busy("middle", "weight = 200"),
    busy("weighty", "weight = 400"),
];

fn one_cpu(case: &Case<'_>) -> Result<()> {
    compare(case, 1, &WEIGHTED, &[1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0])
}

fn two_cpus(case: &Case<'_>) -> Result<()> {
    let equal = [busy("first", ""), busy("second", ""), busy("third", "")];
    compare(case, 2, &equal, &[2.0 / 3.0; 3])
}

fn heavy(case: &Case<'_>) -> Result<()> {
    compare(case, 2, &WEIGHTED, &[1.0 / 3.0, 2.0 / 3.0, 1.0])
}

fn wakes(case: &Case<'_>) -> Result<()> {
    let spinner = Guest {
        cmdline: "ms=2000",
        ..Guest::new("spinner")
    };
    let guests = [
        Guest {
            name: "busy",
            ..spinner
        },
        Guest {
            name: "busy-too",
            ..spinner
        },
        Guest {
            cmdline: "share=333",
            ..Guest::new("sleeper")
        },
        // The last one, so that it does not wait for the building of another between two breaks.
        Guest {
            cmdline: "late=250",
            ..WAKER
        },
    ];
    micro::all_pass(case, 1, &guests)
}

fn spin(case: &Case<'_>) -> Result<()> {
    let busy = Guest {
        name: "busy",
        cmdline: "ms=1000",
        ..Guest::new("spinner")
    };
    micro::all_pass(case, 1, &[Guest::smp("baton"), busy])
}

fn leftovers(case: &Case<'_>) -> Result<()> {
    let chatter = Guest {
        cmdline: "ms=3000",
        keys: "affinity = [1]",
        ..Guest::new("chatter")
    };
    let worker = Guest {
        name: "worker",
        cmdline: "reports=4",
        keys: "affinity = [0]",
        ..Guest::new("share")
    };
    let said = micro::boot(case, 2, &[chatter, worker])?;
    micro::passed(&said, &[chatter, worker])?;
    let reports = reports(said.lines_of(worker.name, chatter.name));
    let (_, last) = reports.last_key_value().context("no reports")?;
    // Beside a chatter that wins it waits for all of the three seconds, and then runs for two.
    ensure!(
        last.runnable < last.running / 2.0,
        "the worker ran for {} ns and waited for {} ns",
        last.running,
        last.runnable
    );
    Ok(())
}

fn long_work(case: &Case<'_>) -> Result<()> {
    let guests = [
        Guest {
            // 30,000 instructions, beside the 5.2 ms that 2 MiB take.
            cmdline: "late=600 wakes=200",
            ..WAKER
        },
        Guest {
            memory_mib: 256,
            on_reboot: "restart",
            cmdline: "mib=256 ms=1050 last=4",
            ..Guest::new("toucher")
        },
        Guest {
            cmdline: "ms=2000",
            keys: "[[domain.disk]]\nname = \"xvda\"\nsize = \"4M\"",
            ..Guest::new("disk_load")
        },
    ];
    micro::all_pass(case, 1, &guests)
}

#[cfg(test)]
mod tests {
    use super::{check, reports, window};

    /// A domain that runs this part of the time, from this half second on.
    fn lines(part: f64, from: u64) -> String {
        let line = |at: u64| {
            let us = at * 500_000;
            let ran = (at - from) as f64 * 500e6 * part;
            let waited = (at - from) as f64 * 500e6 - ran;
            format!("share: at={at} us={us} running={ran:.0} runnable={waited:.0} work={ran:.0}\n")
        };
        (from..from + 10).map(line).collect()
    }

    #[test]
    fn shares_are_taken_where_all_have_run() {
        let all = [lines(0.25, 3), lines(0.75, 4)];
        let all: Vec<_> = all.iter().map(|text| reports(text.lines())).collect();
        let had = window(&all).unwrap();
        check(&had, &[0.25, 0.75]).unwrap();
        check(&had, &[0.27, 0.73]).unwrap_err();
    }

    #[test]
    fn domains_that_hardly_met_are_no_measurement() {
        let all = [lines(0.5, 3), lines(0.5, 10)];
        let all: Vec<_> = all.iter().map(|text| reports(text.lines())).collect();
        window(&all).unwrap_err();
        window(&[]).unwrap_err();
    }
}
