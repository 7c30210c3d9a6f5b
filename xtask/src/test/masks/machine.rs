//! One boot of a trial, and what must come of it.
//!
//! Every boot takes the same ISO but for the hypervisor's command line, whose place in the image
//! is filled in anew.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::micro::{self, Guest};
use super::super::transcript::Transcript;
use super::super::{Case, Script};
use super::plan::{Features, Trial};
use crate::image::Extras;
use crate::machine::{Boot, Kind, Spec};
use crate::run::watch::End;

/// Room for a command line with every feature's name.
const SLOT: usize = 1024;
const FILLER: u8 = b'~';
/// Wall-clock limit of one boot, which takes a second or two of an idle host.
const LIMIT: Duration = Duration::from_secs(300);

/// Guests that between them use what the features are for.
const GUESTS: [Guest; 7] = [
    Guest::new("hello"),
    Guest::new("msr"),
    Guest::new("io"),
    Guest::new("exceptions"),
    Guest::new("memory_ops"),
    Guest::new("timer_storm"),
    Guest {
        cmdline: "vcpus=1",
        ..Guest::new("fpu")
    },
];

/// The machine that trials boot on.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    case: &'a Case<'a>,
    image: Vec<u8>,
    /// Where the command line is in the image.
    slot: usize,
    iso: PathBuf,
    failures: u32,
}

impl<'a> Machine<'a> {
    /// Makes the image.
    pub(super) fn new(case: &'a Case<'a>) -> Result<Self> {
        let name = case.scenario.name;
        let toml = micro::description(case.artifacts, &GUESTS);
        let archive = case.artifacts.archive(name, &toml)?;
        let filler = String::from_utf8_lossy(&[FILLER; SLOT]).into_owned();
        let extras = Extras {
            cmdline: &filler,
            ..Extras::default()
        };
        let iso = case.artifacts.iso_with(name, Some(&archive), &extras)?;
        let image = fs::read(&iso).with_context(|| format!("reading {}", iso.display()))?;
        let slot = image
            .windows(SLOT)
            .position(|window| window.iter().all(|byte| *byte == FILLER))
            .context("the image has no place for a command line")?;
        Ok(Self {
            case,
            image,
            slot,
            iso,
            failures: 0,
        })
    }

    /// Boots once. True when guests ran, false when the hypervisor refused as it should.
    pub(super) fn attempt(&mut self, trial: &Trial, features: &Features) -> Result<bool> {
        let said = self.boot(trial, features);
        let result = said.and_then(|said| judge(trial, features, &said));
        if result.is_err() {
            self.keep_log();
        }
        result
    }

    fn boot(&mut self, trial: &Trial, features: &Features) -> Result<Transcript> {
        let names: Vec<&str> = trial.missing.iter().map(String::as_str).collect();
        let (cmdline, faults) = if trial.in_cpu {
            (String::new(), features.faults(&trial.missing)?)
        } else {
            (format!("vmx.mask={}", names.join(",")), Vec::new())
        };
        let place = self.image.get_mut(self.slot..self.slot + SLOT);
        let place = place.context("the place for a command line is gone")?;
        ensure!(cmdline.len() <= SLOT, "the command line is too long");
        place.fill(b' ');
        for (byte, letter) in place.iter_mut().zip(cmdline.bytes()) {
            *byte = letter;
        }
        fs::write(&self.iso, &self.image)
            .with_context(|| format!("writing {}", self.iso.display()))?;
        let spec = Spec {
            memory_mib: 256,
            cpu_model: Some(trial.model.name.to_owned()),
            packaged_bochs: trial.model.packaged,
            faults,
            ..Spec::new(Kind::Bochs, Boot::Iso(self.iso.clone()))
        };
        let artifacts = self.case.artifacts;
        let log = artifacts.log(self.case.scenario.name);
        Script::start(artifacts.workspace(), &spec, &log, LIMIT)?.finish()
    }

    /// Keeps what a failed boot said.
    fn keep_log(&mut self) {
        self.failures += 1;
        let name = self.case.scenario.name;
        let log = self.case.artifacts.log(name);
        let kept = self
            .case
            .artifacts
            .log(&format!("{name}-{}", self.failures));
        // A log that cannot be kept is no reason to stop.
        let _ = fs::copy(log, kept);
    }
}

/// Checks that it ran, or refused in a line that names what is missing.
fn judge(trial: &Trial, features: &Features, said: &Transcript) -> Result<bool> {
    said.without_panic()?;
    let last = said.last_words()?;
    let required: Vec<_> = features.required(&trial.missing).collect();
    if trial.model.lacks.is_none() && required.is_empty() {
        ensure!(last.good(), "the end was {:?} ({})", last.end, last.reason);
        micro::verdicts(said, GUESTS[0].name, &GUESTS)?;
        let absent = said.line_with(&["VMX: absent: "])?;
        let absent: Vec<&str> = absent.split_whitespace().collect();
        let used = trial
            .missing
            .iter()
            .find(|name| !absent.contains(&name.as_str()));
        ensure!(used.is_none(), "it did not do without {used:?}");
        return Ok(true);
    }
    ensure!(last.end == End::PowerOff, "the end was {:?}", last.end);
    let names_one = trial
        .model
        .lacks
        .is_some_and(|lacks| last.reason.contains(lacks))
        || required
            .iter()
            .flat_map(|feature| &feature.bits)
            .any(|(msr, bit)| last.reason.contains(&format!("{msr} bit {bit})")));
    ensure!(
        last.reason.starts_with("Tessera needs ") && names_one,
        "the refusal names no requirement that is missing: {}",
        last.reason
    );
    Ok(false)
}
