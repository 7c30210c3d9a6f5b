//! A scripted debugger session: break in Rust code, print a symbolised backtrace.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::micro::{self, Guest};
use super::{Case, Scenario, Tier};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "gdb",
    tier: Tier::Qemu,
    about: "gdb breaks in Rust code and prints a symbolised backtrace",
    limit: Duration::from_secs(180),
    run: session,
}];

/// The end of the mangled name of `vmm_core::start::start`, the core's first function.
const CORE_START: &str = "8vmm_core5start5start";

/// Its address: the debugger would place a breakpoint by name behind the function's first lines,
/// which need not be on the way that is taken.
fn core_start(debug: &Path) -> Result<String> {
    let done = Command::new("nm")
        .arg(debug)
        .output()
        .context("cannot run nm (Debian package binutils)")?;
    let out = String::from_utf8_lossy(&done.stdout);
    let line = out.lines().find(|line| line.ends_with(CORE_START));
    let address = line.and_then(|line| line.split(' ').next());
    Ok(address
        .context("the hypervisor has no function vmm_core::start::start")?
        .to_owned())
}

fn session(case: &Case<'_>) -> Result<()> {
    let artifacts = case.artifacts;
    let name = case.scenario.name;
    let config = artifacts.file(name, "toml");
    let guest = Guest {
        name: "hello",
        program: "hello",
        vcpus: 1,
        cmdline: "",
    };
    fs::write(&config, micro::description(artifacts, &[guest])).context("writing the system")?;
    let script = artifacts.file(name, "gdb");
    let commands = format!(
        "backtrace\nthbreak *0x{}\ncontinue\nbacktrace\ninfo symbol $pc\n",
        core_start(artifacts.debug())?
    );
    fs::write(&script, commands).context("writing the debugger's commands")?;
    let log = artifacts.log(name);
    let out = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new(std::env::current_exe().context("cannot find this program")?)
        .arg("gdb")
        .arg("--config")
        .arg(&config)
        .arg("--batch")
        .arg(&script)
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
    ensure!(status.success(), "the session ended with {status}");
    for words in [
        // Frame 0 of both backtraces with its source line, and the caller of the second.
        &["#0", "boot_start", "boot/src/start.rs:"][..],
        &["#0", "start ()", "vmm-core/src/start.rs:"],
        &["#1", "on_own_stack", "boot/src/start.rs:"],
        &["vmm_core", "::start::start", "in section .text"],
    ] {
        let found = said
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found, "no line of the session has all of {words:?}");
    }
    Ok(())
}
