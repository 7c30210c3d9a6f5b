//! Plays the part of somebody at the serial line: waits for words, types, waits for the end.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Case;
use super::transcript::Transcript;
use crate::machine::{self, Running, Spec};
use crate::run::watch::LastWords;
use crate::workspace::Workspace;

/// After the hypervisor's last words the machine has this long to end by itself.
const GRACE: Duration = Duration::from_secs(4);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// All that was said.
    pub(crate) said: Transcript,
    /// Why the run did not come to an end by itself, if it did not.
    pub(crate) order: Result<()>,
}

/// A machine with its serial line.
#[derive(Debug)]
pub(crate) struct Script {
    running: Running,
    reader: File,
    writer: File,
    log: File,
    /// Everything said so far.
    said: Vec<u8>,
    /// Where the next expectation starts to look.
    cursor: usize,
    /// What [`Self::since_mark`] starts from.
    mark: usize,
    open: bool,
    limit: Duration,
    begun: Instant,
}

impl Script {
    /// Starts a machine for a test.
    pub(crate) fn for_case(case: &Case<'_>, spec: &Spec) -> Result<Self> {
        let log = case.artifacts.log(case.scenario.name);
        Self::start(case.artifacts.workspace(), spec, &log, case.scenario.limit)
    }

    /// Starts a machine; what it says goes to `log` as well.
    pub(crate) fn start(ws: &Workspace, spec: &Spec, log: &Path, limit: Duration) -> Result<Self> {
        let begun = Instant::now();
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let running = machine::start(ws, spec)?;
        let (reader, writer) = running.serial()?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .context("cannot prepare the serial line")?;
        Ok(Self {
            running,
            reader,
            writer,
            log,
            said: Vec::new(),
            cursor: 0,
            mark: 0,
            open: true,
            limit,
            begun,
        })
    }

    /// Waits until the machine has said `words`, after what earlier expectations found.
    pub(crate) fn expect(&mut self, words: &str) -> Result<()> {
        self.expect_any(&[words]).map(drop)
    }

    /// Waits for one of several words and returns which came first.
    pub(crate) fn expect_any(&mut self, words: &[&str]) -> Result<usize> {
        loop {
            let rest = self.said.get(self.cursor..).unwrap_or_default();
            let found = words.iter().enumerate().filter_map(|(which, words)| {
                find(rest, words.as_bytes()).map(|at| (at, which, words.len()))
            });
            if let Some((at, which, length)) = found.min() {
                self.cursor += at + length;
                return Ok(which);
            }
            let missed = || format!("the machine did not say {words:?}");
            ensure!(self.open, "{}: {}", missed(), self.why_it_ended());
            self.listen(self.left()).with_context(missed)?;
        }
    }

    /// Listens for so long, for the log's sake: the test has failed.
    pub(crate) fn linger(&mut self, time: Duration) {
        let end = Instant::now() + time;
        // A machine that has ended says nothing more.
        while self.open && Instant::now() < end {
            if self
                .listen(end.saturating_duration_since(Instant::now()))
                .is_err()
            {
                return;
            }
        }
    }

    /// Types text and Return.
    pub(crate) fn type_line(&mut self, text: &str) -> Result<()> {
        self.type_keys(format!("{text}\r").as_bytes())
    }

    /// Types keys as they are, a few at a time as a person would: a UART holds sixteen.
    pub(crate) fn type_keys(&mut self, keys: &[u8]) -> Result<()> {
        for part in keys.chunks(8) {
            let mut rest = part;
            while !rest.is_empty() {
                match self.writer.write(rest) {
                    Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                    Err(error) if retry(error.kind()) => {
                        self.listen(Duration::from_millis(20))?;
                    }
                    Err(error) => return Err(error).context("cannot type"),
                }
                ensure!(!self.left().is_zero(), "no time is left to type");
            }
            self.listen_briefly()?;
        }
        Ok(())
    }

