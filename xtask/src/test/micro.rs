//! Micro-guests: many behaviours in one boot, each guest's last line its verdict.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::transcript::Transcript;
use super::{Artifacts, Case, Scenario, Script, Tier};
use crate::machine::{Boot, Kind, Spec};
use crate::setup;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "guests",
        tier: Tier::Bochs,
        about: "twenty-three micro-guests at once on one CPU: CPUID, MSRs, I/O, hypercalls, events, ...",
        limit: Duration::from_secs(180),
        run: together,
    },
    Scenario {
        name: "guests-smp",
        tier: Tier::Bochs,
        about: "two vCPUs on two CPUs: start-up, IPIs, FPU state beside each other",
        limit: Duration::from_secs(180),
        run: two_cpus,
    },
    Scenario {
        name: "matrix-27-smp",
        tier: Tier::Matrix,
        about: "the same on the packaged Bochs 2.7",
        limit: Duration::from_secs(600),
        run: two_cpus_packaged,
    },
    Scenario {
        name: "guests-grants",
        tier: Tier::Bochs,
        about: "a vCPU on each of two CPUs: none sees a grant that another one has unmapped",
        limit: Duration::from_secs(120),
        run: grants,
    },
    Scenario {
        name: "guests-fuzz",
        tier: Tier::Bochs,
        about: "100,000 random calls and accesses, from a seed, beside a witness",
        limit: Duration::from_secs(600),
        run: fuzz,
    },
    Scenario {
        name: "guests-pairs",
        tier: Tier::Bochs,
        about: "two domains and their channels",
        limit: Duration::from_secs(120),
        run: pairs,
    },
    Scenario {
        name: "guests-giant",
        tier: Tier::Bochs,
        about: "memory zeroed at the start, in a page of 1 GiB that is split, given back and had again",
        limit: Duration::from_secs(240),
        run: giant,
    },
    Scenario {
        name: "guests-balloon",
        tier: Tier::Bochs,
        about: "a domain that gives memory, and one that takes all there is",
        limit: Duration::from_secs(120),
        run: balloon,
    },
    Scenario {
        name: "guests-time",
        tier: Tier::Bochs,
        about: "clock, wall clock and timers, alone on the machine",
        limit: Duration::from_secs(120),
        run: time,
    },
    Scenario {
        name: "guests-ends",
        tier: Tier::Bochs,
        about: "crash, triple fault, reboot and forbidden access end their own domain only",
        limit: Duration::from_secs(180),
        run: ends,
    },
    Scenario {
        name: "one-cpu-two-vcpus",
        tier: Tier::Bochs,
        about: "two vCPUs share one CPU beside a guest that never yields",
        limit: Duration::from_secs(180),
        run: crowded,
    },
];

/// One domain of a test's system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    /// The domain's name.
    pub(super) name: &'static str,
    /// The micro-guest's program.
    pub(super) program: &'static str,
    pub(super) vcpus: u32,
    pub(super) memory_mib: u32,
    pub(super) on_reboot: &'static str,
    pub(super) cmdline: &'static str,
    /// Further lines of its description.
    pub(super) keys: &'static str,
}

impl Guest {
    pub(super) const fn new(program: &'static str) -> Self {
        Self {
            name: program,
            program,
            vcpus: 1,
            memory_mib: 16,
            on_reboot: "stop",
            cmdline: "",
            keys: "",
        }
    }

    pub(super) const fn smp(program: &'static str) -> Self {
        Self {
            vcpus: 2,
            ..Self::new(program)
        }
    }
}

/// A description with these domains.
pub(super) fn description(artifacts: &Artifacts, guests: &[Guest]) -> String {
    let mut toml = String::new();
    for Guest {
        name,
        program,
        vcpus,
        memory_mib,
        on_reboot,
        cmdline,
        keys,
    } in guests
    {
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "[[domain]]\nname = {name:?}\nkernel = {:?}\nmemory = \"{memory_mib}M\"\n\
             vcpus = {vcpus}\ncmdline = {cmdline:?}\non_reboot = {on_reboot:?}\n{keys}\n",
            artifacts.guest(program).display().to_string(),
        );
    }
    toml
}

pub(super) fn boot(case: &Case<'_>, cpus: u32, guests: &[Guest]) -> Result<Transcript> {
    Script::for_case(case, &machine(case, cpus, guests)?)?.finish()
}

fn machine(case: &Case<'_>, cpus: u32, guests: &[Guest]) -> Result<Spec> {
    let toml = description(case.artifacts, guests);
    let iso = case.artifacts.iso(case.scenario.name, &toml)?;
    Ok(Spec {
        cpus,
        memory_mib: 512,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    })
}

