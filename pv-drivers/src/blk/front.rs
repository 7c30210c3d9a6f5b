//! The front end of a disk.

use abi::blkif::info;
use abi::xenbus::{XenbusState, protocol};
use abi::{DomId, EvtchnPort, GrantRef};

use super::{Completion, NotTaken, Request, Requests};
use crate::guest::event_channel;
use crate::guest::gnttab::Access;
use crate::guest::page::OwnPage;
use crate::ring::Broken;
use crate::shared_page::SharedPage;
use crate::xenbus::{Bus, Device, Driver, Error, FrontEnd, end};

/// What the back end says of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of which requests have to be multiples, and begin at one.
    pub sector_size: u32,
    /// It refuses writes.
    pub is_read_only: bool,
    /// It takes [`Request::Flush`].
    pub flushes: bool,
    /// It takes [`Request::Discard`].
    pub discards: bool,
}

/// A disk: one ring of one page. Requests are submitted, published together, and complete in any
/// order; nothing waits.
#[derive(Debug)]
pub struct Front {
    page: OwnPage,
    link: Option<Link>,
    info: Info,
}

/// What the connection has taken of the guest.
#[derive(Debug)]
struct Link {
    back: DomId,
    requests: Requests,
    ring: Option<GrantRef>,
    port: Option<EvtchnPort>,
    /// The back end serves it.
    is_up: bool,
}

/// The front end of a disk.
pub type DiskFront = FrontEnd<Front>;

impl Front {
    /// A front end with this page for its ring, which is to be used for nothing else.
    #[must_use]
    pub const fn new(page: OwnPage) -> Self {
        Self {
            page,
            link: None,
            info: Info {
                sectors: 0,
                sector_size: 512,
                is_read_only: true,
                flushes: false,
                discards: false,
            },
        }
    }

    /// What the back end of the last connection said.
    #[must_use]
    pub const fn info(&self) -> Info {
        self.info
    }

    /// The port whose event says that requests are complete.
    #[must_use]
    pub fn port(&self) -> Option<EvtchnPort> {
        self.link.as_ref()?.port
    }

    /// Whether no request is on its way. Those that were on their way when a connection ended are
    /// lost: it is for the guest to submit them anew.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let link = self.link.as_ref();
        link.is_none_or(|link| link.requests.is_empty())
    }

    /// Submits a request; the back end sees it after [`Front::publish`].
    ///
    /// # Errors
    /// [`NotTaken`]; full, too, while there is no connection.
    pub fn submit<T: AsRef<[SharedPage]>>(
        &mut self,
        bus: &mut Bus<T>,
        request: Request<'_>,
        tag: u64,
    ) -> Result<(), NotTaken> {
        let link = self.link.as_mut().filter(|link| link.is_up);
        let link = link.ok_or(NotTaken::Full)?;
        let grants = &mut bus.grants;
        link.requests.submit(grants, link.back, request, tag)
    }

    /// Shows the back end what was submitted.
    pub fn publish(&mut self) {
        if let Some(Link {
            requests,
            port: Some(port),
            ..
        }) = &mut self.link
            && requests.publish()
        {
            // A port that is not open any more has nobody at its other end.
            let _ = event_channel::send(*port);
        }
    }

    /// The next request that is done. When it says that there is none, the port's event will tell
    /// of the next one.
    ///
    /// # Errors
    /// [`Broken`]: the back end makes no sense, and a [`FrontEnd::restart`] is due.
    pub fn complete<T: AsRef<[SharedPage]>>(
        &mut self,
        bus: &mut Bus<T>,
    ) -> Result<Option<Completion>, Broken> {
        let Some(Link {
            requests,
            is_up: true,
            ..
        }) = &mut self.link
        else {
            return Ok(None);
        };
        loop {
            let completion = requests.complete(&mut bus.grants)?;
            if completion.is_some() || !requests.rearm()? {
                return Ok(completion);
            }
        }
    }
}

impl Driver for Front {
    const KIND: &'static str = "vbd";
    const OFFERED: XenbusState = XenbusState::Initialised;

    fn offer<T: AsRef<[SharedPage]>>(
        &mut self,
        bus: &mut Bus<T>,
        device: &Device,
    ) -> Result<(), Error> {
        let back = device.back_id();
        // One page holds a ring.
        let requests = Requests::new(self.page).ok_or(Error::NoGrant)?;
        let link = self.link.insert(Link {
            back,
            requests,
            ring: None,
            port: None,
            is_up: false,
        });
        let ring = *link.ring.insert(bus.grant(back, self.page, Access::Write)?);
        let port = *link.port.insert(bus.offer_port(back)?);
        let store = &mut bus.store;
        device.set(store, "ring-ref", ring)?;
        device.set(store, "event-channel", port)?;
        Ok(device.set(store, "protocol", protocol::X86_64)?)
    }

    fn begin<T: AsRef<[SharedPage]>>(
        &mut self,
        bus: &mut Bus<T>,
        device: &Device,
    ) -> Result<(), Error> {
        let store = &mut bus.store;
        let sectors = device.back_number(store, "sectors")?;
        let mut feature = |key| Ok::<_, Error>(device.back_number::<u8>(store, key)? == Some(1));
        let (flushes, discards) = (feature("feature-flush-cache")?, feature("feature-discard")?);
        let bits: u32 = device.back_number(store, "info")?.unwrap_or(0);
        self.info = Info {
            sectors: sectors.ok_or(Error::Key("sectors"))?,
            sector_size: device.back_number(store, "sector-size")?.unwrap_or(512),
            is_read_only: bits & info::READONLY != 0,
            flushes,
            discards,
        };
        if let Some(link) = &mut self.link {
            link.is_up = true;
        }
        Ok(())
    }

    fn release<T: AsRef<[SharedPage]>>(&mut self, bus: &mut Bus<T>) -> bool {
        let Some(link) = &mut self.link else {
            return true;
        };
        link.is_up = false;
        if let Some(port) = link.port.take() {
            // It was ours.
            let _ = event_channel::close(port);
        }
        while link.requests.abandon(&mut bus.grants).is_some() {}
        let done = end(&mut bus.grants, &mut link.ring) && link.requests.is_empty();
        if done {
            self.link = None;
        }
        done
    }
}
