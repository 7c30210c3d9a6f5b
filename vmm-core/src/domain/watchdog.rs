//! A domain's watchdogs (`SCHEDOP_watchdog`, `public/sched.h`): timers that end the domain when
//! the guest does not set them again in time.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use abi::sched::NR_WATCHDOGS;
use spin::Mutex;

use crate::time::Tsc;

/// The watchdogs of one domain.
#[derive(Debug)]
pub struct Watchdogs {
    /// When each of them bites, if it is in use.
    timers: Mutex<[Option<Tsc>; NR_WATCHDOGS]>,
    /// The earliest of them, for a look without the lock.
    earliest: AtomicU64,
}

impl Default for Watchdogs {
    fn default() -> Self {
        Self::new()
    }
}

impl Watchdogs {
    /// No watchdog is set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            timers: Mutex::new([None; NR_WATCHDOGS]),
            earliest: AtomicU64::new(Tsc::NEVER.0),
        }
    }

    /// When the first watchdog bites.
    #[must_use]
    pub fn earliest(&self) -> Tsc {
        Tsc(self.earliest.load(Ordering::Relaxed))
    }

    /// Takes a free watchdog and sets it; answers with its number, from 1.
    ///
    /// # Errors
    /// [`Errno::Enospc`] when all are in use.
    pub fn start(&self, deadline: Tsc) -> Result<u64, Errno> {
        let mut timers = self.timers.lock();
        let free = timers
            .iter_mut()
            .zip(1..)
            .find(|(timer, _)| timer.is_none());
        let (timer, number) = free.ok_or(Errno::Enospc)?;
        *timer = Some(deadline);
        self.note_earliest(&*timers);
        Ok(number)
    }

    /// Sets watchdog `number` again, or gives it back.
    ///
    /// # Errors
    /// [`Errno::Einval`] for one that is not in use.
    pub fn set(&self, number: u32, deadline: Option<Tsc>) -> Result<(), Errno> {
        let mut timers = self.timers.lock();
        let index = (number as usize).checked_sub(1).ok_or(Errno::Einval)?;
        let timer = timers
            .get_mut(index)
            .filter(|timer| timer.is_some())
            .ok_or(Errno::Einval)?;
        *timer = deadline;
        self.note_earliest(&*timers);
        Ok(())
    }

    fn note_earliest(&self, timers: &[Option<Tsc>]) {
        let earliest = timers.iter().flatten().min().copied().unwrap_or(Tsc::NEVER);
        self.earliest.store(earliest.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Watchdogs;
    use crate::time::Tsc;
    use abi::Errno;

    #[test]
    fn two_watchdogs_and_the_earlier_one_counts() {
        let watchdogs = Watchdogs::new();
        assert_eq!(watchdogs.start(Tsc(50)), Ok(1));
        assert_eq!(watchdogs.start(Tsc(30)), Ok(2));
        assert_eq!(watchdogs.start(Tsc(10)), Err(Errno::Enospc));
        assert_eq!(watchdogs.earliest(), Tsc(30));
        assert_eq!(watchdogs.set(2, Some(Tsc(90))), Ok(()));
        assert_eq!(watchdogs.earliest(), Tsc(50));
        assert_eq!(watchdogs.set(1, None), Ok(()));
        assert_eq!(watchdogs.earliest(), Tsc(90));
        for number in [0, 1, 3, u32::MAX] {
            assert_eq!(watchdogs.set(number, None), Err(Errno::Einval));
        }
    }
}
