//! The one word a pCPU looks at before it goes straight back into a guest.
//!
//! Whoever has something for a pCPU or for the vCPU that it runs (a signal, an event bit, a posted
//! vector, a stale translation, a vCPU that became ready) makes that visible first and then
//! [asks](Attention::ask); to a pCPU that may be in its guest it also sends an interrupt. The pCPU
//! checks [`Attention::is_asked`] before each VM entry. If it is, the pCPU [takes](Attention::take)
//! the request back first and then looks for all of these things.
//!
//! ```text
//!  poster                           pCPU, interrupts off
//!  ------                           --------------------
//!  write the thing                  while asked { take; look at everything }
//!  ask                              VM entry: a pending interrupt exits at once
//!  interrupt
//! ```
//!
//! `take` is one atomic exchange. Either it reads the poster's request, and what the poster wrote
//! before is seen by the look that follows; or the request comes after it and is seen at the next
//! check, which the interrupt brings about at the latest.

use core::sync::atomic::{AtomicBool, Ordering};

/// A flag whose operations have their own orders: those of the pCPU itself cost nothing.
trait Flag {
    fn store(&self, value: bool, order: Ordering);
    fn load(&self, order: Ordering) -> bool;
    fn swap(&self, value: bool, order: Ordering) -> bool;
}

macro_rules! flag {
    ($atomic:ty) => {
        impl Flag for $atomic {
            #[inline(always)]
            fn store(&self, value: bool, order: Ordering) {
                self.store(value, order);
            }

            #[inline(always)]
            fn load(&self, order: Ordering) -> bool {
                self.load(order)
            }

            #[inline(always)]
            fn swap(&self, value: bool, order: Ordering) -> bool {
                self.swap(value, order)
            }
        }
    };
}

flag!(AtomicBool);
#[cfg(test)]
flag!(loom::sync::atomic::AtomicBool);

/// A request to look. See the module.
#[derive(Debug)]
pub struct Attention<F = AtomicBool>(F);

impl Default for Attention {
    fn default() -> Self {
        Self::new()
    }
}

impl Attention {
    /// Nothing is asked.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }
}

#[expect(private_bounds, reason = "there is one kind outside of tests")]
impl<F: Flag> Attention<F> {
    /// Asks for a look at what the caller has made visible.
    #[inline]
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Asks for a look at what the pCPU itself has left to do.
    #[inline(always)]
    pub fn ask_self(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True when a look has been asked for.
    #[inline(always)]
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the request back; the caller looks afterwards.
    #[inline]
    pub fn take(&self) {
        self.0.swap(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::Attention;

    #[test]
    fn nothing_that_is_asked_for_goes_unseen() {
        const THINGS: u32 = 20_000;
        let attention = Attention::new();
        let posted = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for thing in 1..=THINGS {
                    posted.store(thing, Ordering::Relaxed);
                    attention.ask();
                }
            });
            let mut seen = 0;
            while seen != THINGS {
                if attention.is_asked() {
                    attention.take();
                    let now = posted.load(Ordering::Relaxed);
                    assert!(now >= seen);
                    seen = now;
                }
                // Without a request in sight the last look must have seen everything, once the
                // poster is done: else this never ends.
                thread::yield_now();
            }
        });
        assert!(!attention.is_asked() || posted.load(Ordering::Relaxed) == THINGS);
    }

    /// The interrupt that follows a request, and the VM entry that it ends at once.
    #[test]
    fn a_pcpu_that_enters_its_guest_has_seen_it_or_is_interrupted() {
        use loom::sync::Arc;
        use loom::sync::atomic::AtomicBool;

        #[derive(Default)]
        struct Shared {
            thing: AtomicBool,
            interrupt: AtomicBool,
        }

        loom::model(|| {
            let attention = Arc::new(Attention(AtomicBool::new(false)));
            let shared = Arc::new(Shared::default());
            let poster = {
                let (attention, shared) = (Arc::clone(&attention), Arc::clone(&shared));
                loom::thread::spawn(move || {
                    shared.thing.store(true, Ordering::Relaxed);
                    attention.ask();
                    // An exchange, like the one below: loom knows in which order they are.
                    shared.interrupt.swap(true, Ordering::SeqCst);
                })
            };
            let look = || {
                let asked = attention.is_asked();
                if asked {
                    attention.take();
                }
                asked && shared.thing.load(Ordering::Relaxed)
            };
            let mut seen = look();
            // In the guest. An interrupt brings the pCPU back; one that has not come will.
            if shared.interrupt.swap(false, Ordering::SeqCst) {
                seen |= look();
                assert!(seen);
            }
            poster.join().unwrap();
            assert!(seen || shared.interrupt.load(Ordering::SeqCst));
        });
    }
}