    /// Writes what is said from now on to `log`, and gives it `limit` from now.
    pub(crate) fn renew(&mut self, log: &Path, limit: Duration) -> Result<()> {
        self.log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        self.limit = limit;
        self.begun = Instant::now();
        Ok(())
    }

    /// The machine's second serial line, if its [`Spec`] has one.
    pub(crate) fn debug_line(&self) -> Result<File> {
        self.running.debug_line()
    }

    /// Marks what expectations have reached.
    pub(crate) fn mark(&mut self) {
        self.mark = self.cursor;
    }

    /// What was said from the mark to what expectations have reached.
    pub(crate) fn since_mark(&self) -> String {
        let said = self.said.get(self.mark..self.cursor).unwrap_or_default();
        String::from_utf8_lossy(said).into_owned()
    }

    /// Waits for the end of the run; returns all that was said.
    pub(crate) fn finish(self) -> Result<Transcript> {
        let ended = self.ended();
        ended.order.map(|()| ended.said)
    }

    /// Waits for the end of the run, or of its time; returns all that was said in either case.
    pub(crate) fn ended(mut self) -> Ended {
        let order = self.wait_for_end();
        self.running.kill();
        let text = String::from_utf8_lossy(&self.said).into_owned();
        Ended {
            said: Transcript::parse(text),
            order,
        }
    }

    fn wait_for_end(&mut self) -> Result<()> {
        while self.open {
            if self.last_words().is_some() {
                let heard = self.said.len();
                self.listen_or_quiet(GRACE)?;
                if self.said.len() == heard {
                    break;
                }
            } else {
                self.listen(self.left())
                    .context("the run did not come to its end")?;
            }
        }
        if self.last_words().is_none() {
            let why = self.why_it_ended();
            bail!("no last words of the hypervisor: {why}");
        }
        Ok(())
    }

    /// What was said after the last expectation's words up to the end of that line; waits for it.
    pub(crate) fn rest_of_line(&mut self) -> Result<String> {
        let start = self.cursor;
        self.expect("\n")?;
        let line = self.said.get(start..self.cursor).unwrap_or_default();
        Ok(String::from_utf8_lossy(line).trim().to_owned())
    }

    fn last_words(&self) -> Option<LastWords> {
        let text = String::from_utf8_lossy(&self.said);
        text.lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .and_then(LastWords::parse)
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.begun.elapsed())
    }

    fn why_it_ended(&mut self) -> String {
        let status = self.running.wait_briefly().ok().flatten();
        let status = status.map_or("still running".into(), |status| status.to_string());
        format!(
            "the emulator: {status} {}",
            self.running.emulator_messages()
        )
    }

    /// Reads what there is, waiting up to `patience` for something; time running out is an error.
    fn listen(&mut self, patience: Duration) -> Result<()> {
        let heard = self.said.len();
        self.listen_or_quiet(patience)?;
        if self.open && self.said.len() == heard && self.left().is_zero() {
            bail!("after {} s", self.limit.as_secs());
        }
        Ok(())
    }

    fn listen_briefly(&mut self) -> Result<()> {
        self.listen_or_quiet(Duration::from_millis(5))
    }

    fn listen_or_quiet(&mut self, patience: Duration) -> Result<()> {
        let millis = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(millis)).context("cannot wait for the machine")?;
        if !fds.iter().any(|fd| fd.any().unwrap_or(false)) {
            return Ok(());
        }
        let mut buffer = [0; 16384];
        match self.reader.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.said.extend_from_slice(bytes);
                self.log.write_all(bytes).context("cannot write the log")?;
            }
            Err(error) if retry(error.kind()) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.open = false,
            Err(error) => return Err(error).context("cannot read the serial line"),
        }
        Ok(())
    }
}

fn retry(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn find(text: &[u8], words: &[u8]) -> Option<usize> {
    text.windows(words.len().max(1))
        .position(|window| window == words)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn words_are_found() {
        assert_eq!(find(b"boot\r\n~ # ", b"# "), Some(8));
        assert_eq!(find(b"boot", b"boots"), None);
        assert_eq!(find(b"", b"x"), None);
    }
}
