//! Carries gdb's connection over a machine's debug line.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::thread;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Takes one connection and carries bytes both ways until gdb closes it; returns where to connect.
pub(super) fn start(line: File) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        // What ends a connection is for gdb to tell.
        if let Ok((stream, _)) = listener.accept() {
            let _ = carry(line, stream);
        }
    });
    Ok(address)
}

fn carry(mut line: File, mut gdb: TcpStream) -> io::Result<()> {
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
