//! What the hypervisor asks of a guest by writing into the store, as Xen's tools do.

use alloc::sync::Arc;
use core::str;

use xenstore::{Control, Error};

use super::{control, nodes};
use crate::console::mux::Wish;
use crate::domain::Domain;

/// By how much one wish changes a domain's memory, in KiB.
const MEMORY_STEP: u64 = 16 << 10;
/// The least memory that a domain is asked to keep, in KiB.
const MEMORY_LEAST: u64 = 16 << 10;

/// Asks a guest for something and says so in the log. Nothing becomes of it in a guest that does
/// not watch the store.
pub fn ask(domain: &Arc<Domain>, wish: Wish) {
    let asked = control(|store| match wish {
        Wish::Poweroff => shutdown(store, domain, "poweroff"),
        Wish::Reboot => shutdown(store, domain, "reboot"),
        Wish::MoreMemory => memory(store, domain, |target| target.saturating_add(MEMORY_STEP)),
        Wish::LessMemory => memory(store, domain, |target| target.saturating_sub(MEMORY_STEP)),
    });
    if let Some(Err(error)) = asked {
        log::warn!("{}: cannot be asked: {}", domain.name, error.name());
    }
}

fn shutdown(store: &mut Control<'_>, domain: &Domain, how: &str) -> Result<(), Error> {
    log::info!("{}: asked for {how}", domain.name);
    store.write(&nodes::path(domain.id, "control/shutdown"), how.as_bytes())
}

fn memory(
    store: &mut Control<'_>,
    domain: &Domain,
    change: impl FnOnce(u64) -> u64,
) -> Result<(), Error> {
    let path = nodes::path(domain.id, "memory/target");
    let text = store
        .read(&path)
        .and_then(|value| str::from_utf8(value).ok());
    let target: u64 = text
        .and_then(|text| text.parse().ok())
        .ok_or(Error::Enoent)?;
    let most = domain.max_pages.saturating_mul(4);
    let target = change(target).max(MEMORY_LEAST).min(most);
    log::info!(
        "{}: asked to have {} MiB of memory",
        domain.name,
        target >> 10
    );
    store.write(&path, nodes::number(target).as_bytes())
}
