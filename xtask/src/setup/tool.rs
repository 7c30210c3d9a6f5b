//! Running other programs, and telling the user about it on standard error.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Says what happens next.
pub(crate) fn step(text: &str) {
    eprintln!("setup: {text}");
}

/// Says what went wrong without stopping the work.
pub(crate) fn warn(text: &str) {
    eprintln!("setup: warning: {text}");
}

/// Runs a program on the user's terminal (output to standard error).
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = name(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

/// Runs a program and returns what it printed; its own errors become part of ours.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a long job and shows how far it is: `counts` says which lines of output are one of `total`
/// pieces of work. All output goes to `log` as well.
pub(crate) fn progress(
    command: &mut Command,
    what: &str,
    total: usize,
    counts: impl Fn(&str) -> bool,
    log: &mut impl std::io::Write,
) -> Result<()> {
    let name = name(command);
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    // The command keeps the write ends: without this the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut shown = Progress::new(what, total);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        log.write_all(&line)?;
        log.write_all(b"\n")?;
        if counts(&String::from_utf8_lossy(&line)) {
            shown.advance();
        }
    }
    shown.end();
    let status = child.wait()?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

/// A percentage: rewritten in place on a terminal, one line per tenth elsewhere.
#[derive(Debug)]
struct Progress<'a> {
    what: &'a str,
    total: usize,
    done: usize,
    percent: usize,
    terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str, total: usize) -> Self {
        Self {
            what,
            total,
            done: 0,
            percent: 0,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    fn advance(&mut self) {
        self.done = self.done.saturating_add(1);
        let percent = self
            .done
            .saturating_mul(100)
            .checked_div(self.total)
            .unwrap_or(100)
            .min(100);
        if percent == self.percent {
            return;
        }
        let tenth = percent / 10 != self.percent / 10;
        self.percent = percent;
        if self.terminal {
            eprint!("\rsetup: {}: {percent}%", self.what);
            // A progress line that cannot be shown is no error.
            let _ = std::io::stderr().flush();
        } else if tenth {
            eprintln!("setup: {}: {percent}%", self.what);
        }
    }

    fn end(&self) {
        if self.terminal && self.percent > 0 {
            eprintln!();
        }
    }
}

/// The program and its first plain arguments, to name it in messages.
fn name(command: &Command) -> String {
    let mut name = command.get_program().to_string_lossy().into_owned();
    let mut skip = false;
    for arg in command.get_args().map(|arg| arg.to_string_lossy()) {
        if core::mem::take(&mut skip) {
            continue;
        }
        if arg == "-o" {
            skip = true;
            continue;
        }
        name.push(' ');
        name.push_str(&arg);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{name, output, progress};
    use std::process::Command;

    #[test]
    fn options_for_apt_are_not_worth_showing() {
        let mut command = Command::new("apt-get");
        command.args(["-o", "A=b", "-q", "update"]);
        assert_eq!(name(&command), "apt-get -q update");
    }

    #[test]
    fn a_failing_program_is_quoted() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("why") && text.contains("exit status: 3"),
            "{text}"
        );
    }

    #[test]
    fn progress_keeps_the_whole_log() {
        let mut log = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2"]);
        progress(&mut command, "test", 2, |_| true, &mut log).unwrap();
        assert_eq!(log, b"one\ntwo\n");
    }
}
