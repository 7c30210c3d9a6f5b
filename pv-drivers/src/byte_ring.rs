//! A ring of bytes in a shared page: one side produces, the other consumes.
//!
//! ```text
//! cons                prod            indices run free, modulo 2^32
//!  |---- waiting ------|---- room ----|  prod - cons <= size, always
//! ```
//!
//! Each side keeps its own index in private memory and only publishes it; the peer's index is
//! read once per operation and believed only if the distance makes sense.

use core::sync::atomic::Ordering::{Acquire, Release};

use crate::shared_page::SharedPage;

/// Where a ring lies in its page. All offsets are inside the page, `size` is a power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// First byte of the data.
    pub data: usize,
    /// Bytes of data.
    pub size: u32,
    /// The consumer's index.
    pub cons: usize,
    /// The producer's index.
    pub prod: usize,
}

/// The peer's index makes no sense: it claims more bytes than the ring holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

impl Layout {
    /// The part of a transfer that does not wrap: where it starts in the page, how long it is.
    fn run(&self, index: u32, wanted: usize) -> (usize, usize) {
        let start = index & self.size.wrapping_sub(1);
        let to_end = self.size.saturating_sub(start) as usize;
        (self.data.saturating_add(start as usize), wanted.min(to_end))
    }

    fn check(&self, distance: u32) -> Result<u32, Broken> {
        if distance <= self.size {
            Ok(distance)
        } else {
            Err(Broken)
        }
    }
}

/// The side that puts bytes in.
#[derive(Clone, Debug)]
pub struct Producer {
    layout: Layout,
    prod: u32,
}

impl Producer {
    /// Takes up production where the page says it stands.
    #[must_use]
    pub fn attach(layout: Layout, page: &SharedPage) -> Self {
        Self {
            layout,
            prod: page.u32(layout.prod).load(Acquire),
        }
    }

    /// Bytes that fit in now.
    ///
    /// # Errors
    /// [`Broken`] when the consumer claims bytes that were never produced.
    pub fn room(&self, page: &SharedPage) -> Result<usize, Broken> {
        let cons = page.u32(self.layout.cons).load(Acquire);
        let waiting = self.layout.check(self.prod.wrapping_sub(cons))?;
        Ok(self.layout.size.saturating_sub(waiting) as usize)
    }

    /// Puts in as much of `bytes` as fits and says how much that was.
    ///
    /// # Errors
    /// As [`Producer::room`].
    pub fn push(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, Broken> {
        let count = bytes.len().min(self.room(page)?);
        let mut rest = bytes.get(..count).unwrap_or(bytes);
        let mut index = self.prod;
        while !rest.is_empty() {
            let (at, run) = self.layout.run(index, rest.len());
            let (now, later) = rest.split_at(run);
            page.write(at, now);
            index = index.wrapping_add(length(run));
            rest = later;
        }
        if count != 0 {
            self.prod = index;
            page.u32(self.layout.prod).store(index, Release);
        }
        Ok(count)
    }
}

/// The side that takes bytes out.
#[derive(Clone, Debug)]
pub struct Consumer {
    layout: Layout,
    cons: u32,
}

impl Consumer {
    /// Takes up consumption where the page says it stands.
    #[must_use]
    pub fn attach(layout: Layout, page: &SharedPage) -> Self {
        Self {
            layout,
            cons: page.u32(layout.cons).load(Acquire),
        }
    }

    /// Bytes that wait.
    ///
    /// # Errors
    /// [`Broken`] when the producer claims more than the ring holds.
    pub fn waiting(&self, page: &SharedPage) -> Result<usize, Broken> {
        let prod = page.u32(self.layout.prod).load(Acquire);
        Ok(self.layout.check(prod.wrapping_sub(self.cons))? as usize)
    }

    /// Takes out as many bytes as wait and `out` holds; says how many.
    ///
    /// # Errors
    /// As [`Consumer::waiting`].
    pub fn pull(&mut self, page: &SharedPage, out: &mut [u8]) -> Result<usize, Broken> {
        let count = out.len().min(self.waiting(page)?);
        let (mut rest, _) = out.split_at_mut(count);
        let mut index = self.cons;
        while !rest.is_empty() {
            let (at, run) = self.layout.run(index, rest.len());
            let (now, later) = rest.split_at_mut(run);
            page.read(at, now);
            index = index.wrapping_add(length(run));
            rest = later;
        }
        if count != 0 {
            self.cons = index;
            page.u32(self.layout.cons).store(index, Release);
        }
        Ok(count)
    }
}

/// A length inside a page, as ring indices count.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::VecDeque;

    use super::{Broken, Consumer, Layout, Producer};
    use crate::test_page::TestPage;
    use core::sync::atomic::Ordering::SeqCst;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    const LAYOUT: Layout = Layout {
        data: 64,
        size: 16,
        cons: 0,
        prod: 4,
    };

    proptest! {
        /// Bytes come out as they went in, also when the indices wrap.
        #[test]
        fn a_ring_is_a_queue(
            start in any::<u32>(),
            steps in proptest::collection::vec((any::<bool>(), 0usize..24), 1..100),
        ) {
            let page = TestPage::new();
            page.view().u32(LAYOUT.cons).store(start, SeqCst);
            page.view().u32(LAYOUT.prod).store(start, SeqCst);
            let mut producer = Producer::attach(LAYOUT, &page.view());
            let mut consumer = Consumer::attach(LAYOUT, &page.view());
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (pushes, count) in steps {
                if pushes {
                    let bytes: std::vec::Vec<u8> = (0u8..).take(count)
                        .map(|offset| next.wrapping_add(offset))
                        .collect();
                    let taken = producer.push(&page.view(), &bytes).unwrap();
                    prop_assert_eq!(taken, count.min(16 - model.len()));
                    model.extend(&bytes[..taken]);
                    next = next.wrapping_add(u8::try_from(taken).unwrap());
                } else {
                    let mut out = std::vec![0; count];
                    let taken = consumer.pull(&page.view(), &mut out).unwrap();
                    prop_assert_eq!(taken, count.min(model.len()));
                    let expected: std::vec::Vec<u8> = model.drain(..taken).collect();
                    prop_assert_eq!(&out[..taken], &expected[..]);
                }
            }
        }

        /// A peer's index is believed exactly when its distance fits the ring.
        #[test]
        fn a_hostile_index_is_refused(own in any::<u32>(), peer in any::<u32>()) {
            let page = TestPage::new();
            page.view().u32(LAYOUT.cons).store(own, SeqCst);
            let mut consumer = Consumer::attach(LAYOUT, &page.view());
            page.view().u32(LAYOUT.prod).store(peer, SeqCst);
            let mut out = [0; 32];
            match consumer.pull(&page.view(), &mut out) {
                Ok(count) => prop_assert!(count == peer.wrapping_sub(own) as usize && count <= 16),
                Err(Broken) => prop_assert!(peer.wrapping_sub(own) > 16),
            }
        }
    }
}
