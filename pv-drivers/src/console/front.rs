//! The console's front end, for guests.

use super::{INPUT, OUTPUT};
use crate::byte_ring::{Broken, Consumer, Producer};
use crate::shared_page::SharedPage;

/// The front end of one console. Every call takes the page, which its owner holds.
#[derive(Clone, Debug)]
pub struct Front {
    output: Producer,
    input: Consumer,
}

impl Front {
    /// Connects to a ring page.
    #[must_use]
    pub fn connect(page: &SharedPage) -> Self {
        Self {
            output: Producer::attach(OUTPUT, page),
            input: Consumer::attach(INPUT, page),
        }
    }

    /// Writes as much of `bytes` as the ring has room for, and says how much that was. A
    /// notification is due when it is not 0.
    ///
    /// # Errors
    /// [`Broken`] when the back end's index makes no sense.
    pub fn write(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, Broken> {
        self.output.push(page, bytes)
    }

    /// Bytes written that the back end has not taken yet.
    ///
    /// # Errors
    /// As [`Front::write`].
    pub fn unsent(&self, page: &SharedPage) -> Result<usize, Broken> {
        Ok((OUTPUT.size as usize).saturating_sub(self.output.room(page)?))
    }

    /// Reads what has come in, as far as `buffer` holds it; says how much that was.
    ///
    /// # Errors
    /// As [`Front::write`].
    pub fn read(&mut self, page: &SharedPage, buffer: &mut [u8]) -> Result<usize, Broken> {
        self.input.pull(page, buffer)
    }
}
