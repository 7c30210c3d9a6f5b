//! What a run said, sorted by who said it.
//!
//! The serial line shows one console as it is and marks every other line with its writer's name:
//! `(NAME) text`. The hypervisor announces which console is shown: `tessera: console: NAME (`.

use anyhow::{Result, anyhow, ensure};

use crate::run::watch::LastWords;

/// A run from its first to its last words.
#[derive(Debug)]
pub(crate) struct Transcript {
    text: String,
    last: LastWords,
}

impl Transcript {
    pub(super) fn new(text: String, last: LastWords) -> Self {
        Self { text, last }
    }

    /// All lines, without line ends.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(|line| line.trim_end_matches('\r'))
    }

    /// The lines the domain `name` wrote; `shown` is the domain whose console was shown first.
    pub(crate) fn lines_of(&self, name: &str, shown: &str) -> Vec<&str> {
        let mark = format!("({name}) ");
        let mut shows = shown == name;
        let mut lines = Vec::new();
        for line in self.lines() {
            if let Some((_, rest)) = line.split_once("tessera: console: ") {
                shows = rest
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(" ("));
            } else if let Some(text) = line.strip_prefix(&mark) {
                lines.push(text);
            } else if shows && !line.starts_with('[') && !line.starts_with('(') {
                lines.push(line);
            }
        }
        lines
    }

    /// The one line that contains all of `words`.
    pub(crate) fn line_with(&self, words: &[&str]) -> Result<&str> {
        self.lines()
            .find(|line| words.iter().all(|word| line.contains(word)))
            .ok_or_else(|| anyhow!("no line has all of {words:?}"))
    }

    /// Checks that the run ended as a good one does: powered off, without a panic.
    pub(crate) fn ended_well(&self) -> Result<()> {
        self.without_panic()?;
        ensure!(
            self.last.good(),
            "the run did not end well: {:?} ({})",
            self.last.end,
            self.last.reason
        );
        Ok(())
    }

    /// Checks that the hypervisor did not panic.
    pub(crate) fn without_panic(&self) -> Result<()> {
        let panic = self.lines().find(|line| line.contains("*** Tessera panic"));
        ensure!(
            panic.is_none(),
            "the hypervisor panicked: {}",
            panic.unwrap_or_default()
        );
        Ok(())
    }

    /// The hypervisor's last words.
    pub(crate) fn last_words(&self) -> &LastWords {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::Transcript;
    use crate::run::watch::LastWords;

    fn transcript() -> Transcript {
        let text = "[    0.1] vmm_core: a: domain 1: 16 MiB\r\n\
                    first of a\r\n\
                    (b) first of b\r\n\
                    verdict: pass\r\n\
                    tessera: console: b (Ctrl-] h for help)\r\n\
                    second of b\r\n\
                    tessera: end: poweroff (every domain has ended)\r\n";
        let last = LastWords::parse("tessera: end: poweroff (every domain has ended)").unwrap();
        Transcript::new(text.to_owned(), last)
    }

    #[test]
    fn lines_belong_to_their_writers() {
        let said = transcript();
        assert_eq!(said.lines_of("a", "a"), ["first of a", "verdict: pass"]);
        let b = said.lines_of("b", "a");
        assert_eq!(b.get(..2), Some(&["first of b", "second of b"][..]));
    }

    #[test]
    fn lines_are_found_by_their_words() {
        let said = transcript();
        assert!(said.line_with(&["domain 1", "16 MiB"]).is_ok());
        assert!(said.line_with(&["domain 1", "17 MiB"]).is_err());
        assert!(said.ended_well().is_ok());
    }
}
