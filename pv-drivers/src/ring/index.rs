//! When an end is to be told of new entries.
//!
//! The producer publishes its index and then looks at the event index; the consumer that has found
//! nothing more sets the event index and then looks at the producer's. Whoever comes second sees
//! what the other did, so an entry is announced by an event or seen before the consumer rests.

use core::sync::atomic::{AtomicU32, Ordering, fence};

/// A shared index. A trait so that loom can run the very same code.
pub(super) trait Index {
    /// Reads it; entries published with it can be read afterwards.
    fn get(&self) -> u32;
    /// Writes it, after everything before.
    fn set(&self, value: u32);
    /// Orders a write before it and a read after it.
    fn write_then_read();
}

impl Index for AtomicU32 {
    fn get(&self) -> u32 {
        self.load(Ordering::Acquire)
    }

    fn set(&self, value: u32) {
        self.store(value, Ordering::Release);
    }

    fn write_then_read() {
        fence(Ordering::SeqCst);
    }
}

/// Publishes the entries from `old` up to `new`; true when the peer wants an event for one of them.
pub(super) fn publish<I: Index>(prod: &I, event: &I, old: u32, new: u32) -> bool {
    prod.set(new);
    I::write_then_read();
    // The peer may have written anything there: at worst it is told too often or not at all.
    new.wrapping_sub(event.get()) < new.wrapping_sub(old)
}

/// Asks for an event at the first entry that was not `consumed`, and then looks: the producer's
/// index.
pub(super) fn rearm<I: Index>(prod: &I, event: &I, consumed: u32) -> u32 {
    event.set(consumed.wrapping_add(1));
    I::write_then_read();
    prod.get()
}

#[cfg(test)]
mod tests {
    use super::{Index, publish, rearm};
    use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, fence};
    use loom::thread;

    impl Index for AtomicU32 {
        fn get(&self) -> u32 {
            self.load(Acquire)
        }

        fn set(&self, value: u32) {
            self.store(value, Release);
        }

        fn write_then_read() {
            fence(SeqCst);
        }
    }

    const ENTRIES: u32 = 2;

    #[test]
    fn no_entry_is_left_to_a_consumer_that_rests() {
        loom::model(|| {
            // Producer's index, event index, two entries.
            let ring = Arc::new([0, 1, 0, 0].map(AtomicU32::new));
            let producer = Arc::clone(&ring);
            let producer = thread::spawn(move || {
                let [prod, event, entries @ ..] = &*producer;
                let mut told = [false; ENTRIES as usize];
                for (number, told) in (0..ENTRIES).zip(&mut told) {
                    entries[number as usize].store(7, Relaxed);
                    *told = publish(prod, event, number, number + 1);
                }
                told
            });
            let [prod, event, entries @ ..] = &*ring;
            let mut consumed = 0;
            loop {
                let there = rearm(prod, event, consumed);
                if there == consumed {
                    break;
                }
                for number in consumed..there {
                    let entry = &entries[number as usize];
                    assert_eq!(entry.load(Relaxed), 7);
                }
                consumed = there;
            }
            let told = producer.join().unwrap();
            assert!(consumed == ENTRIES || told[consumed as usize]);
        });
    }
}
