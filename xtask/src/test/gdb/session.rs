//! One run of `cargo xtask gdb` with a script, and what it must have shown.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::test::Case;

/// What each part of a session must show: lines that have all of these words.
pub(super) type Expected = &'static [(&'static str, &'static [&'static [&'static str]])];

/// Runs the commands of `script` with these options of `cargo xtask gdb`; what they said, which is
/// also in the log of that name.
pub(super) fn run(case: &Case<'_>, name: &str, script: &str, options: &[&str]) -> Result<String> {
    let artifacts = case.artifacts;
    let batch = artifacts.file(name, "gdb");
    fs::write(&batch, script).context("writing the debugger's commands")?;
    let log = artifacts.log(name);
    let out = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new(std::env::current_exe().context("cannot find this program")?)
        .arg("gdb")
        .args(options)
        .arg("--batch")
        .arg(&batch)
        .current_dir(artifacts.workspace().root())
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()
        .context("cannot run cargo xtask gdb")?;
    let end = Instant::now() + case.scenario.limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            anyhow::bail!(
                "the session did not end within {} s",
                case.scenario.limit.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(50));
    };
    let said = fs::read_to_string(&log).context("reading the session")?;
    ensure!(
        status.success(),
        "the session ended with {status}, see {}",
        log.display()
    );
    Ok(said)
}

/// Looks for the lines, each in its part of the session.
pub(super) fn check(said: &str, expected: Expected) -> Result<()> {
    for (part, lines) in expected {
        let (_, rest) = said
            .split_once(&format!("== {part}\n"))
            .with_context(|| format!("the session did not get to: {part}"))?;
        let text = rest.split("\n== ").next().unwrap_or_default();
        for words in *lines {
            let found = text
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)));
            ensure!(found, "{part}: no line has all of {words:?}");
        }
    }
    ensure!(
        !said.contains("not refused:"),
        "a command took what it must refuse"
    );
    ensure!(!said.contains("Traceback"), "a command failed in Python");
    Ok(())
}
