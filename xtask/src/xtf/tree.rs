//! A built XTF tree: its tests, and the program of each for each kind of guest.
//!
//! XTF's build leaves beside every test an `info.json` with its name, category and environments,
//! a program `test-ENVIRONMENT-NAME`, and an xl configuration for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;

/// A kind of guest that XTF builds its tests for; those without a PV one, which a hypervisor
/// built on VT-x has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "lower")]
pub(super) enum Environment {
    /// 64-bit, four levels of page tables
    Hvm64,
    /// 32-bit without paging
    Hvm32,
    /// 32-bit, PAE paging
    Hvm32pae,
    /// 32-bit paging with 4 MiB pages
    Hvm32pse,
}

impl Environment {
    /// All, in the order of the table's columns.
    pub(super) const ALL: [Self; 4] = [Self::Hvm64, Self::Hvm32, Self::Hvm32pae, Self::Hvm32pse];

    /// XTF's name for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hvm64 => "hvm64",
            Self::Hvm32 => "hvm32",
            Self::Hvm32pae => "hvm32pae",
            Self::Hvm32pse => "hvm32pse",
        }
    }
}

/// One test for one kind of guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) test: String,
    pub(super) category: String,
    pub(super) environment: Environment,
    /// The ELF file to boot.
    pub(super) program: PathBuf,
    pub(super) vcpus: u32,
}

impl Instance {
    /// The domain's name: `hvm64-example`.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.environment.name(), self.test)
    }
}

/// The part of `info.json` that matters here.
#[derive(Debug, Deserialize)]
struct Info {
    name: String,
    category: String,
    environments: Vec<String>,
}

/// All tests of the tree for HVM guests, by name.
pub(super) fn instances(tree: &Path) -> Result<Vec<Instance>> {
    let tests = tree.join("tests");
    ensure!(tree.is_dir(), "there is no directory {}", tree.display());
    ensure!(
        tree.join("xtf-runner").is_file() && tests.is_dir(),
        "{} is no XTF tree: it lacks `xtf-runner` or `tests`",
        tree.display()
    );
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = fs::read_dir(&tests)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot list {}", tests.display()))?;
    directories.sort();
    for directory in directories {
        let info = directory.join("info.json");
        if !info.is_file() {
            continue;
        }
        let text =
            fs::read_to_string(&info).with_context(|| format!("cannot read {}", info.display()))?;
        let info: Info = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what XTF's build writes", info.display()))?;
        for environment in Environment::ALL {
            if info
                .environments
                .iter()
                .any(|name| name == environment.name())
            {
                found.push(instance(tree, &directory, &info, environment)?);
            }
        }
    }
    ensure!(
        !found.is_empty(),
        "{} is not built: run `make -C {0}` (it needs gcc and python3)",
        tree.display()
    );
    Ok(found)
}

fn instance(
    tree: &Path,
    directory: &Path,
    info: &Info,
    environment: Environment,
) -> Result<Instance> {
    let file = format!("test-{}-{}", environment.name(), info.name);
    let program = directory.join(&file);
    ensure!(
        program.is_file(),
        "{} is missing, the tree is built in part only: run `make -C {}`",
        program.display(),
        tree.display()
    );
    let program = program
        .canonicalize()
        .with_context(|| format!("cannot find {}", program.display()))?;
    // Without a configuration of its own the test runs as most do.
    let configuration =
        fs::read_to_string(directory.join(format!("{file}.cfg"))).unwrap_or_default();
    Ok(Instance {
        test: info.name.clone(),
        category: info.category.clone(),
        environment,
        program,
        vcpus: vcpus(&configuration),
    })
}

/// The number of vCPUs that an xl configuration asks for; the last word on it counts.
fn vcpus(configuration: &str) -> u32 {
    let assigned = configuration.lines().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "vcpus").then(|| value.trim().parse().ok())?
    });
    assigned.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::{Environment, instances, vcpus};
    use std::fs;
    use std::path::Path;

    fn complaint(tree: &Path) -> String {
        instances(tree).unwrap_err().to_string()
    }

    #[test]
    fn trees_are_told_from_other_directories() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("xtf");
        assert!(complaint(&tree).contains("no directory"));
        fs::create_dir(&tree).unwrap();
        assert!(complaint(&tree).contains("no XTF tree"));
        let test = tree.join("tests/one");
        fs::create_dir_all(&test).unwrap();
        fs::write(tree.join("xtf-runner"), "").unwrap();
        assert!(complaint(&tree).contains("is not built: run `make"));
        let info = r#"{"name": "one", "category": "xsa", "environments": ["pv64", "hvm32pae"]}"#;
        fs::write(test.join("info.json"), info).unwrap();
        assert!(complaint(&tree).contains("test-hvm32pae-one is missing"));
        fs::write(test.join("test-hvm32pae-one"), "").unwrap();
        let found = instances(&tree).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].environment, Environment::Hvm32pae);
        assert_eq!(
            (found[0].name().as_str(), found[0].vcpus),
            ("hvm32pae-one", 1)
        );
    }

    #[test]
    fn the_last_word_on_vcpus_counts() {
        assert_eq!(vcpus("name=\"x\"\n\nvcpus=1 \nmemory=128\nvcpus = 3\n"), 3);
        assert_eq!(vcpus("memory=128"), 1);
    }
}
