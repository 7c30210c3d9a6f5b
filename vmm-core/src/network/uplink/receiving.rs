//! Frames that come in.

use alloc::boxed::Box;

use abi::GrantRef;
use pv_drivers::grants::Grants;
use pv_drivers::net::Frame;
use pv_drivers::shared_page::SharedPage;
use system::network::Direction;
use vswitch::{Counters, Ethernet, Filter, PortId, Reason};

use crate::network::card::{Arrived, Buffer, Receive};
use crate::network::{Member, Network, Place, Route};

/// Frames, and copies of them for each who hears them, that are passed on in one go.
const SHARE: usize = 64;

#[derive(Debug)]
pub(super) struct Receiving {
    card: Box<dyn Receive>,
    counters: Counters,
    /// How far the next frame got, if it is on its way to all who hear it.
    round: Option<Round>,
}

/// The last port that has got it.
#[derive(Clone, Copy, Debug)]
struct Round(Option<PortId>);

/// The page that a frame came in as the only one that its sender grants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnePage<'a>(&'a SharedPage);

impl Grants for OnePage<'_> {
    fn with_page<R>(
        &self,
        _: GrantRef,
        write: bool,
        act: impl FnOnce(&SharedPage) -> R,
    ) -> Option<R> {
        (!write).then(|| act(self.0))
    }
}

impl Receiving {
    pub(super) fn new(card: Box<dyn Receive>) -> Self {
        Self {
            card,
            counters: Counters::default(),
            round: None,
        }
    }

    pub(super) fn start(&mut self) {
        self.card.rearm();
    }

    pub(super) fn counters(&mut self) -> Counters {
        let missed = self.card.missed();
        self.counters.drop_many(Reason::NoRoom, missed);
        self.counters
    }

    /// See [`Uplink::serve`](super::Uplink::serve).
    pub(super) fn serve(
        &mut self,
        from: (&Network, PortId),
        filter: &Filter,
        deliver: impl FnMut(&mut Frame, &OnePage<'_>, Member) -> bool,
    ) -> bool {
        let Self {
            card,
            counters,
            round,
        } = self;
        let (network, port) = from;
        let mut go = Go {
            network,
            port,
            filter,
            counters,
            left: SHARE,
            deliver,
        };
        while go.left != 0 {
            go.left = go.left.saturating_sub(1);
            *round = match card.look() {
                None => {
                    card.publish();
                    card.rearm();
                    return false;
                }
                Some(Arrived::Frame(buffer, len)) => go.pass_on(buffer, len, *round),
                Some(Arrived::Broken) => {
                    go.counters.drop(Reason::Malformed);
                    None
                }
            };
            if round.is_none() {
                card.give_back();
            }
        }
        card.publish();
        true
    }
}

/// One go.
struct Go<'a, D> {
    network: &'a Network,
    port: PortId,
    filter: &'a Filter,
    counters: &'a mut Counters,
    left: usize,
    deliver: D,
}

impl<D: FnMut(&mut Frame, &OnePage<'_>, Member) -> bool> Go<'_, D> {
    /// Passes a frame on, whose way may have begun; how far it got, if the share has ended before
    /// all have it.
    fn pass_on(&mut self, buffer: Buffer<'_>, len: u16, round: Option<Round>) -> Option<Round> {
        let page = OnePage(buffer.page);
        let frame = Frame::whole(GrantRef(0), buffer.offset, len, &page);
        let ethernet = frame
            .as_ref()
            .and_then(|frame| Ethernet::parse(frame.head()));
        let Some((mut frame, ethernet)) = frame.zip(ethernet) else {
            self.counters.drop(Reason::Malformed);
            return None;
        };
        let mut after = round.and_then(|Round(after)| after);
        if round.is_none() {
            match self.begin(&frame, ethernet) {
                Err(reason) => {
                    self.counters.drop(reason);
                    return None;
                }
                Ok(Some(place)) => {
                    self.give(&mut frame, &page, place);
                    return None;
                }
                Ok(None) => {}
            }
        }
        while self.left != 0 {
            let next = self
                .network
                .next_hearer(self.port, ethernet.destination, after);
            let (port, place) = next?;
            self.left = self.left.saturating_sub(1);
            self.give(&mut frame, &page, place);
            after = Some(port);
        }
        Some(Round(after))
    }

    /// Whether a frame may come in, and for whom it is; `None` for all who hear it.
    fn begin(&mut self, frame: &Frame, ethernet: Ethernet) -> Result<Option<Place>, Reason> {
        let route = self.network.route(self.port, ethernet);
        let route = route.map_err(|_| Reason::Spoofed)?;
        let head = frame.head();
        if !self.filter.passes(Direction::In, head, frame.len()) {
            return Err(Reason::Filtered);
        }
        let place = match route {
            Route::One(place) => Some(place),
            Route::Hearers => {
                let first = self
                    .network
                    .next_hearer(self.port, ethernet.destination, None);
                first.ok_or(Reason::Unreachable)?;
                None
            }
            Route::Nobody => return Err(Reason::Unreachable),
        };
        self.counters
            .count(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        Ok(place)
    }

    fn give(&mut self, frame: &mut Frame, page: &OnePage<'_>, place: Place) {
        match place {
            // Whoever is gone meanwhile hears nothing.
            Place::Vif(member) => {
                (self.deliver)(frame, page, member);
            }
            // What comes from there never goes back there.
            Place::Uplink => {}
        }
    }
}