/// Checks the verdict of each guest and gathers all failures.
pub(super) fn verdicts(said: &Transcript, shown: &str, guests: &[Guest]) -> Result<()> {
    let failures: Vec<String> = guests
        .iter()
        .filter_map(|guest| verdict(said, shown, guest.name).err())
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn verdict(said: &Transcript, shown: &str, name: &str) -> Result<()> {
    let lines = said.lines_of(name, shown);
    let verdict = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("verdict: "));
    let verdict = verdict.with_context(|| format!("{name} came to no verdict"))?;
    ensure!(verdict.starts_with("pass"), "{name}: {verdict}");
    Ok(())
}

/// Checks that all guests passed, powered off by themselves and the run ended well.
pub(super) fn all_pass(case: &Case<'_>, cpus: u32, guests: &[Guest]) -> Result<()> {
    passed(&boot(case, cpus, guests)?, guests)
}

pub(super) fn passed(said: &Transcript, guests: &[Guest]) -> Result<()> {
    let shown = guests.first().map_or("", |guest| guest.name);
    verdicts(said, shown, guests)?;
    for guest in guests {
        said.line_with(&[guest.name, "shut down: poweroff"])?;
    }
    said.ended_well()
}

/// Guests that use each other's pages. Domain ids are given in this order, from 1 on.
pub(super) const GRANTS: [Guest; 3] = [
    Guest {
        cmdline: "peer=2 leaver=3",
        ..Guest::new("grantor")
    },
    Guest {
        cmdline: "peer=1",
        ..Guest::new("grantee")
    },
    Guest {
        cmdline: "peer=1",
        ..Guest::new("leaver")
    },
];

fn together(case: &Case<'_>) -> Result<()> {
    let alone = Guest {
        cmdline: "vcpus=1",
        ..Guest::new("fpu")
    };
    let [grantor, grantee, leaver] = GRANTS;
    let guests = [
        grantor,
        grantee,
        leaver,
        Guest::new("hello"),
        Guest::new("cpuid"),
        Guest::new("msr"),
        Guest::new("io"),
        Guest::new("hypercalls"),
        Guest::new("narrow"),
        Guest::new("hypercall_page"),
        Guest::new("events"),
        Guest::new("fifo"),
        Guest::new("shared_info"),
        Guest::new("memory_ops"),
        Guest::new("xenstore"),
        Guest {
            cmdline: "cycles=100",
            keys: "[[domain.disk]]\nname = \"xvda\"\nsize = \"2M\"",
            ..Guest::new("vbd")
        },
        Guest {
            keys: "[[domain.vif]]\nnetwork = \"lan\"\n[[domain.vif]]\nnetwork = \"lan\"\n\
                   [[network]]\nname = \"lan\"\n",
            ..Guest::new("vif")
        },
        Guest {
            keys: "[[domain.disk]]\nname = \"xvda\"\nsize = \"2M\"\n\
                   [[domain.vif]]\nnetwork = \"own\"\n[[domain.vif]]\nnetwork = \"own\"\n\
                   [[network]]\nname = \"own\"\n",
            ..Guest::new("front_ends")
        },
        Guest::new("exceptions"),
        Guest::new("debug"),
        Guest {
            cmdline: "mark=1",
            ..Guest::new("branches")
        },
        Guest {
            name: "branches2",
            cmdline: "mark=2",
            ..Guest::new("branches")
        },
        Guest::new("rights"),
        Guest::new("apic"),
        Guest::new("timer_storm"),
        alone,
    ];
    all_pass(case, 1, &guests)
}

const SMP: [Guest; 3] = [Guest::smp("ipi"), Guest::smp("vcpu_up"), Guest::smp("fpu")];

fn two_cpus(case: &Case<'_>) -> Result<()> {
    all_pass(case, 2, &SMP)
}

fn two_cpus_packaged(case: &Case<'_>) -> Result<()> {
    let there = setup::ensure_packaged_bochs(case.artifacts.workspace())?;
    ensure!(there, "only Debian has the packaged Bochs");
    let spec = Spec {
        packaged_bochs: true,
        ..machine(case, 2, &SMP)?
    };
    passed(&Script::for_case(case, &spec)?.finish()?, &SMP)
}

fn grants(case: &Case<'_>) -> Result<()> {
    all_pass(case, 2, &[Guest::smp("grant_race")])
}

/// A guest that does anything, beside one that looks after itself; `--seed` has it do something
/// else.
fn fuzz(case: &Case<'_>) -> Result<()> {
    let hostile = Guest {
        // A domain's description is a constant everywhere else.
        cmdline: format!("seed={} peer=1", case.seed).leak(),
        ..Guest::smp("hostile")
    };
    let witness = Guest {
        cmdline: "peer=2",
        ..Guest::new("witness")
    };
    let said = boot(case, 2, &[witness, hostile])?;
    // It may have chosen any reason for its end.
    verdicts(&said, "witness", &[witness, hostile])?;
    said.line_with(&["witness", "shut down: poweroff"])?;
    said.ended_well()
}

const fn one_of(
    name: &'static str,
    program: &'static str,
    cmdline: &'static str,
    keys: &'static str,
) -> Guest {
    Guest {
        name,
        cmdline,
        keys,
        ..Guest::new(program)
    }
}

