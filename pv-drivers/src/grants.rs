//! A front end's pages, as its back end sees them.

use abi::GrantRef;

use crate::shared_page::SharedPage;

/// The front end's pages, as far as it grants them.
pub trait Grants {
    /// Lets `act` use the page behind a grant, to write to it if `write`; `None` when it is not
    /// granted so.
    fn with_page<R>(
        &self,
        gref: GrantRef,
        write: bool,
        act: impl FnOnce(&SharedPage) -> R,
    ) -> Option<R>;
}
