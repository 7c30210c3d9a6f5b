//! What the tests and benchmarks boot: the hypervisor, the micro-guests, and images of systems.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::Built;
use crate::image::Extras;
use crate::workspace::Workspace;
use crate::{build, image, system};

/// Everything built once and shared by all tests of a run.
#[derive(Debug)]
pub(crate) struct Artifacts {
    ws: Workspace,
    hypervisor: Built,
    /// The micro-guests' programs, by name.
    guests: PathBuf,
    /// Logs, descriptions and images.
    dir: PathBuf,
}

impl Artifacts {
    /// Builds the hypervisor and the micro-guests.
    pub(crate) fn build(ws: &Workspace) -> Result<Self> {
        let hypervisor = build::hypervisor(ws)?;
        Self::with(ws, hypervisor)
    }

    /// Takes a hypervisor that was built and builds the micro-guests.
    pub(crate) fn with(ws: &Workspace, hypervisor: Built) -> Result<Self> {
        let guests = build::bare_package(ws, "guests")?;
        let dir = ws.target().join("test");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self {
            ws: ws.clone(),
            hypervisor,
            guests,
            dir,
        })
    }

    /// The source tree.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.ws
    }

    /// The hypervisor's image.
    pub(crate) fn hypervisor(&self) -> &Path {
        &self.hypervisor.image
    }

    /// The hypervisor with its symbols.
    pub(crate) fn debug(&self) -> &Path {
        &self.hypervisor.debug
    }

    /// The program of a micro-guest.
    pub(crate) fn guest(&self, name: &str) -> PathBuf {
        self.guests.join(name)
    }

    /// Where a test's serial line is kept.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.file(name, "log")
    }

    /// A file of the test `name`.
    pub(crate) fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }

    /// Packs a system described by `toml` into a boot archive.
    pub(crate) fn archive(&self, name: &str, toml: &str) -> Result<PathBuf> {
        let config = self.file(name, "toml");
        fs::write(&config, toml).with_context(|| format!("cannot write {}", config.display()))?;
        let archive = self.file(name, "tsa");
        let guests = system::Guests {
            cached: &[&self.ws.cache().join("guests")],
            micro: &|| Ok(self.guests.clone()),
        };
        system::pack(&config, guests, &archive)?;
        Ok(archive)
    }

    /// Makes an ISO of the hypervisor and the system described by `toml`.
    pub(crate) fn iso(&self, name: &str, toml: &str) -> Result<PathBuf> {
        let archive = self.archive(name, toml)?;
        self.iso_of(name, &archive)
    }

    /// Makes an ISO of the hypervisor and an archive.
    pub(crate) fn iso_of(&self, name: &str, archive: &Path) -> Result<PathBuf> {
        self.iso_with(name, Some(archive), &Extras::default())
    }

    /// Makes an ISO of the hypervisor, perhaps an archive, and something more for GRUB.
    pub(crate) fn iso_with(
        &self,
        name: &str,
        archive: Option<&Path>,
        extras: &Extras<'_>,
    ) -> Result<PathBuf> {
        let iso = self.file(name, "iso");
        image::iso(self.hypervisor(), archive, extras, &iso)?;
        Ok(iso)
    }
}
