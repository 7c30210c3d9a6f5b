//! A guest's console: the ring, and the port that goes with it.

use abi::hvm::param;
use abi::{EvtchnPort, Gfn};

use super::Front;
use crate::byte_ring::Broken;
use crate::guest::{event_channel, hvm};
use crate::shared_page::SharedPage;

/// A connection to the console. Nothing waits.
#[derive(Debug)]
pub struct Client {
    page: SharedPage,
    port: EvtchnPort,
    front: Front,
}

impl Client {
    /// Where the console's page is, for the caller to make a view of; `None` without a console.
    #[must_use]
    pub fn frame() -> Option<Gfn> {
        let frame = hvm::get_param(param::CONSOLE_PFN).ok()?;
        (frame != 0).then(|| Gfn::new(frame))
    }

    /// Connects through the page of [`Client::frame`]; `None` when the domain has no port for it.
    #[must_use]
    pub fn connect(page: SharedPage) -> Option<Self> {
        let port = hvm::get_param(param::CONSOLE_EVTCHN).ok()?;
        let port = u32::try_from(port).ok().filter(|&port| port != 0)?;
        Some(Self::attach(page, EvtchnPort(port)))
    }

    /// Goes on where the page says it stands: several can take turns at one console, as long as no
    /// two of them write at once.
    #[must_use]
    pub fn attach(page: SharedPage, port: EvtchnPort) -> Self {
        Self {
            front: Front::connect(&page),
            page,
            port,
        }
    }

    /// The port whose event says that there is something to read, or room to write again.
    #[must_use]
    pub const fn port(&self) -> EvtchnPort {
        self.port
    }

    /// Writes as much as there is room for, and says how much that was.
    ///
    /// # Errors
    /// [`Broken`] when the back end's index makes no sense.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let count = self.front.write(&self.page, bytes)?;
        self.notify();
        Ok(count)
    }

    /// Whether all that was written has been taken.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub fn is_drained(&self) -> Result<bool, Broken> {
        Ok(self.front.unsent(&self.page)? == 0)
    }

    /// Reads what has come in, as far as `buffer` holds it; says how much that was.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let count = self.front.read(&self.page, buffer)?;
        if count != 0 {
            self.notify();
        }
        Ok(count)
    }

    fn notify(&self) {
        // A refusal cannot be reported anywhere.
        let _ = event_channel::send(self.port);
    }
}
