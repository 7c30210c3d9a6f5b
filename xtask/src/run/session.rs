//! Connects this terminal to a machine until one of them ends.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _, stdin, stdout};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::escape::Escape;
use super::terminal::RawMode;
use super::watch::{End, LastWords, Watch};
use crate::machine::Running;

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With the hypervisor's last words.
    Said(LastWords),
    /// The machine ended without them.
    Died,
    /// Ctrl-] x.
    Killed,
    /// A signal told us to stop.
    Signal(&'static str),
    /// The time limit passed.
    TimedOut,
}

/// The end of a session, with the panic message if one was seen.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) panic: Option<String>,
}

/// After the last words the machine has this long to go quiet and end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// Runs until the machine ends, the user kills it, a signal comes or `limit` passes.
pub(super) fn connect(running: &Running, limit: Option<Duration>) -> Result<Ended> {
    let (reader, writer) = running.serial()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .context("cannot prepare the serial line")?;
    let signals = block_signals()?;
    let _raw = RawMode::enter()?;
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut session = Session {
        reader,
        writer,
        signals,
        typing: true,
        pending: Vec::new(),
        escape: Escape::default(),
        watch: Watch::default(),
        heard: Instant::now(),
        deadline,
    };
    let outcome = loop {
        if let Some(outcome) = session.turn()? {
            break outcome;
        }
    };
    Ok(Ended {
        outcome,
        panic: session.watch.panic().map(str::to_owned),
    })
}

#[derive(Debug)]
struct Session {
    reader: File,
    writer: File,
    signals: SignalFd,
    /// Standard input has not ended.
    typing: bool,
    /// Typed, but the machine was not ready to take it.
    pending: Vec<u8>,
    escape: Escape,
    watch: Watch,
    /// When the machine last said something.
    heard: Instant,
    deadline: Option<Instant>,
}

impl Session {
    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> Result<Option<Outcome>> {
        let line_events = if self.pending.is_empty() {
            PollFlags::POLLIN
        } else {
            PollFlags::POLLIN | PollFlags::POLLOUT
        };
        let stdin = stdin();
        let mut fds = vec![
            PollFd::new(self.reader.as_fd(), line_events),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if self.typing && self.pending.is_empty() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        poll(&mut fds, self.timeout()).context("cannot wait for the machine")?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        if is_ready(1)
            && let Some(signal) = self.signals.read_signal()?
        {
            return Ok(Some(Outcome::Signal(name(signal.ssi_signo))));
        }
        if is_ready(0) && !self.listen()? {
            return Ok(Some(
                self.watch
                    .last()
                    .cloned()
                    .map_or(Outcome::Died, Outcome::Said),
            ));
        }
        if is_ready(2) && self.read_keys()? {
            return Ok(Some(Outcome::Killed));
        }
        self.send()?;
        Ok(self.expired())
    }

    /// Until the next moment at which silence or time matters.
    fn timeout(&self) -> PollTimeout {
        let now = Instant::now();
        let quiet = self
            .watch
            .last()
            .map(|_| GRACE.saturating_sub(now - self.heard));
        let limit = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(now));
        let shortest = quiet.into_iter().chain(limit).min();
        shortest.map_or(PollTimeout::NONE, |time| {
            let millis = u16::try_from(time.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
            PollTimeout::from(millis)
        })
    }

    fn expired(&self) -> Option<Outcome> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Some(Outcome::TimedOut);
        }
        let last = self.watch.last()?;
        let quiet = self.heard.elapsed() >= GRACE;
        // A machine that restarts will speak again.
        (quiet && last.end != End::Reboot).then(|| Outcome::Said(last.clone()))
    }

    /// Shows what the machine says; false when it has hung up.
    fn listen(&mut self) -> Result<bool> {
        let mut buffer = [0; 16384];
        match self.reader.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.heard = Instant::now();
                self.watch.feed(bytes);
                let mut out = stdout();
                out.write_all(bytes)
                    .and_then(|()| out.flush())
                    .context("cannot write")?;
                Ok(true)
            }
            Err(error) if retry(error.kind()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error).context("cannot read the serial line"),
        }
    }

    /// Takes what was typed; true for the kill sequence.
    fn read_keys(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let count = match stdin().lock().read(&mut buffer) {
            Ok(count) => count,
            Err(error) if retry(error.kind()) => return Ok(false),
            Err(error) => return Err(error).context("cannot read the terminal"),
        };
        if count == 0 {
            self.typing = false;
        }
        let typed = self.escape.feed(buffer.get(..count).unwrap_or_default());
        self.pending.extend(typed.forward);
        Ok(typed.kill)
    }

    /// Sends as much as the machine takes now.
    fn send(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            match self.writer.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if retry(error.kind()) => return Ok(()),
                // It hung up, which reading notices too.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                    ) =>
                {
                    self.pending.clear();
                }
                Err(error) => return Err(error).context("cannot write to the serial line"),
            }
        }
        Ok(())
    }
}

fn retry(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

const SIGNALS: [(Signal, &str); 3] = [
    (Signal::SIGINT, "SIGINT"),
    (Signal::SIGTERM, "SIGTERM"),
    (Signal::SIGHUP, "SIGHUP"),
];

/// From now on these signals are read like input, so that the terminal is put back and the machine
/// stopped in order. The machine, started before, does not inherit this.
fn block_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for (signal, _) in SIGNALS {
        set.add(signal);
    }
    set.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("cannot wait for signals")
}

fn name(number: u32) -> &'static str {
    let known = SIGNALS
        .iter()
        .find(|(signal, _)| u32::try_from(*signal as i32) == Ok(number));
    known.map_or("a signal", |(_, name)| name)
}
