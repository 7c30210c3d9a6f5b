//! Which machines are tried: features from the document, models, and sets of what is missing.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, bail};

use crate::features::{self, Feature};

/// All features.
#[derive(Debug)]
pub(super) struct Features(Vec<Feature>);

impl Features {
    /// Reads the tables of the document.
    pub(super) fn of_document() -> Result<Self> {
        Ok(Self(features::all()?))
    }

    /// The required ones among `names`.
    pub(super) fn required<'a>(
        &'a self,
        names: &'a BTreeSet<String>,
    ) -> impl Iterator<Item = &'a Feature> {
        self.0
            .iter()
            .filter(|feature| feature.required && names.contains(feature.name))
    }

    /// The faults of a machine that lacks `names`.
    pub(super) fn faults(&self, names: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for feature in self.0.iter().filter(|f| names.contains(f.name)) {
            for (msr, bit) in &feature.bits {
                faults.push(format!("absent-{}-{bit}", number(msr)?));
            }
        }
        Ok(faults)
    }
}

/// The number of a capability MSR, in hexadecimal.
fn number(msr: &str) -> Result<&'static str> {
    Ok(match msr {
        "BASIC" => "480",
        "PINBASED_CTLS" => "481",
        "PROCBASED_CTLS" => "482",
        "EXIT_CTLS" => "483",
        "ENTRY_CTLS" => "484",
        "MISC" => "485",
        "PROCBASED_CTLS2" => "48b",
        "EPT_VPID_CAP" => "48c",
        other => bail!("the document names an unknown MSR: {other}"),
    })
}

/// A CPU model of one version of Bochs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    /// The scenario of the whole matrix on it.
    pub(super) scenario: &'static str,
    /// As Bochs calls it.
    pub(super) name: &'static str,
    /// Of the packaged Bochs.
    pub(super) packaged: bool,
    /// What Tessera refuses it for, with all that it has.
    pub(super) lacks: Option<&'static str>,
}

const fn model(scenario: &'static str, name: &'static str, packaged: bool) -> Model {
    Model {
        scenario,
        name,
        packaged,
        lacks: None,
    }
}

const fn refused(model: Model, lacks: &'static str) -> Model {
    Model {
        lacks: Some(lacks),
        ..model
    }
}

/// All models with VMX.
#[rustfmt::skip]
pub(super) const MODELS: [Model; 24] = [
    refused(model("matrix-30-penryn", "core2_penryn_t9600", false), "extended page tables"),
    refused(model("matrix-30-lynnfield", "corei5_lynnfield_750", false), "unrestricted guest"),
    model("matrix-30-arrandale", "corei5_arrandale_m520", false),
    model("matrix-30-sandy", "corei7_sandy_bridge_2600k", false),
    model("matrix-30-ivy", "corei7_ivy_bridge_3770k", false),
    model("matrix-30-haswell", "corei7_haswell_4770", false),
    model("matrix-30-broadwell", "broadwell_ult", false),
    model("matrix-30-skylake", "corei7_skylake_x", false),
    model("matrix-30-cannon", "corei3_cnl", false),
    model("matrix-30-ice", "corei7_icelake_u", false),
    model("matrix-30-tiger", "tigerlake", false),
    model("matrix-30-sapphire", "sapphire_rapids", false),
    model("matrix-30-arrow", "arrow_lake", false),
    refused(model("matrix-27-penryn", "core2_penryn_t9600", true), "extended page tables"),
    refused(model("matrix-27-lynnfield", "corei5_lynnfield_750", true), "unrestricted guest"),
    model("matrix-27-arrandale", "corei5_arrandale_m520", true),
    model("matrix-27-sandy", "corei7_sandy_bridge_2600k", true),
    model("matrix-27-ivy", "corei7_ivy_bridge_3770k", true),
    model("matrix-27-haswell", "corei7_haswell_4770", true),
    model("matrix-27-broadwell", "broadwell_ult", true),
    model("matrix-27-skylake", "corei7_skylake_x", true),
    model("matrix-27-cannon", "corei3_cnl", true),
    model("matrix-27-ice", "corei7_icelake_u", true),
    model("matrix-27-tiger", "tigerlake", true),
];

/// One machine to boot.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) model: Model,
    /// Names of the features that are missing.
    pub(super) missing: BTreeSet<String>,
    /// Missing in the CPU itself; else the hypervisor is told to do without.
    pub(super) in_cpu: bool,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.model.packaged { "2.7" } else { "3.0" };
        let how = if self.in_cpu { "CPU without" } else { "masked" };
        let missing: Vec<&str> = self.missing.iter().map(String::as_str).collect();
        let name = self.model.name;
        write!(f, "Bochs {version}, {name}, {how} [{}]", missing.join(","))
    }
}

/// A CPU cannot lack these: their bits are in the default1 class, where lacking one means that it
/// is always on.
const IN_EVERY_CPU: &str = "debug-controls";

