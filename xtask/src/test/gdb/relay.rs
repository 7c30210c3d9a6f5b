//! Carries gdb's connections to a gdbstub in the outer system, over the outer machine's debug line.
//!
//! The stub listens on a socket, because it takes the opening of a connection for the debugger's
//! arrival and stops the machine then. It learns nothing of the kind from a serial line, where only
//! the first session works: the one that detaches leaves the stub without a process to talk about.
//! So there is a connection to the stub for each of gdb's: [`START`] opens it, [`HANG_UP`] ends it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::nested::Outer;

/// What the outer end says when it waits for [`START`].
const READY: &[u8] = b"relay: ready\n";
/// Asks for a connection to the stub.
const START: &[u8] = b"start\n";
/// What the outer end says before it makes the connection.
const STARTED: &[u8] = b"relay: started\n";
/// The outer end's interrupt character, Ctrl-]: no packet of gdb's to QEMU has it.
const HANG_UP: &[u8] = b"\x1d";

/// The lines of the outer end's script before the connection.
const SCRIPT: &[&str] = &[
    "stty raw -echo isig intr ^] quit undef susp undef 115200",
    "echo 'relay: ready'",
    "read -r start",
    "echo 'relay: started'",
];

/// How long the outer end may take to answer before the line is hung up and tried again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is tried.
const ATTEMPTS: u32 = 5;

/// Makes the outer system's init serve the line, for a stub on this port of 127.0.0.1. Each
/// session ends the script, and init starts the next.
pub(super) fn install(outer: &mut Outer, port: u16) -> Result<()> {
    outer.ask("ifconfig lo 127.0.0.1")?;
    outer.ask(": > gdb-relay")?;
    // A QEMU that was started just now may not listen yet.
    let connect = format!("until nc 127.0.0.1 {port}; do sleep 1; done");
    for line in SCRIPT.iter().copied().chain([connect.as_str()]) {
        outer.ask(&format!("echo \"{line}\" >> gdb-relay"))?;
    }
    outer.ask("echo 'ttyS1::respawn:/bin/sh /files/gdb-relay' >> /etc/inittab && kill -HUP 1")?;
    Ok(())
}

/// A connection to the stub, for one session of gdb's.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where gdb connects.
    pub(super) address: String,
    carrier: JoinHandle<io::Result<()>>,
}

impl Relay {
    /// Connects to the stub, and carries bytes both ways once gdb has come.
    pub(super) fn start(mut line: File) -> Result<Self> {
        connect(&mut line, PATIENCE)?;
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?.to_string();
        let carrier = thread::spawn(move || {
            let (gdb, _) = listener.accept()?;
            // What ends the session is for gdb to tell.
            let _ = carry(&mut line, gdb);
            line.write_all(HANG_UP)
        });
        Ok(Self { address, carrier })
    }

    /// Waits for the end of a session that gdb has begun.
    pub(super) fn end(self) -> Result<()> {
        let ended = self.carrier.join();
        let ended = ended.map_err(|_| anyhow!("the relay panicked"))?;
        ended.context("cannot hang up gdb's line")
    }
}

/// Has the outer end connect to the stub; a line that lost something gets another chance.
fn connect(line: &mut (impl AsFd + Read + Write), patience: Duration) -> Result<()> {
    let mut said = Vec::new();
    for _ in 0..ATTEMPTS {
        if heard(line, READY, patience, &mut said)? {
            line.write_all(START)?;
            if heard(line, STARTED, patience, &mut said)? {
                return Ok(());
            }
        }
        line.write_all(HANG_UP)?;
    }
    let said = String::from_utf8_lossy(&said);
    bail!("the outer end of gdb's line does not answer, the last it said was {said:?}")
}

/// Waits until the line has said `words` and nothing after them; false where it does not say them
/// in time. `said` is all that came, such as what an earlier session left on the line.
fn heard(
    line: &mut (impl AsFd + Read),
    words: &[u8],
    patience: Duration,
    said: &mut Vec<u8>,
) -> Result<bool> {
    let end = Instant::now() + patience;
    said.clear();
    while !said.ends_with(words) {
        let left = end.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(line.as_fd(), PollFlags::POLLIN)], left)? == 0 {
            return Ok(false);
        }
        let mut byte = [0];
        line.read_exact(&mut byte)?;
        said.extend(byte);
    }
    Ok(true)
}

fn carry(line: &mut File, mut gdb: TcpStream) -> io::Result<()> {
    gdb.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let wanted = PollFlags::POLLIN;
        let mut fds = [
            PollFd::new(gdb.as_fd(), wanted),
            PollFd::new(line.as_fd(), wanted),
        ];
        poll(&mut fds, PollTimeout::NONE)?;
        let [from_gdb, from_line] = fds.map(|fd| fd.any().unwrap_or(false));
        if from_gdb {
            let count = gdb.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            line.write_all(&buffer[..count])?;
        }
        if from_line {
            let count = line.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            gdb.write_all(&buffer[..count])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS, HANG_UP, READY, START, STARTED, connect};
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn what_comes_after_the_start_stays() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let said = [b"$OK#9a\r\nrelay: ", READY, STARTED, b"$T05#b9"].concat();
        theirs.write_all(&said).unwrap();
        connect(&mut ours, SHORT).unwrap();
        let mut rest = [0; 7];
        ours.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"$T05#b9");
    }

    #[test]
    fn a_line_that_loses_something_is_tried_again() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let outer = thread::spawn(move || {
            let mut wait_for = |words: &[u8]| {
                let mut heard = vec![0; words.len()];
                theirs.read_exact(&mut heard).unwrap();
                assert_eq!(heard, words);
                theirs.try_clone().unwrap()
            };
            // It has not heard the last hang-up, then its word is lost, then it hears no start.
            wait_for(HANG_UP).write_all(b"relay: read").unwrap();
            wait_for(HANG_UP).write_all(READY).unwrap();
            wait_for(START);
            wait_for(HANG_UP).write_all(READY).unwrap();
            wait_for(START).write_all(STARTED).unwrap();
        });
        connect(&mut ours, SHORT).unwrap();
        outer.join().unwrap();
    }

    #[test]
    fn a_dead_line_is_given_up() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let error = connect(&mut ours, Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
        drop(ours);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, HANG_UP.repeat(ATTEMPTS as usize));
    }
}
