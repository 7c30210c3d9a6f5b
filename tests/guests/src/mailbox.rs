//! Two micro-guests keep step through a page that one grants the other.

use core::sync::atomic::Ordering;

use abi::GrantRef;
use pv_drivers::guest::sched;
use pv_drivers::shared_page::SharedPage;

/// The grant of the page: a reserved one, which may stay in use while the version changes.
pub const GREF: GrantRef = GrantRef(2);

/// Rounds of yielding before a wait is given up.
const PATIENCE: u32 = 200_000;

/// Where the granter writes how far it is.
const GRANTER: usize = 0;
/// Where the other one does.
const GRANTEE: usize = 8;

/// One side of the page.
#[derive(Clone, Copy, Debug)]
pub struct Mailbox {
    page: SharedPage,
    mine: usize,
    theirs: usize,
}

impl Mailbox {
    /// The side of the one that grants the page.
    #[must_use]
    pub const fn granter(page: SharedPage) -> Self {
        Self {
            page,
            mine: GRANTER,
            theirs: GRANTEE,
        }
    }

    /// The side of the one that it is granted to.
    #[must_use]
    pub const fn grantee(page: SharedPage) -> Self {
        Self {
            page,
            mine: GRANTEE,
            theirs: GRANTER,
        }
    }

    /// Says that step `step` is done.
    pub fn reach(self, step: u64) {
        self.page.u64(self.mine).store(step, Ordering::SeqCst);
    }

    /// Waits until the other side has done step `step`; false if that takes too long.
    #[must_use]
    pub fn wait(self, step: u64) -> bool {
        wait(|| self.page.u64(self.theirs).load(Ordering::SeqCst) >= step)
    }
}

/// Waits for a condition, letting others run; false if that takes too long.
pub fn wait(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..PATIENCE {
        if condition() {
            return true;
        }
        let _ = sched::yield_now();
    }
    false
}
