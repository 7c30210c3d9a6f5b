//! Borrowed virtual time: what each vCPU has had, and whose turn that makes it.
//!
//! After Duda and Cheriton, "Borrowed-Virtual-Time (BVT) Scheduling" (SOSP '99). While a vCPU
//! runs, its *actual virtual time* (AVT) advances by the time it runs divided by its weight, so
//! that vCPUs whose AVTs stay together share a pCPU by their weights. The vCPU with the least
//! *effective virtual time* (EVT) runs: its AVT, less its warp while it is warped.
//!
//! * A sleeper that wakes continues at the *scheduler virtual time* (SVT) at least, the least AVT
//!   of those that kept running: sleeping earns nothing. What it had ahead of others it keeps.
//! * A vCPU with a warp borrows from its own future when it wakes. It may run warped for its
//!   *warp limit*; once that is used up, it has to stay unwarped for its *unwarp requirement*.
//!
//! The paper charges in units (mcu) and advances an AVT by a vCPU's mcu advance for each; the
//! unit here is one TSC tick and the advance the reciprocal of the weight, with the remainder of
//! the division carried on, so that charging never rounds anything away.
//!
//! All of this is integers in, decisions out: times are TSC ticks, virtual times ticks of a vCPU
//! of weight 1.

use core::num::NonZeroU32;

/// Where virtual time starts: far enough from zero to look back from.
const BEGINNING: u64 = 1 << 62;

/// A vCPU's claim on CPU time, which does not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Its part, relative to the weights of others.
    pub weight: NonZeroU32,
    /// How much of its own CPU time it may borrow from its future when it wakes, in ticks; with 0
    /// it never does.
    pub warp: u64,
    /// The most ticks it runs warped before it has to pause; 0 for no limit.
    pub warp_limit: u64,
    /// Ticks it has to stay unwarped for before its warp limit is granted anew.
    pub unwarp: u64,
}

impl Share {
    /// A share without a warp.
    #[must_use]
    pub const fn new(weight: NonZeroU32) -> Self {
        Self {
            weight,
            warp: 0,
            warp_limit: 0,
            unwarp: 0,
        }
    }

    /// A time of this vCPU's own as virtual time.
    #[must_use]
    pub const fn virtual_time(&self, ticks: u64) -> u64 {
        ticks / self.weight.get() as u64
    }
}

/// What a vCPU has had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    share: Share,
    avt: u64,
    /// Ticks that have not yet advanced the AVT; fewer than the weight.
    remainder: u64,
    warped: bool,
    /// Ticks run warped since the limit was granted.
    warp_used: u64,
    /// When it was last warped, in TSC ticks.
    warped_until: u64,
}

impl Account {
    /// The account of a vCPU that has never run.
    #[must_use]
    pub const fn new(share: Share) -> Self {
        Self {
            share,
            avt: 0,
            remainder: 0,
            warped: false,
            warp_used: 0,
            warped_until: 0,
        }
    }

    /// The vCPU's claim.
    #[must_use]
    pub const fn share(&self) -> &Share {
        &self.share
    }

    /// Actual virtual time.
    #[must_use]
    pub const fn avt(&self) -> u64 {
        self.avt
    }

    /// Effective virtual time.
    #[must_use]
    pub const fn evt(&self) -> u64 {
        self.avt.saturating_sub(self.warped_by())
    }

    /// By how much the effective is less than the actual virtual time.
    #[must_use]
    pub const fn warped_by(&self) -> u64 {
        if self.warped {
            self.share.virtual_time(self.share.warp)
        } else {
            0
        }
    }

    /// Ticks for which the vCPU may still run warped; `u64::MAX` without a limit, or when it is
    /// not warped.
    #[must_use]
    pub const fn warp_left(&self) -> u64 {
        if self.warped && self.share.warp_limit != 0 {
            self.share.warp_limit.saturating_sub(self.warp_used)
        } else {
            u64::MAX
        }
    }

    /// Charges `ran` ticks that ended at `now`.
    pub fn charge(&mut self, ran: u64, now: u64) {
        let weight = u64::from(self.share.weight.get());
        let due = self.remainder.saturating_add(ran);
        self.avt = self.avt.saturating_add(due / weight);
        self.remainder = due % weight;
        if self.warped {
            self.warp_used = self.warp_used.saturating_add(ran);
            if self.warp_left() == 0 {
                self.unwarp(now);
            }
        }
    }

    /// The vCPU has nothing to do: its warp ends.
    pub fn sleep(&mut self, now: u64) {
        if self.warped {
            self.unwarp(now);
        }
    }

    fn unwarp(&mut self, now: u64) {
        self.warped = false;
        self.warped_until = now;
    }

    /// The vCPU has something to do again: it earned nothing by sleeping, and may warp.
    pub fn wake(&mut self, svt: u64, now: u64) {
        self.raise(svt);
        if self.share.warp == 0 {
            return;
        }
        if now.saturating_sub(self.warped_until) >= self.share.unwarp {
            self.warp_used = 0;
        }
        self.warped = self.share.warp_limit == 0 || self.warp_used < self.share.warp_limit;
    }

    /// Moves the account to another pCPU's virtual time.
    pub const fn move_to(&mut self, avt: u64) {
        self.avt = avt;
    }

    const fn raise(&mut self, avt: u64) {
        if self.avt < avt {
            self.avt = avt;
            self.remainder = 0;
        }
    }
}

/// The virtual time of a pCPU that has never run anything.
#[must_use]
pub const fn beginning() -> u64 {
    BEGINNING
}

#[cfg(test)]
mod tests {
    use super::{Account, Share};
    use core::num::NonZeroU32;

    fn share(weight: u32) -> Share {
        Share::new(NonZeroU32::new(weight).unwrap())
    }

    #[test]
    fn nothing_is_lost_to_rounding() {
        let mut account = Account::new(share(1000));
        for now in 0..10_000 {
            account.charge(7, now);
        }
        assert_eq!(account.avt(), 70);
    }

    #[test]
    fn a_sleeper_earns_nothing_and_keeps_its_debt() {
        let mut account = Account::new(share(2));
        account.wake(500, 0);
        assert_eq!(account.avt(), 500);
        account.charge(100, 0);
        account.wake(520, 0);
        assert_eq!(account.avt(), 550);
        account.wake(600, 0);
        assert_eq!(account.avt(), 600);
    }

    #[test]
    fn a_warp_borrows_and_ends_with_its_limit() {
        let mut account = Account::new(Share {
            warp: 400,
            warp_limit: 50,
            unwarp: 1000,
            ..share(4)
        });
        account.wake(10_000, 2000);
        assert_eq!((account.avt(), account.evt()), (10_000, 9_900));
        account.charge(30, 2030);
        assert_eq!(account.warp_left(), 20);
        account.sleep(2030);
        assert_eq!(account.evt(), account.avt());
        // What is left of the limit is there after a short sleep, and no more.
        account.wake(10_000, 2100);
        assert_eq!(account.warp_left(), 20);
        account.charge(25, 2125);
        assert_eq!(account.evt(), account.avt());
        account.sleep(2200);
        account.wake(10_000, 3000);
        assert_eq!(account.evt(), account.avt());
        // 1000 ticks after the warp ended.
        account.sleep(3001);
        account.wake(10_000, 3125);
        assert_eq!(account.warp_left(), 50);
    }
}
