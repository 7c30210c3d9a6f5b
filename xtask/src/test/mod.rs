//! `test`: the host tier in seconds, then real images in emulated machines.
//!
//! Every test is a [`Scenario`] with a name, a tier and a time limit by the wall clock. Tests of
//! machines run two at a time; each writes what its serial line said to `target/test/NAME.log`.
//! The last line of output is always `N passed, N failed`.

mod artifacts;
mod ata;
mod bad_input;
mod broken;
mod disks;
mod gdb;
mod gpt;
mod host;
mod linux;
mod masks;
mod micro;
mod nested;
mod nested_host;
mod nested_run;
mod network;
mod refusal;
mod runner;
mod script;
mod shares;
mod transcript;
mod uplink;
mod worst;

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::nested::Outer;
use crate::setup;
use crate::workspace::Workspace;
pub(crate) use artifacts::Artifacts;
pub(crate) use script::{Ended, Script};
pub(crate) use transcript::Transcript;

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these tiers only
    #[arg(long, value_enum)]
    tier: Vec<Tier>,
    /// Run all tests in QEMU/KVM, not only the short form (`--tier nested`)
    #[arg(long)]
    nested: bool,
    /// Run only tests whose name contains this, or is the same with `=` before it
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seed of what tests choose at random
    #[arg(long, default_value_t = masks::SEED, value_name = "N")]
    seed: u64,
    /// Show the tests and run none
    #[arg(long)]
    list: bool,
    /// Tests that run side by side
    #[arg(long, default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Test the hypervisor that counts what exits cost, and show the worst of each reason in Bochs
    #[arg(long)]
    count: bool,
}

/// Where a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Pure logic on this machine: unit and property tests
    Host,
    /// The command line given mistakes
    Input,
    /// QEMU without VT-x
    Qemu,
    /// Bochs with VT-x: the whole thing
    Bochs,
    /// QEMU with KVM in a Debian system in Bochs: one boot for all of them
    Nested,
    /// Any subset of VT-x on every CPU model: takes an hour and runs only when it is asked for
    Matrix,
}

/// One test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Unique; also the name of its log.
    pub(crate) name: &'static str,
    pub(crate) tier: Tier,
    /// One line for people.
    pub(crate) about: &'static str,
    /// Wall-clock limit.
    pub(crate) limit: Duration,
    pub(crate) run: fn(&Case<'_>) -> Result<()>,
}

/// What a running test has at hand.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) artifacts: &'a Artifacts,
    /// Where random choices start.
    pub(crate) seed: u64,
    /// The outer system that the tests of the tier [`Tier::Nested`] share, once one has booted it.
    pub(crate) outer: &'a RefCell<Option<Outer>>,
}

/// All tests, the longest first within a tier, so that none is left over at the end.
fn all() -> Vec<Scenario> {
    [
        host::SCENARIOS,
        bad_input::SCENARIOS,
        refusal::SCENARIOS,
        broken::SCENARIOS,
        gdb::boot::SCENARIOS,
        ata::SCENARIOS,
        linux::SCENARIOS,
        network::SCENARIOS,
        uplink::SCENARIOS,
        masks::SAMPLE,
        micro::SCENARIOS,
        nested::SCENARIOS,
        nested_host::SCENARIOS,
        nested_run::SCENARIOS,
        shares::SCENARIOS,
        &masks::WHOLE,
        gdb::nested::SCENARIOS,
    ]
    .concat()
}

impl Args {
    fn selects(&self, scenario: &Scenario) -> bool {
        let named = self.only.iter().any(|part| match part.strip_prefix('=') {
            Some(name) => scenario.name == name,
            None => scenario.name.contains(part),
        });
        let asked =
            self.tier.contains(&scenario.tier) || self.nested && scenario.tier == Tier::Nested;
        if self.tier.is_empty() && !self.nested {
            let by_default = nested::by_default(scenario) && scenario.tier != Tier::Matrix;
            named || self.only.is_empty() && by_default
        } else {
            asked && (named || self.only.is_empty())
        }
    }
}

/// The verb.
pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<ExitCode> {
    let chosen: Vec<Scenario> = all().into_iter().filter(|s| args.selects(s)).collect();
    if args.list {
        for Scenario {
            name, tier, about, ..
        } in &chosen
        {
            let tier = tier
                .to_possible_value()
                .map_or_else(String::new, |v| v.get_name().into());
            println!("{name:18} {tier:6} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        !chosen.is_empty(),
        "no test has such a name; `cargo xtask test --list` shows them"
    );
    if chosen.iter().any(|scenario| scenario.tier != Tier::Host) {
        setup::ensure(ws)?;
    }
    let tally = runner::run(ws, &chosen, args)?;
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::{Args, Tier, all};
    use std::collections::BTreeSet;

    fn args(tier: &[Tier], only: &[&str]) -> Args {
        Args {
            tier: tier.to_vec(),
            only: only.iter().map(|&part| part.to_owned()).collect(),
            nested: false,
            seed: 1,
            list: false,
            jobs: 1,
            count: false,
        }
    }

    #[test]
    fn names_are_unique_and_fit_a_file() {
        let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all().len());
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
                "{name}"
            );
        }
    }

    #[test]
    fn selection_is_by_tier_and_name() {
        let count = |args: &Args| all().iter().filter(|s| args.selects(s)).count();
        // By default all but the matrix, and of the nested tests the short form.
        let quick = [Tier::Host, Tier::Input, Tier::Qemu, Tier::Bochs];
        let (default, matrix) = (count(&args(&[], &[])), count(&args(&[Tier::Matrix], &[])));
        assert!(matrix > 20);
        assert!(default > count(&args(&quick, &[])));
        assert!(default <= all().len() - matrix);
        assert_eq!(count(&args(&[Tier::Host], &[])), 2);
        assert_eq!(count(&args(&[Tier::Host], &["linux"])), 0);
        assert!(count(&args(&[], &["linux"])) >= 4);
        assert!(count(&args(&[], &["guests"])) >= 4);
        assert_eq!(count(&args(&[], &["=guests"])), 1);
    }
}
