//! Reads along on the serial line for the hypervisor's own last words.

/// How the hypervisor said the run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It powers the machine off.
    PowerOff,
    /// It restarts the machine.
    Reboot,
    /// It stops for good with the machine on.
    Halt,
}

/// The hypervisor's last words: `tessera: end: poweroff (reason)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastWords {
    /// How.
    pub(crate) end: End,
    /// Why, without the parentheses.
    pub(crate) reason: String,
}

impl LastWords {
    /// Reads them out of a line of the console.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("tessera: end: ")?;
        let rest = rest.trim();
        let (word, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let end = match word {
            "poweroff" => End::PowerOff,
            "reboot" => End::Reboot,
            "halt" => End::Halt,
            _ => return None,
        };
        let reason = reason
            .trim()
            .trim_start_matches('(')
            .trim_end_matches(')')
            .to_owned();
        Some(Self { end, reason })
    }

    /// Whether this is the way a run should end: the guests are done, or somebody quit.
    pub(crate) fn good(&self) -> bool {
        let done =
            self.reason.starts_with("every domain has ended") && !self.reason.ends_with("by crash");
        self.end == End::PowerOff && (done || self.reason.starts_with("asked for on the console"))
    }
}

/// Longer lines are cut: nothing that is looked for is that long.
const LINE: usize = 1024;

/// Cuts the serial line's bytes into lines and keeps what matters.
#[derive(Debug, Default)]
pub(super) struct Watch {
    line: Vec<u8>,
    panic: Option<String>,
    last: Option<LastWords>,
}

impl Watch {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LINE {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = core::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if let Some(last) = LastWords::parse(&line) {
            self.last = Some(last);
        } else if let Some((_, text)) = line.split_once("*** Tessera panic") {
            self.panic = Some(format!("Tessera panic{}", text.trim_end()));
        } else if self.last.is_some() && !line.trim().is_empty() {
            // Something spoke after the "last" words: a guest wrote them, or the machine restarted.
            self.last = None;
        }
    }

    /// The last words, if nothing came after them.
    pub(super) fn last(&self) -> Option<&LastWords> {
        self.last.as_ref()
    }

    /// The hypervisor's panic message, if there was one.
    pub(super) fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::{End, LastWords, Watch};

    #[test]
    fn last_words_are_read() {
        let words = LastWords::parse(
            "tessera: end: poweroff (every domain has ended, the last by poweroff)\r",
        )
        .unwrap();
        assert_eq!(words.end, End::PowerOff);
        assert_eq!(words.reason, "every domain has ended, the last by poweroff");
        assert!(words.good());
        assert!(
            !LastWords::parse("tessera: end: poweroff (panic)")
                .unwrap()
                .good()
        );
        assert!(
            !LastWords::parse("tessera: end: halt (no VT-x)")
                .unwrap()
                .good()
        );
        assert_eq!(LastWords::parse("tessera: end: now"), None);
        assert_eq!(LastWords::parse("tessera: started"), None);
    }

    #[test]
    fn the_line_may_come_in_pieces() {
        let mut watch = Watch::default();
        watch.feed(b"boot\r\ntessera: en");
        assert_eq!(watch.last(), None);
        watch.feed(b"d: reboot\r\n\r\n");
        assert_eq!(
            watch.last().map(|words| words.end.clone()),
            Some(End::Reboot)
        );
    }

    #[test]
    fn what_a_guest_forges_is_not_last() {
        let mut watch = Watch::default();
        watch.feed(b"tessera: end: poweroff (me)\n# ls\n");
        assert_eq!(watch.last(), None);
    }

    #[test]
    fn panics_and_endless_lines() {
        let mut watch = Watch::default();
        watch.feed(&vec![b'x'; 100_000]);
        watch.feed(b"\n*** Tessera panic on CPU 1 at x.rs:3\r\ntessera: end: halt (panic)\r\n");
        assert_eq!(watch.panic(), Some("Tessera panic on CPU 1 at x.rs:3"));
        assert_eq!(watch.last().map(|words| words.end.clone()), Some(End::Halt));
    }
}
