//! System descriptions: TOML in, boot archive out.

use std::path::Path;

use anyhow::{Result, bail};

/// Checks the description in `config` and writes the boot archive to `out`.
///
/// A file named in the description is looked up beside the description first, then in each of
/// `search` (the cache of guest kernels: `cloud/vmlinuz`, `cloud/initrd.img`, ...).
pub(crate) fn pack(config: &Path, search: &[&Path], out: &Path) -> Result<()> {
    bail!(
        "cannot pack {} into {}: searched {search:?}",
        config.display(),
        out.display()
    )
}
