//! This terminal in raw mode: every key goes to the machine, Ctrl-C included.

use std::io::{IsTerminal as _, stdin};

use anyhow::{Context, Result};
use nix::sys::termios::{self, OutputFlags, SetArg, Termios};

/// Raw mode while this lives; the terminal is as before afterwards.
#[derive(Debug)]
pub(super) struct RawMode {
    before: Option<Termios>,
}

impl RawMode {
    /// Switches the terminal on standard input; nothing happens where that is none.
    pub(super) fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self { before: None });
        }
        let before = termios::tcgetattr(stdin()).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        // A newline of ours or of the machine starts a line in either case.
        raw.output_flags |= OutputFlags::OPOST | OutputFlags::ONLCR;
        termios::tcsetattr(stdin(), SetArg::TCSADRAIN, &raw)
            .context("cannot set the terminal to raw mode")?;
        Ok(Self {
            before: Some(before),
        })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nowhere to report this to: the terminal is gone.
            let _ = termios::tcsetattr(stdin(), SetArg::TCSADRAIN, before);
        }
    }
}
