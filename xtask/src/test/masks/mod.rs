//! Any subset of VT-x: the hypervisor runs guests without each optional feature, alone and in
//! random sets, on every CPU model of both versions of Bochs, or refuses in one line that names
//! what it needs.
//!
//! What is required and what is not comes from the tables in `docs/hardware.md`. In the built
//! Bochs a feature can be missing in the CPU itself, which then does not accept it either; in
//! both the hypervisor can be told to do without (`vmx.mask=`).

mod machine;
mod plan;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Case, Scenario, Tier};
use crate::setup;
use machine::Machine;
use plan::{Features, MODELS, Model, Trial};

/// The seed of the random sets unless `--seed` names another.
pub(super) const SEED: u64 = 20_260_101;
/// Random sets for each model in the whole matrix.
const SETS: usize = 64;
/// Random sets of the sample, over all models.
const SAMPLE_SETS: usize = 20;
/// Failures after which a scenario gives up.
const ENOUGH: usize = 5;

pub(super) const SAMPLE: &[Scenario] = &[Scenario {
    name: "masks",
    tier: Tier::Bochs,
    about: "a sample of the matrix: every feature of VT-x missing once, 20 random sets",
    limit: Duration::from_secs(1200),
    run: sample,
}];

/// The whole matrix: one scenario for each model.
pub(super) const WHOLE: [Scenario; MODELS.len()] = {
    let mut all = [SAMPLE[0]; MODELS.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = Scenario {
            name: MODELS[index].scenario,
            tier: Tier::Matrix,
            about: "every feature of VT-x missing alone, 64 random sets, on this CPU model",
            limit: Duration::from_secs(7200),
            run: whole,
        };
        index += 1;
    }
    all
};

fn sample(case: &Case<'_>) -> Result<()> {
    let features = Features::of_document()?;
    run(
        case,
        &features,
        plan::sample(&features, SAMPLE_SETS, case.seed),
    )
}

fn whole(case: &Case<'_>) -> Result<()> {
    let features = Features::of_document()?;
    let ours = |model: &&Model| model.scenario == case.scenario.name;
    let trials: Vec<Trial> = MODELS
        .iter()
        .filter(ours)
        .flat_map(|model| plan::whole(model, &features, SETS, case.seed))
        .collect();
    run(case, &features, trials)
}

/// Boots once for each trial, and says what was covered.
fn run(case: &Case<'_>, features: &Features, mut trials: Vec<Trial>) -> Result<()> {
    let packaged = trials.iter().filter(|trial| trial.model.packaged).count();
    if packaged > 0 && !setup::ensure_packaged_bochs(case.artifacts.workspace())? {
        println!("masks: {packaged} boots left out: only Debian has the packaged Bochs");
        trials.retain(|trial| !trial.model.packaged);
    }
    let begun = Instant::now();
    let mut machine = Machine::new(case)?;
    let mut failures = Vec::new();
    let (mut ran, mut refused) = (0_u32, 0_u32);
    for trial in &trials {
        ensure!(
            begun.elapsed() < case.scenario.limit,
            "after {} s: {ran} ran, {refused} were refused",
            case.scenario.limit.as_secs()
        );
        match machine.attempt(trial, features) {
            Ok(true) => ran += 1,
            Ok(false) => refused += 1,
            Err(error) => {
                // The whole takes long: do not keep it back until the end.
                println!("{}: FAILED: {trial}: {error:#}", case.scenario.name);
                failures.push(trial.to_string());
            }
        }
        if failures.len() >= ENOUGH {
            break;
        }
    }
    println!(
        "{}: seed {}: {} boots: {ran} ran, {refused} refused and named the need, {} failed",
        case.scenario.name,
        case.seed,
        trials.len(),
        failures.len()
    );
    ensure!(failures.is_empty(), "failed:\n{}", failures.join("\n"));
    Ok(())
}
