//! Runs tests side by side and reports each as it ends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::{Args, Artifacts, Case, Scenario, Tier, host, worst};
use crate::build;
use crate::nested::Outer;
use crate::workspace::Workspace;

/// Lines of a failed test's log that are shown.
const TAIL: usize = 40;

/// How it went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Tally {
    fn add(&mut self, passed: bool) {
        let place = if passed {
            &mut self.passed
        } else {
            &mut self.failed
        };
        *place = place.saturating_add(1);
    }
}

/// Runs the host tier, then all others `--jobs` at a time.
pub(super) fn run(ws: &Workspace, chosen: &[Scenario], args: &Args) -> Result<Tally> {
    let mut tally = Tally::default();
    let (on_host, on_machines): (Vec<Scenario>, Vec<Scenario>) = chosen
        .iter()
        .partition(|scenario| scenario.tier == Tier::Host);
    for scenario in on_host {
        let begun = Instant::now();
        let counts = host::run(ws, &scenario, args.seed);
        let result = match &counts {
            Ok(counts) if counts.failed == 0 => Ok(()),
            Ok(counts) => Err(anyhow!("{} tests failed (see above)", counts.failed)),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        report(&scenario, begun.elapsed(), &result, "");
        match counts {
            Ok(counts) => {
                tally.passed += counts.passed;
                tally.failed += counts.failed;
            }
            Err(_) => tally.add(false),
        }
    }
    if on_machines.is_empty() {
        return Ok(tally);
    }
    eprintln!("Building the hypervisor and the micro-guests (the first time takes minutes)");
    let built = if args.count {
        build::counting_hypervisor(ws).and_then(|built| Artifacts::with(ws, built))
    } else {
        Artifacts::build(ws)
    };
    match built {
        Ok(artifacts) => {
            let jobs = (args.jobs.into(), args.seed);
            side_by_side(&artifacts, &on_machines, jobs, &mut tally);
            if args.count {
                print!("{}", worst::table(&artifacts, &on_machines));
            }
        }
        Err(error) => {
            println!(
                "build FAILED: {error:#}; {} tests cannot run",
                on_machines.len()
            );
            tally.failed += on_machines.len() as u64;
        }
    }
    Ok(tally)
}

fn side_by_side(
    artifacts: &Artifacts,
    scenarios: &[Scenario],
    (jobs, seed): (usize, u64),
    tally: &mut Tally,
) {
    let queue: Mutex<VecDeque<Vec<&Scenario>>> = Mutex::new(groups(scenarios));
    let shared = Mutex::new(tally);
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, scenarios.len()) {
            scope.spawn(|| {
                // A panic of another thread leaves the queue as good as it was.
                let next = || queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
                while let Some(group) = next() {
                    let outer = RefCell::new(None);
                    for scenario in group {
                        let passed = one(artifacts, scenario, seed, &outer);
                        shared.lock().unwrap_or_else(|e| e.into_inner()).add(passed);
                    }
                }
            });
        }
    });
}

/// What runs by itself, in order; the nested ones are one group, because they share a machine.
fn groups(scenarios: &[Scenario]) -> VecDeque<Vec<&Scenario>> {
    let (nested, alone): (Vec<_>, Vec<_>) = scenarios
        .iter()
        .partition(|scenario| scenario.tier == Tier::Nested);
    let nested = Some(nested).filter(|group| !group.is_empty());
    let alone = alone.into_iter().map(|scenario| vec![scenario]);
    // The longest first, so that it is not left over at the end.
    nested.into_iter().chain(alone).collect()
}

fn one(
    artifacts: &Artifacts,
    scenario: &Scenario,
    seed: u64,
    outer: &RefCell<Option<Outer>>,
) -> bool {
    let begun = Instant::now();
    // What an earlier run left would be taken for this one's.
    let log = artifacts.log(scenario.name);
    let _ = fs::remove_file(&log);
    let case = Case {
        scenario,
        artifacts,
        seed,
        outer,
    };
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&case)))
        .unwrap_or_else(|_| Err(anyhow!("the test itself panicked")));
    let said = fs::read(&log).unwrap_or_default();
    let tail = tail(&String::from_utf8_lossy(&said));
    report(scenario, begun.elapsed(), &result, &tail);
    result.is_ok()
}

/// Says how a test went, in one piece.
fn report(scenario: &Scenario, took: Duration, result: &Result<()>, tail: &str) {
    let name = scenario.name;
    let seconds = took.as_secs_f64();
    match result {
        Ok(()) => println!("{name:18} ok      {seconds:6.1} s"),
        Err(error) => println!(
            "{name:18} FAILED  {seconds:6.1} s\n  {}\n{tail}",
            format!("{error:#}").replace('\n', "\n  ")
        ),
    }
}

/// The last lines of a log, indented.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    let shown = lines
        .get(lines.len().saturating_sub(TAIL)..)
        .unwrap_or_default();
    shown.iter().map(|line| format!("  | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{TAIL, tail};

    #[test]
    fn the_tail_is_short_and_without_blanks() {
        let log: String = (0..100).map(|n| format!("line {n}\r\n\r\n")).collect();
        let tail = tail(&log);
        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.ends_with("  | line 99\n"), "{tail}");
    }
}
