//! The host tier: `cargo test` over every crate that runs on this machine.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::runner::Tally;
use super::{Case, Scenario, Tier};
use crate::workspace::Workspace;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "host",
        tier: Tier::Host,
        about: "unit and property tests of every crate's logic",
        limit: Duration::from_secs(1800),
        run: check,
    },
    Scenario {
        name: SOAK,
        tier: Tier::Host,
        about: "a million random operations on the hypervisor's parts, from a seed",
        limit: Duration::from_secs(900),
        run: check,
    },
];

const SOAK: &str = "soak";
/// Random operations of one run.
const OPERATIONS: u64 = 1_000_000;

fn check(case: &Case<'_>) -> Result<()> {
    let tally = run(case.artifacts.workspace(), case.scenario, case.seed)?;
    ensure!(tally.failed == 0, "{} tests failed", tally.failed);
    Ok(())
}

/// Runs the interpreters of `tests/fuzz` on the bytes of a generator.
fn soak(ws: &Workspace, seed: u64) -> Result<Tally> {
    let [operations, seed] = [OPERATIONS, seed].map(|number| number.to_string());
    let done = cargo()
        .args(["run", "--quiet", "--package", "fuzz", "--bin", "soak", "--"])
        .args([operations, seed])
        .current_dir(ws.root())
        .output()
        .context("cannot run cargo")?;
    print!("{}", String::from_utf8_lossy(&done.stdout));
    ensure!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(Tally {
        passed: 1,
        failed: 0,
    })
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What cargo is asked for, one after the other: all crates that build for this machine, the
/// library half of `boot`, and what needs the guest kernels that the set-up keeps.
const RUNS: &[&[&str]] = &[
    &[],
    &["--package", "boot", "--lib"],
    &[
        "--package",
        "system",
        "--package",
        "vmm-core",
        "--lib",
        "--",
        "--ignored",
        "real_kernels",
    ],
];

/// Runs one of the two; what a failure says is shown.
pub(super) fn run(ws: &Workspace, scenario: &Scenario, seed: u64) -> Result<Tally> {
    if scenario.name == SOAK {
        return soak(ws, seed);
    }
    let mut tally = Tally::default();
    for args in RUNS {
        let run = cargo_test(ws, args)?;
        ensure!(
            run.passed + run.failed > 0,
            "cargo test {}: there was nothing to run",
            args.join(" ")
        );
        tally.passed += run.passed;
        tally.failed += run.failed;
    }
    Ok(tally)
}

fn cargo_test(ws: &Workspace, args: &[&str]) -> Result<Tally> {
    let done = cargo()
        .args(["test", "--quiet", "--no-fail-fast"])
        .args(args)
        .env("TESSERA_TEST_KERNELS", ws.cache().join("guests"))
        .current_dir(ws.root())
        .output()
        .context("cannot run cargo")?;
    let out = String::from_utf8_lossy(&done.stdout);
    let tally = count(&out);
    if !done.status.success() {
        println!("{out}");
        eprintln!("{}", String::from_utf8_lossy(&done.stderr));
        if tally.failed == 0 {
            bail!("cargo test failed ({}), see above", done.status);
        }
    }
    Ok(tally)
}

/// Adds up the `test result:` lines.
fn count(out: &str) -> Tally {
    let mut tally = Tally::default();
    for line in out.lines().filter(|line| line.starts_with("test result:")) {
        let number = |what: &str| -> u64 {
            let before = line.split(what).next().unwrap_or_default();
            before
                .split_whitespace()
                .next_back()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0)
        };
        tally.passed += number(" passed");
        tally.failed += number(" failed");
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn results_add_up() {
        let tally = count(
            "running 2 tests\n..\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; finished in 0.00s\n\
             test result: FAILED. 40 passed; 3 failed; 1 ignored; finished in 1.00s\n",
        );
        assert_eq!((tally.passed, tally.failed), (42, 3));
    }
}
