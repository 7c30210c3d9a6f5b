//! What a run said, sorted by who said it.
//!
//! The serial line shows one console as it is and marks every other line with its writer's name:
//! `(NAME) text`. The hypervisor announces which console is shown: `tessera: console: NAME (`.

use anyhow::{Result, anyhow, ensure};

use crate::run::watch::LastWords;

/// A run from its first word to its last.
#[derive(Debug)]
pub(crate) struct Transcript {
    text: String,
    last: Option<LastWords>,
}

impl Transcript {
    /// What was said, whose last line may be the hypervisor's last words.
    pub(crate) fn parse(text: String) -> Self {
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        let last = line.and_then(LastWords::parse);
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
        let last = self.last_words()?;
        ensure!(
            last.good(),
            "the run did not end well: {:?} ({})",
            last.end,
            last.reason
        );
        self.nothing_leaked()
    }

    /// Checks the frame census that ends a run: every frame is accounted for, and when the last
    /// domain has ended the hypervisor has what it had before the first.
    fn nothing_leaked(&self) -> Result<()> {
        let line = self.line_with(&["stats: frames "])?;
        ensure!(
            line.contains(" adds_up=true"),
            "the frame census does not add up: {line}"
        );
        if self
            .last_words()?
            .reason
            .starts_with("every domain has ended")
        {
            let count = |key: &str| census(line, key);
            for kind in ["tables", "shared", "domains", "disks", "granted"] {
                ensure!(count(kind)? == 0, "frames leaked ({kind}): {line}");
            }
            ensure!(
                count("hypervisor")? == count("hypervisor_before")?,
                "frames of the hypervisor's own leaked: {line}"
            );
        }
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
    pub(crate) fn last_words(&self) -> Result<&LastWords> {
        self.last
            .as_ref()
            .ok_or_else(|| anyhow!("the hypervisor has no last words"))
    }
}

/// A number of the census line.
fn census(line: &str, key: &str) -> Result<u64> {
    let value = line
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let value = value.ok_or_else(|| anyhow!("no {key} in {line:?}"))?;
    Ok(value.parse()?)
}

#[cfg(test)]
mod tests {
    use super::Transcript;

    const CENSUS: &str = "[    0.4] vmm_core: stats: frames total=9 free=5 hypervisor=4 \
                          hypervisor_before=4 tables=0 shared=0 domains=0 disks=0 granted=0 adds_up=true";

    fn transcript() -> Transcript {
        with_census(CENSUS)
    }

    fn with_census(census: &str) -> Transcript {
        let text = "[    0.1] vmm_core: a: domain 1: 16 MiB\r\n\
                    first of a\r\n\
                    (b) first of b\r\n\
                    verdict: pass\r\n\
                    tessera: console: b (Ctrl-] h for help)\r\n\
                    second of b\r\n\
                    ";
        let end = "tessera: end: poweroff (every domain has ended)";
        Transcript::parse(format!("{text}{census}\r\n{end}\r\n"))
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

    #[test]
    fn a_leak_is_no_good_end() {
        for (good, bad) in [
            ("tables=0", "tables=1"),
            ("shared=0", "shared=1"),
            ("domains=0", "domains=512"),
            ("disks=0", "disks=1"),
            ("granted=0", "granted=1"),
            ("hypervisor=4", "hypervisor=5"),
            ("adds_up=true", "adds_up=false"),
            ("stats: frames", "frames"),
        ] {
            let said = with_census(&CENSUS.replace(good, bad));
            assert!(said.ended_well().is_err(), "{bad}");
        }
    }
}
