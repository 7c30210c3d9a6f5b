//! The list of all domains.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::DomId;
use spin::RwLock;

use super::Domain;

/// Sorted by id.
static DOMAINS: RwLock<Vec<Arc<Domain>>> = RwLock::new(Vec::new());

/// The domain with this id.
#[must_use]
pub fn by_id(id: DomId) -> Option<Arc<Domain>> {
    let domains = DOMAINS.read();
    let found = domains.binary_search_by_key(&id, |domain| domain.id);
    found.ok().and_then(|index| domains.get(index).cloned())
}

/// All domains, in order of creation. The list is free to change meanwhile.
pub fn all() -> impl Iterator<Item = Arc<Domain>> {
    let mut from = Some(DomId(0));
    core::iter::from_fn(move || {
        let next = first_from(from?)?;
        from = next.id.0.checked_add(1).map(DomId);
        Some(next)
    })
}

/// The domain with the least id that is not below `id`.
fn first_from(id: DomId) -> Option<Arc<Domain>> {
    let domains = DOMAINS.read();
    let place = domains.partition_point(|domain| domain.id < id);
    domains.get(place).cloned()
}

/// Adds a domain.
pub fn add(domain: Arc<Domain>) {
    let mut domains = DOMAINS.write();
    let place = domains.partition_point(|other| other.id < domain.id);
    domains.insert(place, domain);
}

/// Takes a domain off the list.
pub fn remove(id: DomId) {
    DOMAINS.write().retain(|domain| domain.id != id);
}

/// True when there is no domain.
#[must_use]
pub fn is_empty() -> bool {
    DOMAINS.read().is_empty()
}
