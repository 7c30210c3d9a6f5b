//! The worst exits of all tests in Bochs, with `--count`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use super::{Artifacts, Scenario, Tier};
use crate::bench::figures;

/// The longest time without a look at who else wants the pCPU, and the test that it was in.
type Worst = BTreeMap<String, (u64, &'static str)>;

/// A line for each exit reason, the worst first: read from what the tests' machines have said.
pub(super) fn table(artifacts: &Artifacts, scenarios: &[Scenario]) -> String {
    let mut worst = Worst::new();
    for scenario in scenarios.iter().filter(|it| it.tier == Tier::Bochs) {
        let said = fs::read(artifacts.log(scenario.name)).unwrap_or_default();
        note(&mut worst, scenario.name, &String::from_utf8_lossy(&said));
    }
    render(&worst)
}

fn note(worst: &mut Worst, test: &'static str, said: &str) {
    for exit in figures::exits(said.lines()) {
        let place = worst.entry(exit.reason).or_default();
        *place = (*place).max((exit.root_max, test));
    }
}

fn render(worst: &Worst) -> String {
    let mut rows: Vec<_> = worst.iter().collect();
    rows.sort_by_key(|(_, (instructions, _))| std::cmp::Reverse(*instructions));
    let mut out = format!("{:28} {:>9}  test\n", "exit", "worst");
    for (reason, (instructions, test)) in rows {
        let _ = writeln!(out, "{reason:28} {instructions:>9}  {test}");
    }
    out.push_str("(instructions without a look at who else wants the pCPU)\n");
    out
}

#[cfg(test)]
mod tests {
    use super::{Worst, note, render};

    #[test]
    fn the_worst_of_all_tests_is_shown_first() {
        let said = |reason: &str, most: u64| {
            format!(
                "[ 1.0] vmm_core: stats: dom=a vcpu=0 exit={reason} count=2 root_max={most}\r\n"
            )
        };
        let mut worst = Worst::new();
        note(&mut worst, "one", &(said("vmcall", 5) + &said("cpuid", 7)));
        note(
            &mut worst,
            "two",
            &(said("vmcall", 900) + &said("cpuid", 6)),
        );
        let table = render(&worst);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["vmcall", "900", "two"]);
        assert_eq!(rows[2], ["cpuid", "7", "one"]);
    }
}
