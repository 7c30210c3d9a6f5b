//! A device as its front end sees it: two directories in the xenstore.

use core::fmt::Display;
use core::str::FromStr;

use abi::xenbus::XenbusState;
use abi::{DomId, EvtchnPort, GrantRef};

use crate::guest::event_channel;
use crate::guest::gnttab::{Access, Grants};
use crate::guest::page::OwnPage;
use crate::hypercall::Refused;
use crate::shared_page::SharedPage;
use crate::xenstore::{Client, ClientError, Text};

/// Why a front end cannot connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The store refused, or does not answer.
    Store(ClientError),
    /// A key of the back end's is missing or makes no sense.
    Key(&'static str),
    /// The grant table is full.
    NoGrant,
    /// There is no event channel.
    NoPort(Refused),
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Store(error)
    }
}

/// What front ends need of their guest. `T` holds the grant table's pages.
#[derive(Debug)]
pub struct Bus<T> {
    /// The way to the store.
    pub store: Client,
    /// The grant table.
    pub grants: Grants<T>,
}

impl<T: AsRef<[SharedPage]>> Bus<T> {
    /// Grants a page.
    ///
    /// # Errors
    /// [`Error::NoGrant`].
    pub fn grant(&mut self, to: DomId, page: OwnPage, access: Access) -> Result<GrantRef, Error> {
        let gref = self.grants.grant(to, page.gfn(), access);
        gref.ok_or(Error::NoGrant)
    }

    /// Offers an event channel.
    ///
    /// # Errors
    /// [`Error::NoPort`].
    pub fn offer_port(&mut self, to: DomId) -> Result<EvtchnPort, Error> {
        event_channel::alloc_unbound(to).map_err(Error::NoPort)
    }
}

/// Takes a grant back, if there is one; false while it is in use.
pub(crate) fn end<T: AsRef<[SharedPage]>>(
    grants: &mut Grants<T>,
    gref: &mut Option<GrantRef>,
) -> bool {
    if gref.is_some_and(|gref| grants.end(gref).is_err()) {
        return false;
    }
    *gref = None;
    true
}

/// The directories of one device.
#[derive(Clone, Debug)]
pub struct Device {
    home: Text,
    back: Text,
    back_id: DomId,
}

impl Device {
    /// Finds a device of this domain's by its kind, such as `vbd`, and number.
    ///
    /// # Errors
    /// [`Error::Store`] with `ENOENT` when there is none.
    pub fn find(store: &mut Client, kind: &str, number: u32) -> Result<Self, Error> {
        let home = crate::xenstore::text(format_args!("device/{kind}/{number}"))?;
        let back = store.read(format_args!("{home}/backend"))?;
        let back_id = store.read(format_args!("{home}/backend-id"))?;
        let back_id = back_id.parse().map_err(|_| Error::Key("backend-id"))?;
        Ok(Self {
            home,
            back,
            back_id: DomId(back_id),
        })
    }

    /// The front end's directory, relative to the domain's.
    #[must_use]
    pub fn home(&self) -> &str {
        &self.home
    }

    /// The back end's domain.
    #[must_use]
    pub const fn back_id(&self) -> DomId {
        self.back_id
    }

    /// A key of the front end's.
    ///
    /// # Errors
    /// The store's.
    pub fn own(&self, store: &mut Client, key: &str) -> Result<Text, ClientError> {
        store.read(format_args!("{}/{key}", self.home))
    }

    /// Sets a key of the front end's.
    ///
    /// # Errors
    /// The store's.
    pub fn set(
        &self,
        store: &mut Client,
        key: &str,
        value: impl Display,
    ) -> Result<(), ClientError> {
        store.write(format_args!("{}/{key}", self.home), value)
    }

    /// Removes a key of the front end's.
    ///
    /// # Errors
    /// The store's.
    pub fn unset(&self, store: &mut Client, key: &str) -> Result<(), ClientError> {
        store.remove(format_args!("{}/{key}", self.home))
    }

    /// Says the front end's state.
    ///
    /// # Errors
    /// The store's.
    pub fn say(&self, store: &mut Client, state: XenbusState) -> Result<(), ClientError> {
        self.set(store, "state", state.text())
    }

    /// A key of the back end's.
    ///
    /// # Errors
    /// The store's.
    pub fn back(&self, store: &mut Client, key: &str) -> Result<Text, ClientError> {
        store.read(format_args!("{}/{key}", self.back))
    }

    /// A number of the back end's; `None` when there is no such key.
    ///
    /// # Errors
    /// [`Error::Key`] for what is no number, [`Error::Store`].
    pub fn back_number<N: FromStr>(
        &self,
        store: &mut Client,
        key: &'static str,
    ) -> Result<Option<N>, Error> {
        match self.back(store, key) {
            Ok(text) => text.parse().map(Some).map_err(|_| Error::Key(key)),
            Err(ClientError::Refused(name)) if name == "ENOENT" => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The back end's state; [`XenbusState::Unknown`] when it is gone.
    pub fn back_state(&self, store: &mut Client) -> XenbusState {
        let state = self.back(store, "state").unwrap_or_default();
        XenbusState::parse(state.as_bytes())
    }

    /// Asks for events about the back end's state.
    ///
    /// # Errors
    /// The store's.
    pub fn watch_back(&self, store: &mut Client) -> Result<(), ClientError> {
        store.watch(format_args!("{}/state", self.back), &self.home)
    }
}
