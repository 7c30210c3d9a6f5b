//! Who is idle and who has vCPUs waiting, so that each pCPU knows of the other.
//!
//! ```text
//! pCPU that has nothing to run          pCPU on which a vCPU waits
//! ----------------------------          --------------------------
//! says that it is idle                  says that a vCPU waits
//! looks whether a vCPU waits: asks      looks who is idle: passes it on
//! ```
//!
//! One of the two sees the other.

use core::sync::atomic::AtomicU64;

use crate::word::Word;

/// What pCPUs say of themselves, by bit.
#[derive(Debug)]
pub(super) struct Offers<W = AtomicU64> {
    idle: W,
    waiting: W,
}

pub(super) const fn bit(cpu: u32) -> u64 {
    1 << (cpu & 63)
}

impl Offers {
    pub(super) const fn new() -> Self {
        Self {
            idle: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }
}

impl<W: Word<u64>> Offers<W> {
    /// A pCPU has nothing to run. Answers with those on which a vCPU waits that may run elsewhere.
    pub(super) fn become_idle(&self, cpu: u32) -> u64 {
        self.idle.set_bits(bit(cpu));
        W::write_then_read();
        self.waiting.get() & !bit(cpu)
    }

    /// A pCPU is no longer idle, or about to be given something to run.
    pub(super) fn become_busy(&self, cpu: u32) {
        self.idle.clear_bits(bit(cpu));
    }

    /// Says whether a vCPU waits on a pCPU that may run elsewhere, if that is new. Look at
    /// [`Offers::idle`] afterwards.
    pub(super) fn announce(&self, cpu: u32, waits: bool) {
        let said = self.waiting.get() & bit(cpu) != 0;
        match (waits, said) {
            (true, false) => {
                self.waiting.set_bits(bit(cpu));
                W::write_then_read();
            }
            (false, true) => {
                self.waiting.clear_bits(bit(cpu));
            }
            _ => {}
        }
    }

    /// The pCPUs that are idle.
    pub(super) fn idle(&self) -> u64 {
        self.idle.get()
    }
}

#[cfg(test)]
mod tests {
    use super::{Offers, bit};
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    #[test]
    fn an_idle_pcpu_and_a_waiting_vcpu_find_each_other() {
        loom::model(|| {
            let offers = Arc::new(Offers {
                idle: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
            });
            let other = Arc::clone(&offers);
            let idle = thread::spawn(move || other.become_idle(0) & bit(1) != 0);
            offers.announce(1, true);
            let passes = offers.idle() & bit(0) != 0;
            let asks = idle.join().unwrap();
            assert!(asks || passes);
        });
    }
}
