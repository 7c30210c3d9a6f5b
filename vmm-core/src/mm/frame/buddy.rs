//! The free blocks, and how many frames are not: one list per order and kind of traces, threaded through the frame records.
//!
//! A free block is `2^order` frames, aligned to its size by frame *number*, so that a block can
//! back a large page. Blocks split in halves on the way down and join with their buddy (the other
//! half of the next larger block) on the way up, within one region.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::Mfn;
use invariant::OrBroken;

use super::MAX_ORDER;
use super::entry::{Index, NONE, Owner, Record, Traces};
use super::regions::Regions;

const ORDERS: usize = MAX_ORDER as usize + 1;

/// The heads of the free lists.
#[derive(Debug)]
pub(super) struct Buddy {
    /// By what is left in the blocks, then by order.
    heads: [[Index; ORDERS]; Traces::ALL.len()],
    free: u64,
    /// Frames in use, by their owner's kind; kept by whoever takes and gives.
    pub(super) used: [u64; Owner::KINDS],
    /// Frames that hold the frame table itself.
    pub(super) own: u64,
}

/// The records and regions the lists run through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records<'a> {
    pub(super) regions: &'a Regions,
    pub(super) words: &'a [AtomicU64],
}

impl<'a> Records<'a> {
    /// The record of a frame.
    ///
    /// # Panics
    /// On an index behind the table: links and indices are our own.
    #[inline]
    pub(super) fn word(&self, index: Index) -> &'a AtomicU64 {
        let word = self.words.get(index as usize);
        word.or_broken("every frame has a record")
    }

    fn get(&self, index: Index) -> Record {
        Record::unpack(self.word(index).load(Ordering::Relaxed))
    }

    fn set(&self, index: Index, record: Record) {
        self.word(index).store(record.pack(), Ordering::Relaxed);
    }
}

impl Buddy {
    /// No free block at all.
    pub(super) const fn new(own: u64) -> Self {
        Self {
            heads: [[NONE; ORDERS]; Traces::ALL.len()],
            free: 0,
            used: [0; Owner::KINDS],
            own,
        }
    }

    /// The number of free frames.
    pub(super) const fn free(&self) -> u64 {
        self.free
    }

    /// Takes a block of `2^order` frames; tells what is left in it. Its records are all `Inner`.
    ///
    /// The smallest block that fits is used, a clean one before any other.
    pub(super) fn take(&mut self, records: Records<'_>, order: u8) -> Option<(Index, Traces)> {
        for from in order..=MAX_ORDER {
            for traces in Traces::ALL {
                let index = *self.head(from, traces);
                if index != NONE {
                    self.split(records, index, from, order, traces);
                    return Some((index, traces));
                }
            }
        }
        None
    }

    /// The same with a block that ends at frame `end` at the latest. Looks through whole lists: for
    /// start-up.
    pub(super) fn take_below(
        &mut self,
        records: Records<'_>,
        order: u8,
        end: Mfn,
    ) -> Option<(Index, Traces)> {
        for from in order..=MAX_ORDER {
            for traces in Traces::ALL {
                let mut index = *self.head(from, traces);
                while let Record::Free { next, .. } = link_target(records, index) {
                    let first = records.regions.mfn(index)?;
                    if first.saturating_add(super::block_frames(order)) <= end {
                        self.split(records, index, from, order, traces);
                        return Some((index, traces));
                    }
                    index = next;
                }
            }
        }
        None
    }

    /// Takes a free block of `2^from` frames off its list, and leaves all but its first `2^order`
    /// on others.
    fn split(&mut self, records: Records<'_>, index: Index, from: u8, order: u8, traces: Traces) {
        self.unlink(records, index);
        for half in (order..from).rev() {
            let upper = index.saturating_add(1_u32.unbounded_shl(half.into()));
            self.link(records, upper, half, traces);
        }
        let free = self.free.checked_sub(super::block_frames(order));
        self.free = free.or_broken("a free block was counted");
    }

    /// Gives a block back, whose records are all `Inner`, and joins it with free buddies.
    pub(super) fn give(&mut self, records: Records<'_>, mfn: Mfn, order: u8, traces: Traces) {
        self.free = self.free.saturating_add(super::block_frames(order));
        let (mut mfn, mut order, mut traces) = (mfn, order, traces);
        while order < MAX_ORDER {
            let size = 1 << order;
            let buddy = Mfn::new(mfn.raw() ^ size);
            let first = mfn.min(buddy);
            if records.regions.holding(first, 2 * size).is_none() {
                break;
            }
            let Some(index) = records.regions.index(buddy, size) else {
                break;
            };
            match records.get(index) {
                Record::Free {
                    order: found,
                    traces: left,
                    ..
                } if found == order => {
                    self.unlink(records, index);
                    traces = traces.max(left);
                }
                _ => break,
            }
            mfn = first;
            order += 1;
        }
        let frames = super::block_frames(order);
        if let Some(index) = records.regions.index(mfn, frames) {
            self.link(records, index, order, traces);
        }
    }

    fn head(&mut self, order: u8, traces: Traces) -> &mut Index {
        let heads = self.heads[traces as usize].get_mut(usize::from(order));
        heads.or_broken("no block is larger than the largest")
    }

    fn link(&mut self, records: Records<'_>, index: Index, order: u8, traces: Traces) {
        let next = core::mem::replace(self.head(order, traces), index);
        if let Record::Free {
            order,
            traces,
            next: after,
            ..
        } = link_target(records, next)
        {
            records.set(
                next,
                Record::Free {
                    order,
                    traces,
                    next: after,
                    prev: index,
                },
            );
        }
        records.set(
            index,
            Record::Free {
                order,
                traces,
                next,
                prev: NONE,
            },
        );
    }

    fn unlink(&mut self, records: Records<'_>, index: Index) {
        let Record::Free {
            order,
            traces,
            next,
            prev,
        } = records.get(index)
        else {
            return;
        };
        if let Record::Free {
            order,
            traces,
            next: after,
            ..
        } = link_target(records, next)
        {
            records.set(
                next,
                Record::Free {
                    order,
                    traces,
                    next: after,
                    prev,
                },
            );
        }
        match link_target(records, prev) {
            Record::Free {
                order,
                traces,
                prev: before,
                ..
            } => {
                records.set(
                    prev,
                    Record::Free {
                        order,
                        traces,
                        next,
                        prev: before,
                    },
                );
            }
            _ => *self.head(order, traces) = next,
        }
        records.set(index, Record::Inner);
    }
}

/// The record at a link, or `Inner` at the end of the list.
fn link_target(records: Records<'_>, index: Index) -> Record {
    if index == NONE {
        Record::Inner
    } else {
        records.get(index)
    }
}