fn pairs(case: &Case<'_>) -> Result<()> {
    let guests = [
        one_of("here", "interdomain", "first=1 peer=2", ""),
        one_of("there", "interdomain", "peer=1", ""),
    ];
    all_pass(case, 2, &guests)
}

/// Alone on the machine: what others give back when they end would be more to take.
fn balloon(case: &Case<'_>) -> Result<()> {
    let guests = [
        one_of("giver", "balloon", "first=1 peer=2", ""),
        one_of("taker", "balloon", "peer=1", "max_memory = \"1G\""),
    ];
    all_pass(case, 2, &guests)
}

/// The most instructions that a change in the midst of a large page may take, and an access to
/// memory that was there from the start.
const MOST_TICKS: u64 = 20_000;

/// A domain with a page of 1 GiB, twice: the second one gets the frames that the first one had.
fn giant(case: &Case<'_>) -> Result<()> {
    let guest = Guest {
        memory_mib: 2048,
        cmdline: "mib=2048 last=2",
        on_reboot: "restart",
        keys: "backing = \"at-start\"",
        ..Guest::new("giant")
    };
    let spec = Spec {
        memory_mib: 2304,
        ..machine(case, 1, &[guest])?
    };
    let said = Script::for_case(case, &spec)?.finish()?;
    said.ended_well()?;
    // The second life's lines bear no name: the console shows the log from the first one's end on.
    let wrong = said.lines().find(|line| line.contains("not so: "));
    ensure!(wrong.is_none(), "{}", wrong.unwrap_or_default());
    for words in ["shut down: reboot", "verdict: pass", "shut down: poweroff"] {
        said.line_with(&[words])?;
    }
    let built = said.lines().filter(|line| line.contains("boot: dom=giant"));
    let built: Vec<&str> = built.collect();
    ensure!(built.len() == 2, "it was built {} times", built.len());
    for line in built {
        // Of the other GiB the hypervisor has a part.
        ensure!(line.contains("pages_1g=1 "), "no page of 1 GiB: {line}");
    }
    for what in ["worst access ", "split "] {
        let ticks = said.lines().filter_map(|line| {
            let (_, ticks) = line.split_once(what)?;
            ticks.strip_suffix(" ticks")?.parse().ok()
        });
        let ticks: Vec<u64> = ticks.collect();
        let good = ticks.len() == 2 && ticks.iter().all(|ticks| *ticks < MOST_TICKS);
        ensure!(good, "{what}took {ticks:?} instructions");
    }
    Ok(())
}

fn crowded(case: &Case<'_>) -> Result<()> {
    let spinner = Guest {
        cmdline: "ms=400",
        ..Guest::new("spinner")
    };
    all_pass(case, 1, &[spinner, Guest::smp("fpu"), Guest::smp("ipi")])
}

fn time(case: &Case<'_>) -> Result<()> {
    all_pass(case, 1, &[Guest::new("timer")])
}

/// How each of the ending guests ends: its name, and words of the hypervisor's line about it.
pub(super) const ENDINGS: [(Guest, &[&str]); 6] = [
    (Guest::new("triple_fault"), &["triple"]),
    (Guest::new("forbidden"), &["crashed", "0xd0000000"]),
    (Guest::new("crash"), &["shut down: crash"]),
    (Guest::new("reboot"), &["shut down: reboot"]),
    (Guest::new("watchdog"), &["shut down: watchdog"]),
    (Guest::new("debug_storm"), &["shut down: watchdog"]),
];

/// Checks the hypervisor's line about each end in `endings`.
pub(super) fn check_endings(said: &Transcript, endings: &[(Guest, &[&str])]) -> Result<()> {
    for (guest, words) in endings {
        let mark = format!("{}: ", guest.name);
        let line = said.lines().find(|line| {
            line.starts_with('[') && line.contains(&mark) && words.iter().all(|w| line.contains(w))
        });
        if line.is_none() {
            bail!(
                "the hypervisor said no line about {} with {words:?}",
                guest.name
            );
        }
    }
    Ok(())
}

fn ends(case: &Case<'_>) -> Result<()> {
    // The witness outlives the others and notices that time and its own memory stay in order.
    let witness = Guest {
        name: "witness",
        cmdline: "ms=3000",
        ..Guest::new("spinner")
    };
    let mut guests = vec![witness];
    guests.extend(ENDINGS.iter().map(|(guest, _)| *guest));
    let said = boot(case, 1, &guests)?;
    check_endings(&said, &ENDINGS)?;
    verdict(&said, "witness", "witness")?;
    // Before it ran into nowhere every call of the forbidden guest had been refused.
    verdict(&said, "witness", "forbidden")?;
    let last_end = said
        .lines()
        .filter(|line| line.contains("shut down: "))
        .last();
    let last_end = last_end.context("no domain ended")?;
    ensure!(
        last_end.contains("witness"),
        "the witness did not outlive the others: {last_end}"
    );
    said.ended_well()
}
