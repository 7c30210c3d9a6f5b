//! The console's back end.

use core::sync::atomic::Ordering::Release;

use abi::console::{CONNECTED, CONNECTION, OUT_SIZE};

use super::{INPUT, OUTPUT};
use crate::byte_ring::{Broken, Consumer, Producer};
use crate::shared_page::SharedPage;

/// The back end of one console. Every call takes the page, which its owner holds.
#[derive(Clone, Debug)]
pub struct Back {
    output: Consumer,
    input: Producer,
}

/// What [`Back::drain`] took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// Bytes put into the buffer; fewer than it holds when the ring is empty.
    pub bytes: usize,
    /// The ring was full: the guest may wait to be told that there is room again.
    pub was_full: bool,
}

impl Back {
    /// Connects to a ring page.
    #[must_use]
    pub fn connect(page: &SharedPage) -> Self {
        let back = Self {
            output: Consumer::attach(OUTPUT, page),
            input: Producer::attach(INPUT, page),
        };
        page.u8(CONNECTION).store(CONNECTED, Release);
        back
    }

    /// Takes what the guest wrote, as far as `buffer` holds it.
    ///
    /// # Errors
    /// [`Broken`] when the guest's index makes no sense; nothing was taken.
    pub fn drain(&mut self, page: &SharedPage, buffer: &mut [u8]) -> Result<Drained, Broken> {
        let waiting = self.output.waiting(page)?;
        let bytes = self.output.pull(page, buffer)?;
        Ok(Drained {
            bytes,
            was_full: bytes != 0 && waiting >= OUT_SIZE as usize,
        })
    }

    /// Gives the guest as much of `bytes` as its ring has room for, and says how much that was.
    /// A notification is due when it is not 0.
    ///
    /// # Errors
    /// [`Broken`] when the guest's index makes no sense; nothing was given.
    pub fn feed(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, Broken> {
        self.input.push(page, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Front;
    use super::{Back, Drained};
    use crate::byte_ring::Broken;
    use crate::test_page::TestPage;
    use abi::console::{IN_CONS, OUT_PROD};
    use core::sync::atomic::Ordering::SeqCst;

    #[test]
    fn front_and_back_understand_each_other() {
        let page = TestPage::new();
        let mut back = Back::connect(&page.view());
        let mut front = Front::connect(&page.view());
        assert_eq!(front.write(&page.view(), b"hello"), Ok(5));
        let mut buffer = [0; 64];
        let drained = back.drain(&page.view(), &mut buffer);
        assert_eq!(
            drained,
            Ok(Drained {
                bytes: 5,
                was_full: false
            })
        );
        assert_eq!(&buffer[..5], b"hello");
        assert_eq!(back.feed(&page.view(), b"typed"), Ok(5));
        assert_eq!(front.read(&page.view(), &mut buffer), Ok(5));
        assert_eq!(&buffer[..5], b"typed");
    }

    #[test]
    fn a_full_ring_asks_for_notification() {
        let page = TestPage::new();
        let mut back = Back::connect(&page.view());
        let mut front = Front::connect(&page.view());
        assert_eq!(front.write(&page.view(), &[b'x'; 3000]), Ok(2048));
        let mut buffer = [0; 2000];
        let first = back.drain(&page.view(), &mut buffer);
        assert_eq!(
            first,
            Ok(Drained {
                bytes: 2000,
                was_full: true
            })
        );
        let second = back.drain(&page.view(), &mut buffer);
        assert_eq!(
            second,
            Ok(Drained {
                bytes: 48,
                was_full: false
            })
        );
        assert_eq!(back.feed(&page.view(), &[b'y'; 3000]), Ok(1024));
        assert_eq!(back.feed(&page.view(), b"more"), Ok(0));
    }

    #[test]
    fn hostile_indices_are_refused_on_both_rings() {
        let page = TestPage::new();
        let mut back = Back::connect(&page.view());
        page.view().u32(OUT_PROD).store(2049, SeqCst);
        assert_eq!(back.drain(&page.view(), &mut [0; 16]), Err(Broken));
        page.view().u32(IN_CONS).store(1, SeqCst);
        assert_eq!(back.feed(&page.view(), b"a"), Err(Broken));
        // A guest that comes to its senses is served again.
        page.view().u32(OUT_PROD).store(0, SeqCst);
        assert_eq!(
            back.drain(&page.view(), &mut [0; 16])
                .map(|drained| drained.bytes),
            Ok(0)
        );
    }
}
