//! Carries gdb's connections to a gdbstub in the outer system, over the outer machine's debug line.
//!
//! The stub listens on a socket, because it takes the opening of a connection for the debugger's
//! arrival and stops the machine then. It learns nothing of the kind from a serial line, where only
//! the first session works: the one that detaches leaves the stub without a process to talk about.
//! So there is a connection to the stub for each of gdb's: [`START`] opens it, [`HANG_UP`] ends it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::nested::Outer;

/// What the outer end says when it waits for [`START`].
const READY: &[u8] = b"relay: ready\n";
/// Asks for a connection to the stub.
const START: &[u8] = b"start\n";
/// The outer end's interrupt character, Ctrl-]: no packet of gdb's to QEMU has it.
const HANG_UP: &[u8] = b"\x1d";

/// The lines of the outer end's script before the connection.
const SCRIPT: &[&str] = &[
    "stty raw -echo isig intr ^] quit undef susp undef 115200",
    "echo 'relay: ready'",
    "read -r start",
];

/// Makes the outer system's init serve the line, for a stub on this port of 127.0.0.1. Each
/// session ends the script, and init starts the next.
pub(super) fn install(outer: &mut Outer, port: u16) -> Result<()> {
    outer.ask("ifconfig lo 127.0.0.1")?;
    outer.ask(": > gdb-relay")?;
    let connect = format!("exec nc 127.0.0.1 {port}");
    for line in SCRIPT.iter().copied().chain([connect.as_str()]) {
        outer.ask(&format!("echo \"{line}\" >> gdb-relay"))?;
    }
    outer.ask("echo 'ttyS1::respawn:/bin/sh /files/gdb-relay' >> /etc/inittab && kill -HUP 1")?;
    Ok(())
}

/// Takes one connection and carries bytes both ways until gdb closes it; returns where to connect.
pub(super) fn start(line: File) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        // What ends a connection is for gdb to tell.
        if let Ok((stream, _)) = listener.accept() {
            let _ = serve(line, stream);
        }
    });
    Ok(address)
}

fn serve(mut line: File, gdb: TcpStream) -> io::Result<()> {
    wait_until_ready(&mut line)?;
    line.write_all(START)?;
    let carried = carry(&mut line, gdb);
    line.write_all(HANG_UP)?;
    carried
}

/// Drops what the last session left on the line.
fn wait_until_ready(line: &mut impl io::Read) -> io::Result<()> {
    let mut tail = Vec::new();
    let mut byte = [0];
    while !tail.ends_with(READY) {
        line.read_exact(&mut byte)?;
        tail.push(byte[0]);
    }
    Ok(())
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
    use super::{READY, wait_until_ready};
    use std::io::Read as _;

    #[test]
    fn what_comes_after_ready_stays() {
        let said = [b"$OK#9a\r\nrelay: ", READY, b"$T05#b9"].concat();
        let mut line = said.as_slice();
        wait_until_ready(&mut line).unwrap();
        let mut rest = String::new();
        line.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "$T05#b9");
        assert!(wait_until_ready(&mut b"relay: read".as_slice()).is_err());
    }
}
