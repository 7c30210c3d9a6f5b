//! Nested runs on a machine without VT-x: Bochs runs a small Debian system, the *outer system*,
//! whose KVM offers VT-x to QEMU, and QEMU runs Tessera as on a user's machine.
//!
//! Whoever wants one boots it once with the files it needs and uses it for any number of runs:
//!
//! ```ignore
//! let mut outer = Outer::boot(ws, &Layout::new(&[("tessera.iso", iso)]), &log, limit)?;
//! outer.ask("modprobe kvm_intel")?;
//! outer.start_qemu(&Spec::new(Kind::Qemu, Boot::Iso("tessera.iso".into())))?;
//! outer.line().expect("~ # ")?;            // the inner machine's serial line is ours now
//! outer.line().type_line("poweroff")?;
//! outer.qemu_ended()?.ended_well()?;
//! ```
//!
//! The outer system's console takes one command at a time (`xtask/src/setup/outer.rs`), QEMU's
//! serial line is its standard input and output, so the same [`Script`] talks to the shell and to
//! whatever QEMU runs. Time limits are the wall clock's: Bochs skips idle time, so `sleep` in the
//! outer system says nothing. What hangs is ended by dropping the [`Outer`].

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::image::{self, Contents};
use crate::machine::{self, Boot, Kind, Spec};
use crate::setup::outer;
use crate::test::{Script, Transcript};
use crate::workspace::Workspace;

/// Says that the shell takes a command, and how the last one ended.
const READY: &str = "outer: ready";
const STATUS: &str = "outer: status ";

/// VT-x with EPT, unrestricted guest, VMCS shadowing and the preemption timer. KVM does not start
/// a guest on Bochs's models with posted interrupts unless it is told not to use them.
const MODEL: &str = "corei7_haswell_4770";

/// An outer system to boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout<'a> {
    /// Files in its current directory: name and place on this machine.
    pub(crate) files: &'a [(&'a str, &'a Path)],
    /// CPUs.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Bochs's CPU model.
    pub(crate) cpu_model: &'a str,
}

impl<'a> Layout<'a> {
    /// One CPU and room for a machine of 512 MiB.
    pub(crate) fn new(files: &'a [(&'a str, &'a Path)]) -> Self {
        Self {
            files,
            cpus: 1,
            memory_mib: 1536,
            cpu_model: MODEL,
        }
    }
}

/// A running outer system; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Outer {
    script: Script,
}

impl Outer {
    /// Boots it to its shell. Its serial line goes to `log`, its image beside that; all of its life
    /// has `limit`, unless [`Script::renew`] grants more.
    pub(crate) fn boot(
        ws: &Workspace,
        layout: &Layout<'_>,
        log: &Path,
        limit: Duration,
    ) -> Result<Self> {
        let iso = log.with_extension("iso");
        write_image(ws, layout, &iso)?;
        let spec = Spec {
            cpus: layout.cpus,
            memory_mib: layout.memory_mib,
            cpu_model: Some(layout.cpu_model.to_owned()),
            debug_line: true,
            ..Spec::new(Kind::Bochs, Boot::Iso(iso))
        };
        let mut script = Script::start(ws, &spec, log, limit)?;
        script
            .expect(READY)
            .context("the outer system did not come up")?;
        Ok(Self { script })
    }

    /// The serial line, of the shell or of what runs in it.
    pub(crate) fn line(&mut self) -> &mut Script {
        &mut self.script
    }

    /// The other end of `/dev/ttyS1`, for a debugger.
    pub(crate) fn debug_line(&self) -> Result<File> {
        self.script.debug_line()
    }

    /// Runs a command; its output, if it succeeds.
    pub(crate) fn ask(&mut self, command: &str) -> Result<String> {
        let (status, said) = self.run(command)?;
        ensure!(
            status == 0,
            "`{command}` ended with status {status} in the outer system: {said}"
        );
        Ok(said)
    }

    /// Runs a command; its exit status and output.
    pub(crate) fn run(&mut self, command: &str) -> Result<(u8, String)> {
        self.begin(command)?;
        self.end()
    }

    /// Starts a command; what it says comes on the [`line`](Self::line).
    pub(crate) fn begin(&mut self, command: &str) -> Result<()> {
        self.script.mark();
        self.script.type_line(command)
    }

    /// Waits for the end of the command; its exit status, and all it said.
    pub(crate) fn end(&mut self) -> Result<(u8, String)> {
        self.script.expect(STATUS)?;
        let status = self.script.rest_of_line()?;
        let status = status
            .parse()
            .with_context(|| format!("the outer system gave status {status:?}"))?;
        self.script.expect(READY)?;
        let said = self.script.since_mark();
        let said = said
            .rsplit_once(STATUS)
            .map_or(said.as_str(), |(said, _)| said);
        Ok((status, said.trim().to_owned()))
    }

    /// Starts QEMU with the command line that `run` would use on a host with nested VT-x.
    pub(crate) fn start_qemu(&mut self, spec: &Spec) -> Result<()> {
        self.begin(&qemu_line(spec)?)
    }

    /// Waits for QEMU's end; what the machine said on its serial line.
    pub(crate) fn qemu_ended(&mut self) -> Result<Transcript> {
        let (status, said) = self.end()?;
        ensure!(status == 0, "QEMU ended with status {status}: {said}");
        Ok(Transcript::parse(said))
    }
}

/// QEMU's command line as typed in the outer system.
pub(crate) fn qemu_line(spec: &Spec) -> Result<String> {
    let words: Vec<String> = machine::nested_command(spec)
        .iter()
        .map(|word| quoted(word))
        .collect();
    Ok(words.join(" "))
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:=/+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn write_image(ws: &Workspace, layout: &Layout<'_>, iso: &Path) -> Result<()> {
    let base = outer::dir(ws.cache());
    let extra = iso.with_extension("cpio");
    fs::write(&extra, outer::files(layout.files)?)
        .with_context(|| format!("cannot write {}", extra.display()))?;
    let contents = Contents {
        commands: "    linux /boot/vmlinuz console=ttyS0 quiet panic=-1 mitigations=off nokaslr\n    \
                   initrd /boot/base.img /boot/files.img\n",
        files: &[
            ("vmlinuz", &base.join("vmlinuz")),
            ("base.img", &base.join("initrd.img")),
            ("files.img", &extra),
        ],
        modules: &["linux"],
    };
    image::write(&contents, iso)?;
    fs::remove_file(&extra).with_context(|| format!("cannot remove {}", extra.display()))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_for_the_shell_stay_whole() {
        assert_eq!(quoted("pc,accel=kvm"), "pc,accel=kvm");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
