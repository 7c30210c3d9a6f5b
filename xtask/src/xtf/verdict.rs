//! How a test ended, read from what its domain and the hypervisor said.

use std::fmt;

/// How a test ended.
///
/// The first four are XTF's own words; the others are ends without such a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is as the test wants it.
    Ok,
    /// Something that the test needs is not there.
    Skip,
    /// What is tested is wrong.
    Fail,
    /// The test itself did not work.
    Error,
    /// The test met an exception that it did not expect.
    Panic,
    /// The domain ended without a word of the test.
    Crash,
    /// The domain did not end.
    Hang,
    /// The hypervisor did not survive the test.
    Host,
}

const WORDS: &[(Verdict, &str)] = &[
    (Verdict::Ok, "ok"),
    (Verdict::Skip, "skip"),
    (Verdict::Fail, "FAIL"),
    (Verdict::Error, "ERR"),
    (Verdict::Panic, "PANIC"),
    (Verdict::Crash, "CRASH"),
    (Verdict::Hang, "HANG"),
    (Verdict::Host, "HOST"),
];

impl Verdict {
    /// The verdict of this word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let found = WORDS.iter().find(|(_, known)| *known == word);
        found.map(|&(verdict, _)| verdict)
    }

    /// The word for it in the table.
    pub(super) fn word(self) -> &'static str {
        let found = WORDS.iter().find(|(verdict, _)| *verdict == self);
        found.map_or("", |&(_, word)| word)
    }

    /// The lower the better.
    const fn rank(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Skip => 1,
            Self::Fail | Self::Error => 2,
            Self::Panic => 3,
            Self::Crash => 4,
            Self::Hang => 5,
            Self::Host => 6,
        }
    }

    /// True when `other` is better.
    pub(super) const fn is_worse_than(self, other: Self) -> bool {
        self.rank() > other.rank()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A verdict with the words that explain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// The test's last words before its result, or what stands for them.
    pub(super) note: String,
}

/// Reads the outcome of the domain `name`: `guest` are its own lines, `log` the hypervisor's.
/// Nothing when the domain has not come to an end.
pub(super) fn judge(name: &str, guest: &[&str], log: &[&str]) -> Option<Outcome> {
    let mark = format!(" {name}: ");
    let mut about = log
        .iter()
        .filter_map(|line| Some(line.split_once(&mark)?.1));
    if !about.clone().any(|said| said.starts_with("shut down: ")) {
        return None;
    }
    let crash = about.clone().find(|said| said.starts_with("crashed: "));
    let end = crash.or(about.next_back()).unwrap_or_default();
    Some(reported(guest).unwrap_or_else(|| Outcome {
        verdict: Verdict::Crash,
        note: end.to_owned(),
    }))
}

/// What the test itself said of its end.
fn reported(guest: &[&str]) -> Option<Outcome> {
    // A test that falls over after its result has not succeeded.
    let panic = guest.iter().find(|line| line.starts_with("PANIC: "));
    if let Some(words) = panic {
        return Some(Outcome {
            verdict: Verdict::Panic,
            note: (*words).to_owned(),
        });
    }
    let at = guest
        .iter()
        .rposition(|line| line.starts_with("Test result: "))?;
    let result = guest.get(at)?.strip_prefix("Test result: ")?;
    let verdict = match result.split_whitespace().next()? {
        "SUCCESS" => Verdict::Ok,
        "SKIP" => Verdict::Skip,
        "FAILURE" => Verdict::Fail,
        _ => Verdict::Error,
    };
    let before = guest.get(..at).unwrap_or_default();
    let note = before.iter().rev().find(|line| !line.trim().is_empty());
    Some(Outcome {
        verdict,
        note: note.map_or("", |note| note.trim()).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};

    const LOG: [&str; 4] = [
        "[    4.8] vmm_core: hvm64-a: domain 1: 32 MiB, 1 vCPU",
        "[    5.0] vmm_core: error: hvm64-b: crashed: triple fault",
        "[    5.1] vmm_core: hvm64-a: shut down: poweroff",
        "[    5.2] vmm_core: hvm64-b: shut down: crash",
    ];

    fn verdict(name: &str, guest: &[&str]) -> Option<(Verdict, String)> {
        judge(name, guest, &LOG).map(|outcome| (outcome.verdict, outcome.note))
    }

    #[test]
    fn the_test_has_the_first_word() {
        let skipped = verdict("hvm64-a", &["Skip: no FEP", "Test result: SKIP"]);
        assert_eq!(skipped, Some((Verdict::Skip, "Skip: no FEP".into())));
        let ok = verdict(
            "hvm64-a",
            &["title", "", "Test result: SUCCESS with warnings"],
        );
        assert_eq!(ok, Some((Verdict::Ok, "title".into())));
        let panic = verdict("hvm64-a", &["Test result: SUCCESS", "PANIC: no", "more"]);
        assert_eq!(panic, Some((Verdict::Panic, "PANIC: no".into())));
    }

    #[test]
    fn ends_without_a_word_are_no_success() {
        let crash = verdict("hvm64-b", &["title"]);
        assert_eq!(
            crash,
            Some((Verdict::Crash, "crashed: triple fault".into()))
        );
        let silent = verdict("hvm64-a", &[]);
        assert_eq!(silent, Some((Verdict::Crash, "shut down: poweroff".into())));
        assert_eq!(
            verdict("hvm64-c", &["Test result: SUCCESS"]),
            None,
            "still there"
        );
    }

    #[test]
    fn verdicts_have_an_order_and_words() {
        assert!(Verdict::Skip.is_worse_than(Verdict::Ok));
        assert!(!Verdict::Fail.is_worse_than(Verdict::Error));
        assert!(Verdict::Crash.is_worse_than(Verdict::Panic));
        assert_eq!(Verdict::parse("PANIC"), Some(Verdict::Panic));
        assert_eq!(Verdict::parse("panic"), None);
        assert_eq!(format!("{:>6}", Verdict::Fail), "  FAIL");
    }
}
