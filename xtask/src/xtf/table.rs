//! The verdicts as a table and as JSON, Xen's beside them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::tree::{Environment, Instance};
use super::verdict::{Outcome, Verdict};

/// Xen's verdicts; see the head of the file for how they came about.
const XEN: &str = include_str!("xen-4.17.txt");

/// Xen's verdicts by test and kind of guest.
pub(super) type Reference = BTreeMap<(String, Environment), Verdict>;

/// Reads the verdicts of Xen.
pub(super) fn reference() -> Result<Reference> {
    let mut all = Reference::new();
    for line in XEN.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(test) = words.next() else { continue };
        for (environment, word) in Environment::ALL.into_iter().zip(words) {
            if word == "-" {
                continue;
            }
            let verdict = Verdict::parse(word)
                .with_context(|| format!("xen-4.17.txt: `{word}` of {test} is no verdict"))?;
            all.insert((test.to_owned(), environment), verdict);
        }
    }
    Ok(all)
}

/// One test's outcome beside Xen's.
#[derive(Debug)]
pub(super) struct Row<'a> {
    test: &'a Instance,
    outcome: &'a Outcome,
    /// Xen's verdict, if it is known.
    xen: Option<Verdict>,
}

impl<'a> Row<'a> {
    pub(super) fn new(test: &'a Instance, outcome: &'a Outcome, xen: &Reference) -> Self {
        let xen = xen.get(&(test.test.clone(), test.environment)).copied();
        Self { test, outcome, xen }
    }

    /// True when Xen does better; a test of which Xen's verdict is not known should succeed.
    pub(super) fn is_worse(&self) -> bool {
        let xen = self.xen.unwrap_or(Verdict::Skip);
        self.outcome.verdict.is_worse_than(xen)
    }

    fn is_better(&self) -> bool {
        self.xen
            .is_some_and(|xen| xen.is_worse_than(self.outcome.verdict))
    }

    /// `ok/skip`: our verdict and Xen's, with a mark where they differ in worth.
    fn cell(&self) -> String {
        let xen = self.xen.map_or("?", Verdict::word);
        let mark = match (self.is_worse(), self.is_better()) {
            (true, _) => "!",
            (_, true) => "+",
            _ => "",
        };
        format!("{}/{xen}{mark}", self.outcome.verdict)
    }
}

/// The table of all verdicts, the tests that differ, and the sums.
pub(super) fn render(rows: &[Row<'_>]) -> String {
    let mut cells: BTreeMap<&str, BTreeMap<Environment, String>> = BTreeMap::new();
    for row in rows {
        let line = cells.entry(&row.test.test).or_default();
        line.insert(row.test.environment, row.cell());
    }
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        out,
        "{:26} Tessera/Xen 4.17 (! worse, + better)",
        "XTF test"
    );
    line(&mut out, "", |environment| {
        Some(environment.name().to_owned())
    });
    for (test, cells) in &cells {
        line(&mut out, test, |environment| {
            cells.get(&environment).cloned()
        });
    }
    let differ = rows
        .iter()
        .filter(|row| row.xen != Some(row.outcome.verdict));
    for row in differ {
        let (name, cell, note) = (row.test.name(), row.cell(), &row.outcome.note);
        let _ = writeln!(out, "{name}: {cell}: {note}");
    }
    let count = |fits: &dyn Fn(&&Row<'_>) -> bool| rows.iter().filter(fits).count();
    let of = |verdict| count(&|row| row.outcome.verdict == verdict);
    let (ok, skip) = (of(Verdict::Ok), of(Verdict::Skip));
    let _ = writeln!(
        out,
        "{} tests: {ok} ok, {skip} skipped, {} others; {} worse than Xen, {} better",
        rows.len(),
        rows.len().saturating_sub(ok + skip),
        count(&|row| row.is_worse()),
        count(&|row| row.is_better()),
    );
    out
}

fn line(out: &mut String, test: &str, cell: impl Fn(Environment) -> Option<String>) {
    let mut line = format!("{test:26}");
    for environment in Environment::ALL {
        let _ = write!(line, " {:12}", cell(environment).unwrap_or_default());
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// The tests with their categories and Xen's verdicts.
pub(super) fn list(tests: &[Instance], xen: &Reference) -> String {
    let mut out = String::new();
    for test in tests {
        let verdict = xen.get(&(test.test.clone(), test.environment));
        let verdict = verdict.map_or("?", |verdict| verdict.word());
        let _ = writeln!(out, "{:34} {:16} {verdict}", test.name(), test.category);
    }
    out
}

/// The verdicts for a program to read.
pub(super) fn json(rows: &[Row<'_>]) -> Value {
    let row = |row: &Row<'_>| {
        json!({
            "test": row.test.test,
            "environment": row.test.environment.name(),
            "category": row.test.category,
            "verdict": row.outcome.verdict.word(),
            "xen": row.xen.map(Verdict::word),
            "worse": row.is_worse(),
            "note": row.outcome.note,
        })
    };
    json!({
        "reference": "Xen 4.17",
        "tests": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Row, json, list, reference, render};
    use crate::xtf::tree::{Environment, Instance};
    use crate::xtf::verdict::{Outcome, Verdict};

    fn instance(test: &str, environment: Environment) -> Instance {
        Instance {
            test: test.into(),
            category: "xsa".into(),
            environment,
            program: "/nowhere".into(),
            vcpus: 1,
        }
    }

    fn outcome(verdict: Verdict, note: &str) -> Outcome {
        Outcome {
            verdict,
            note: note.into(),
        }
    }

    #[test]
    fn verdicts_of_xen_are_whole() {
        let xen = reference().unwrap();
        assert_eq!(xen.len(), 100);
        let of = |test: &str, environment| xen.get(&(test.to_owned(), environment)).copied();
        assert_eq!(of("xsa-472-3", Environment::Hvm32), Some(Verdict::Hang));
        assert_eq!(of("fep", Environment::Hvm64), None);
    }

    #[test]
    fn differences_are_marked_and_explained() {
        let xen = reference().unwrap();
        let tests = [
            instance("example", Environment::Hvm64),
            instance("xsa-472-3", Environment::Hvm32),
            instance("brand-new", Environment::Hvm32pse),
        ];
        let outcomes = [
            outcome(Verdict::Crash, "crashed: triple fault"),
            outcome(Verdict::Panic, "PANIC: #GP"),
            outcome(Verdict::Ok, ""),
        ];
        let rows: Vec<_> = tests
            .iter()
            .zip(&outcomes)
            .map(|(test, outcome)| Row::new(test, outcome, &xen))
            .collect();
        let text = render(&rows);
        assert!(text.contains("hvm64-example: CRASH/ok!: crashed: triple fault"));
        assert!(text.contains("hvm32-xsa-472-3: PANIC/HANG+: PANIC: #GP"));
        assert!(text.contains("hvm32pse-brand-new: ok/?"));
        assert!(text.ends_with("3 tests: 1 ok, 0 skipped, 2 others; 1 worse than Xen, 1 better\n"));
        assert_eq!(json(&rows)["tests"][1]["xen"], "HANG");
        assert!(list(&tests, &xen).lines().any(|line| line.ends_with(" ?")));
    }
}
