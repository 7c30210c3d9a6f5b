//! Where things are: the source tree, its build output, and the per-user cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The directories every verb works with.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    cache: PathBuf,
}

impl Workspace {
    /// The source tree this program was built from, which need not be on this machine (see
    /// [`Self::ensure_tree`]), and the user's cache directory.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest
            .parent()
            .context("xtask has no parent directory")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => env::current_dir()?.join(dir),
            None => root.join("target"),
        };
        let cache = cache_dir(|name| env::var_os(name).map(PathBuf::from)).context(
            "no cache directory: set HOME, XDG_CACHE_HOME or TESSERA_CACHE to a writable directory",
        )?;
        Ok(Self {
            root,
            target,
            cache,
        })
    }

    /// Checks that the source tree is there.
    pub(crate) fn ensure_tree(&self) -> Result<()> {
        ensure!(
            self.root.join("Cargo.toml").is_file(),
            "the source tree {} is gone; build xtask again where the tree is now (only `run \
             --image` works without it)",
            self.root.display()
        );
        Ok(())
    }

    /// The top of the source tree.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's output directory; our own products go to `out`.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Directory for what the verbs make (images, archives); created on first use.
    pub(crate) fn out(&self) -> Result<PathBuf> {
        let dir = self.target.join("tessera");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// What set-up downloads or builds, kept between runs and between source trees.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }
}

/// `TESSERA_CACHE`, else `XDG_CACHE_HOME/tessera`, else `~/.cache/tessera`.
fn cache_dir(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| var(name).filter(|path: &PathBuf| path.is_absolute());
    absolute("TESSERA_CACHE")
        .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("tessera")))
        .or_else(|| Some(absolute("HOME")?.join(".cache/tessera")))
}

#[cfg(test)]
mod tests {
    use super::cache_dir;
    use std::path::PathBuf;

    fn find(vars: &[(&str, &str)]) -> Option<PathBuf> {
        cache_dir(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, v)| PathBuf::from(v))
        })
    }

    #[test]
    fn cache_prefers_the_more_specific_variable() {
        let home = ("HOME", "/home/u");
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        assert_eq!(find(&[home]), Some("/home/u/.cache/tessera".into()));
        assert_eq!(find(&[home, xdg]), Some("/xdg/tessera".into()));
        assert_eq!(
            find(&[home, xdg, ("TESSERA_CACHE", "/c")]),
            Some("/c".into())
        );
        assert_eq!(find(&[("XDG_CACHE_HOME", "relative")]), None);
    }
}
