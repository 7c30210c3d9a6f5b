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

/// All domains, in order of creation.
#[must_use]
pub fn all() -> Vec<Arc<Domain>> {
    DOMAINS.read().clone()
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