/// Everything there, each feature alone, and `sets` random sets, on one model.
pub(super) fn whole(model: &Model, features: &Features, sets: usize, seed: u64) -> Vec<Trial> {
    let mut random = Random(seed);
    let none = core::iter::once(BTreeSet::new());
    let alone = features
        .0
        .iter()
        .map(|f| BTreeSet::from([f.name.to_owned()]));
    let mut sets: Vec<_> = (0..sets)
        .map(|set| random_set(features, set, &mut random))
        .collect();
    none.chain(alone)
        .chain(sets.drain(..))
        .enumerate()
        .flat_map(|(index, missing)| {
            // A CPU without is the harder test; only sets are tried in turns.
            let in_turn = missing.len() <= 1 || index.is_multiple_of(2);
            let in_cpu = in_turn && !model.packaged && !missing.contains(IN_EVERY_CPU);
            [Trial {
                model: *model,
                missing,
                in_cpu,
            }]
        })
        .collect()
}

/// Each feature once and `sets` random sets, the models in turns; those of the packaged Bochs,
/// which is slow, once each.
pub(super) fn sample(features: &Features, sets: usize, seed: u64) -> Vec<Trial> {
    let mut random = Random(seed);
    let alone = features
        .0
        .iter()
        .map(|f| BTreeSet::from([f.name.to_owned()]));
    let mut missing: Vec<BTreeSet<String>> = alone.collect();
    missing.extend((0..sets).map(|set| random_set(features, set, &mut random)));
    let (unable, able): (Vec<Model>, Vec<Model>) =
        MODELS.iter().partition(|model| model.lacks.is_some());
    let (packaged, built): (Vec<Model>, Vec<Model>) =
        able.into_iter().partition(|model| model.packaged);
    // The last are random sets, the best for those that get few.
    let slow = missing.split_off(missing.len().saturating_sub(packaged.len().min(sets)));
    let slow = packaged.into_iter().zip(slow);
    let refused = unable.into_iter().map(|model| (model, BTreeSet::new()));
    let fast = built.into_iter().cycle().zip(missing);
    let trial = |(index, (model, missing)): (usize, (Model, BTreeSet<String>))| Trial {
        model,
        in_cpu: !index.is_multiple_of(3) && !model.packaged && !missing.contains(IN_EVERY_CPU),
        missing,
    };
    refused
        .chain(slow)
        .chain(fast)
        .enumerate()
        .map(trial)
        .collect()
}

/// About half of the optional features; every eighth set also lacks a required one.
fn random_set(features: &Features, index: usize, random: &mut Random) -> BTreeSet<String> {
    let (required, wanted): (Vec<&Feature>, Vec<&Feature>) =
        features.0.iter().partition(|feature| feature.required);
    let mut set: BTreeSet<String> = wanted
        .iter()
        .filter(|_| random.next().is_multiple_of(2))
        .map(|feature| feature.name.to_owned())
        .collect();
    if index % 8 == 7 {
        let which = random.next() % (required.len() as u64).max(1);
        let which = required.get(usize::try_from(which).unwrap_or(0));
        set.extend(which.map(|feature| feature.name.to_owned()));
    }
    set
}

/// SplitMix64: the same sets for the same seed, everywhere and for ever.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::{Features, MODELS, sample, whole};
    use std::collections::BTreeSet;

    fn features() -> Features {
        Features::of_document().unwrap()
    }

    #[test]
    fn every_feature_has_its_faults() {
        let features = features();
        let names = BTreeSet::from(["vpid".to_owned(), "ept".to_owned()]);
        let faults = features.faults(&names).unwrap();
        assert_eq!(faults, ["absent-48b-1", "absent-48b-5", "absent-48c-32"]);
        let required: Vec<_> = features.required(&names).map(|f| f.name).collect();
        assert_eq!(required, ["ept"]);
        for feature in &features.0 {
            features
                .faults(&BTreeSet::from([feature.name.to_owned()]))
                .unwrap();
        }
    }

    #[test]
    fn a_seed_gives_the_same_trials_every_time() {
        let features = features();
        let names = |seed| -> Vec<String> {
            let trials = sample(&features, 20, seed);
            trials.iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
    }

    #[test]
    fn the_sample_has_every_model_and_feature() {
        let features = features();
        let trials = sample(&features, 20, 1);
        let missing: BTreeSet<_> = trials.iter().flat_map(|trial| &trial.missing).collect();
        assert_eq!(missing.len(), features.0.len());
        let models: BTreeSet<_> = trials.iter().map(|trial| trial.model.scenario).collect();
        assert_eq!(models.len(), MODELS.len());
    }

    #[test]
    fn the_whole_has_each_feature_alone_and_all_sets() {
        let features = features();
        for model in &MODELS {
            let trials = whole(model, &features, 64, 1);
            assert_eq!(trials.len(), 1 + features.0.len() + 64);
            assert!(!model.packaged || trials.iter().all(|trial| !trial.in_cpu));
        }
    }
}
