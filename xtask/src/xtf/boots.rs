//! Tests in emulated machines: several in one boot, each a domain of its own.
//!
//! All tests of a boot run at once. A boot that does not come to an orderly end leaves some
//! without an outcome; each of those runs once more, alone, so that nobody else can be to blame.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::tree::Instance;
use super::verdict::{Outcome, Verdict, judge};
use crate::image::Extras;
use crate::machine::{Boot, Kind, Spec};
use crate::test::{Ended, Script, Transcript};
use crate::workspace::Workspace;
use crate::{image, system};

/// Beside the domains' memory: the hypervisor, its archive and the firmware.
const OVERHEAD_MIB: u32 = 256;
/// The most memory that Bochs has to offer.
const MOST_MIB: u32 = 2048;

/// How the tests are run.
#[derive(Debug)]
pub(super) struct Runner<'a> {
    pub(super) ws: &'a Workspace,
    /// The hypervisor's image.
    pub(super) hypervisor: &'a Path,
    /// Logs, descriptions and images.
    pub(super) dir: PathBuf,
    /// Wall-clock limit of a boot.
    pub(super) limit: Duration,
    /// Memory of each domain.
    pub(super) memory_mib: u32,
    /// Tests in one boot.
    pub(super) batch: usize,
    /// Boots side by side.
    pub(super) jobs: usize,
}

/// A boot's number, for its files, and the places of its tests in the list.
type Batch = (usize, Vec<usize>);

impl Runner<'_> {
    /// Runs all tests; their outcomes come in the same order.
    pub(super) fn run(&self, tests: &[Instance]) -> Result<Vec<Outcome>> {
        let together = self.batch.min(self.fitting()).max(1);
        let places: Vec<usize> = (0..tests.len()).collect();
        let batches: Vec<Batch> = places
            .chunks(together)
            .map(<[usize]>::to_vec)
            .enumerate()
            .collect();
        let outcomes = Mutex::new(vec![None; tests.len()]);
        self.all(tests, batches.clone(), &outcomes)?;
        let open: Vec<Batch> = {
            let outcomes = outcomes.lock().unwrap_or_else(|e| e.into_inner());
            let open = places
                .iter()
                .filter(|&&at| matches!(outcomes.get(at), Some(None)));
            let number = batches.len();
            open.enumerate()
                .map(|(i, &at)| (number + i, vec![at]))
                .collect()
        };
        if !open.is_empty() {
            eprintln!(
                "{} tests have no outcome: once more, each alone",
                open.len()
            );
            self.all(tests, open, &outcomes)?;
        }
        let outcomes = outcomes.into_inner().unwrap_or_else(|e| e.into_inner());
        let hang = || Outcome {
            verdict: Verdict::Hang,
            note: format!("did not end within {} s", self.limit.as_secs()),
        };
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(hang))
            .collect())
    }

    /// How many domains fit into a machine.
    fn fitting(&self) -> usize {
        let room = MOST_MIB.saturating_sub(OVERHEAD_MIB) / self.memory_mib.max(1);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Runs the batches, `jobs` side by side.
    fn all(
        &self,
        tests: &[Instance],
        batches: Vec<Batch>,
        outcomes: &Mutex<Vec<Option<Outcome>>>,
    ) -> Result<()> {
        let jobs = self.jobs.clamp(1, batches.len().max(1));
        let queue: Mutex<VecDeque<Batch>> = Mutex::new(batches.into());
        let work = || -> Result<()> {
            let next = || queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
            while let Some((number, places)) = next() {
                let chosen: Vec<&Instance> =
                    places.iter().filter_map(|&at| tests.get(at)).collect();
                let ended = self.boot(number, &chosen)?;
                let mut outcomes = outcomes.lock().unwrap_or_else(|e| e.into_inner());
                for (at, outcome) in places.into_iter().zip(assess(&ended, &chosen)) {
                    if let Some(place) = outcomes.get_mut(at) {
                        *place = outcome;
                    }
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let mut all = Ok(());
            for worker in workers {
                let result = worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all = all.and(result);
            }
            all
        })
    }

    /// Boots these tests and listens until the run is over or its time is.
    fn boot(&self, number: usize, tests: &[&Instance]) -> Result<Ended> {
        let file = |extension| self.dir.join(format!("boot-{number}.{extension}"));
        let (config, archive, iso) = (file("toml"), file("tsa"), file("iso"));
        fs::write(&config, description(tests, self.memory_mib))
            .with_context(|| format!("cannot write {}", config.display()))?;
        system::pack(&config, system::Guests::none(), &archive)?;
        image::iso(self.hypervisor, Some(&archive), &Extras::default(), &iso)?;
        let count = u32::try_from(tests.len()).unwrap_or(u32::MAX);
        let spec = Spec {
            memory_mib: self
                .memory_mib
                .saturating_mul(count)
                .saturating_add(OVERHEAD_MIB),
            ..Spec::new(Kind::Bochs, Boot::Iso(iso))
        };
        let names = tests
            .iter()
            .map(|test| test.name())
            .collect::<Vec<_>>()
            .join(" ");
        eprintln!("boot {number}: {names}");
        Ok(Script::start(self.ws, &spec, &file("log"), self.limit)?.ended())
    }
}

/// The system of these tests. A reboot is a triple fault here: the domain stays down.
fn description(tests: &[&Instance], memory_mib: u32) -> String {
    let mut toml = String::new();
    for test in tests {
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "[[domain]]\nname = {:?}\nkernel = {:?}\nmemory = \"{memory_mib}M\"\nvcpus = {}\n\
             on_reboot = \"stop\"\n",
            test.name(),
            test.program.display().to_string(),
            test.vcpus,
        );
    }
    toml
}

/// The outcome of each test of a boot that came to one.
fn assess(ended: &Ended, tests: &[&Instance]) -> Vec<Option<Outcome>> {
    let shown = tests.first().map(|test| test.name()).unwrap_or_default();
    let alone = tests.len() == 1;
    let Ended { said, order } = ended;
    let log: Vec<&str> = said.lines().filter(|line| line.starts_with('[')).collect();
    let one = |test: &&Instance| {
        let name = test.name();
        let outcome = judge(&name, &said.lines_of(&name, &shown), &log);
        outcome.or_else(|| alone.then(|| host_died(said)).flatten())
    };
    let outcomes = tests.iter().map(one).collect();
    if let Err(error) = order {
        eprintln!("a boot did not end in order: {error:#}");
    }
    outcomes
}

/// The outcome when the hypervisor did not survive its only test.
fn host_died(said: &Transcript) -> Option<Outcome> {
    let panic = said.without_panic().err()?;
    Some(Outcome {
        verdict: Verdict::Host,
        note: panic.to_string(),
    })
}
