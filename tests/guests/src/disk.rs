//! A front end for one disk, as bare as tests want it: one page of ring, one request at a time.

use core::fmt::Display;

use abi::blkif::{MAX_SEGMENTS, Request, Response, Segment};
use abi::grant_table::RESERVED_ENTRIES;
use abi::xenbus::XenbusState;
use abi::{DomId, EvtchnPort, Gfn, GrantRef};
use pv_drivers::guest::event_channel;
use pv_drivers::guest::gnttab::Access;
use pv_drivers::guest::page::OwnPage;
use pv_drivers::ring::{Front, Memory};
use pv_drivers::shared_page::SharedPage;
use pv_drivers::xenbus::Device;
use pv_drivers::xenstore::{Client, ClientError, Text};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::grants::{self, Table};
use crate::memory::{self, Page};

/// The pages of data that tests use, granted to the back end for writing.
pub const PAGES: usize = 4;

static RING: Page = Page::new();
static DATA: [Page; PAGES] = [const { Page::new() }; PAGES];

/// The front end.
#[derive(Debug)]
pub struct Disk {
    store: Client,
    /// This domain's grants.
    pub table: Table,
    device: Device,
    front: Option<Front<OwnPage>>,
    /// The ring's grant.
    pub ring_gref: GrantRef,
    /// The grants of the pages of data.
    pub grefs: [GrantRef; PAGES],
    /// The port of the connection.
    pub port: EvtchnPort,
}

impl Disk {
    /// Finds the disk with this number; `None` when it or something that it needs is not there.
    #[must_use]
    pub fn find(number: u32) -> Option<Self> {
        let mut table = grants::table().ok()?;
        let mut store = Client::connect(memory::view(Client::frame()?)).ok()?;
        let device = Device::find(&mut store, "vbd", number).ok()?;
        let mut grant =
            |page: &'static Page| table.grant(DomId::CONTROL, page.gfn(), Access::Write);
        let ring_gref = grant(&RING)?;
        let mut grefs = [GrantRef(RESERVED_ENTRIES); PAGES];
        for (gref, page) in grefs.iter_mut().zip(&DATA) {
            *gref = grant(page)?;
        }
        Some(Self {
            store,
            table,
            device,
            front: None,
            ring_gref,
            grefs,
            port: EvtchnPort(0),
        })
    }

    /// A page of data.
    #[must_use]
    pub fn page(&self, index: usize) -> SharedPage {
        DATA.get(index).unwrap_or(&DATA[0]).view()
    }

    /// The frame of a page of data.
    #[must_use]
    pub fn gfn(&self, index: usize) -> Gfn {
        DATA.get(index).unwrap_or(&DATA[0]).gfn()
    }

    /// The ring's page.
    #[must_use]
    pub fn ring(&self) -> SharedPage {
        RING.view()
    }

    /// Reads a key of the back end's.
    ///
    /// # Errors
    /// The store's.
    pub fn back(&mut self, key: &str) -> Result<Text, ClientError> {
        self.device.back(&mut self.store, key)
    }

    /// The back end's state.
    pub fn state(&mut self) -> XenbusState {
        self.device.back_state(&mut self.store)
    }

    /// Writes a key of its own.
    ///
    /// # Errors
    /// The store's.
    pub fn set(&mut self, key: &str, value: impl Display) -> Result<(), ClientError> {
        self.device.set(&mut self.store, key, value)
    }

    /// Removes a key of its own.
    pub fn unset(&mut self, key: &str) {
        let _ = self.device.unset(&mut self.store, key);
    }

    /// Says its state, and returns the back end's, which answers at once or never.
    pub fn say(&mut self, state: XenbusState) -> XenbusState {
        // A refusal shows in the back end's state.
        let _ = self.set("state", state.text());
        self.state()
    }

    /// Begins with an empty ring and a new port, and tells of both. Returns the back end's state.
    pub fn connect(&mut self) -> XenbusState {
        let memory = Memory::new([RING.own()], size_of::<Request>());
        self.front = memory.map(Front::new);
        self.port = event_channel::alloc_unbound(DomId::CONTROL).unwrap_or_default();
        let _ = self.set("ring-ref", self.ring_gref);
        let _ = self.set("event-channel", self.port);
        let _ = self.set("protocol", "x86_64-abi");
        self.say(XenbusState::Initialised)
    }

    /// Says goodbye and gets ready for another start. Returns the back end's state.
    pub fn close(&mut self) -> XenbusState {
        let _ = event_channel::close(self.port);
        self.say(XenbusState::Closing);
        self.say(XenbusState::Closed);
        self.say(XenbusState::Initialising)
    }

    /// Puts a request into the ring; it is not announced yet.
    pub fn push(&mut self, request: &Request) -> bool {
        let front = self.front.as_mut();
        front.is_some_and(|front| front.push(request.as_bytes()))
    }

    /// Shows what is in the ring; true when the back end is to be told.
    pub fn publish(&mut self) -> bool {
        self.front.as_mut().is_some_and(Front::publish)
    }

    /// Announces what is in the ring.
    pub fn kick(&mut self) {
        if self.publish() {
            let _ = event_channel::send(self.port);
        }
    }

    /// The next response.
    pub fn response(&mut self) -> Option<Response> {
        let mut response = Response::new_zeroed();
        let front = self.front.as_mut()?;
        let there = front.take(response.as_mut_bytes()).ok()?;
        there.then_some(response)
    }

    /// Sends a request and returns its status; 1 when there is no answer to it.
    pub fn request(&mut self, request: &Request) -> i16 {
        if !self.push(request) {
            return 1;
        }
        self.kick();
        let answer = self.response().filter(|answer| answer.id == request.id);
        answer.map_or(1, |answer| answer.status)
    }
}

/// A request with these segments.
#[must_use]
pub fn request(operation: u8, sector_number: u64, segments: &[Segment]) -> Request {
    let mut request = Request::new_zeroed();
    request.operation = operation;
    request.sector_number = sector_number;
    request.id = sector_number ^ 0x5a5a;
    let count = segments.len().min(MAX_SEGMENTS);
    request.nr_segments = u8::try_from(count).unwrap_or(0);
    for (to, from) in request.seg.iter_mut().zip(segments) {
        *to = *from;
    }
    request
}

/// Sectors of a granted page.
#[must_use]
pub fn segment(gref: GrantRef, first: u8, last: u8) -> Segment {
    let mut segment = Segment::new_zeroed();
    segment.gref = gref.0;
    segment.first_sect = first;
    segment.last_sect = last;
    segment
}
