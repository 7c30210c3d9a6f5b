//! The list of all domains.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::DomId;
use spin::RwLock;

use super::Domain;

static DOMAINS: RwLock<Vec<Arc<Domain>>> = RwLock::new(Vec::new());

/// The domain with this id.
#[must_use]
pub fn by_id(id: DomId) -> Option<Arc<Domain>> {
    DOMAINS
        .read()
        .iter()
        .find(|domain| domain.id == id)
        .cloned()
}

/// All domains, in order of creation.
#[must_use]
pub fn all() -> Vec<Arc<Domain>> {
    DOMAINS.read().clone()
}

/// Adds a domain.
pub fn add(domain: Arc<Domain>) {
    DOMAINS.write().push(domain);
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
