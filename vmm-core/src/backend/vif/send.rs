//! The half of an interface that sends, as its guest sees it.

use abi::netif::status;
use abi::{EvtchnPort, GrantRef, PAGE_SIZE};
use pv_drivers::net::{Frame, Taken, Tx, Unusable};
use spin::Mutex;
use system::network::{Direction, MacAddr};
use vswitch::{Bucket, Counters, Ethernet, Filter, PortId, Reason};

use super::deliver;
use crate::backend::driver::Outcome;
use crate::backend::front::{Front, Mapped, Refusal};
use crate::network::{Network, Place, Route};

/// Frames, and pages of them for each who hears them, that one front end sends in one step. A frame is
/// not cut, so those of 64 KiB go one at a time.
const STEP: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Sender {
    channel: Option<Channel>,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct Channel {
    tx: Tx<Mapped>,
    port: EvtchnPort,
    /// The port's number at the device.
    number: u16,
    /// Where the interface is at the switch.
    place: PortId,
    /// The frame that was taken last is on its way to all who hear it.
    round: Option<Round>,
}

/// How far a frame got that many hear.
#[derive(Clone, Copy, Debug)]
struct Round {
    destination: MacAddr,
    after: Option<PortId>,
}

impl Sender {
    /// Takes up the ring of an interface that has its place at the switch; `number` is that of the
    /// half among the device's. On failure nothing is held.
    pub(super) fn connect(
        &mut self,
        front: Front<'_>,
        ring: GrantRef,
        (port, number): (EvtchnPort, u16),
        place: PortId,
    ) -> Result<(), Refusal> {
        let page = front.map(ring)?;
        if let Err(refusal) = front.bind(port, number) {
            front.unmap(page);
            return Err(refusal);
        }
        // One page holds a ring.
        let tx = Tx::attach(page).ok_or(Refusal::Key("tx-ring-ref"))?;
        self.channel = Some(Channel {
            tx,
            port,
            number,
            place,
            round: None,
        });
        Ok(())
    }

    /// Lets go of the front end's.
    pub(super) fn disconnect(&mut self, front: Front<'_>) {
        if let Some(channel) = self.channel.take() {
            front.unbind(channel.port, channel.number);
            channel.tx.into_pages().for_each(|page| front.unmap(page));
        }
    }

    /// Sends as much as goes in one step.
    pub(super) fn serve(
        &mut self,
        front: Front<'_>,
        network: &Network,
        filter: &Filter,
        bucket: Option<&Mutex<Bucket>>,
    ) -> Result<Outcome, Unusable> {
        let Some(channel) = &mut self.channel else {
            return Ok(Outcome::default());
        };
        let mut turn = Turn {
            front,
            network,
            filter,
            bucket,
            counters: &mut self.counters,
            left: STEP,
            went_out: false,
        };
        let outcome = turn.serve(channel);
        if turn.went_out
            && let Some(uplink) = network.uplink()
        {
            uplink.publish();
        }
        outcome
    }
}

/// One step of a sender.
struct Turn<'a> {
    front: Front<'a>,
    network: &'a Network,
    filter: &'a Filter,
    bucket: Option<&'a Mutex<Bucket>>,
    counters: &'a mut Counters,
    /// What is left of the step.
    left: usize,
    /// The uplink has frames that its card does not know of.
    went_out: bool,
}

impl Turn<'_> {
    fn serve(&mut self, channel: &mut Channel) -> Result<Outcome, Unusable> {
        let mut outcome = Outcome::default();
        loop {
            outcome.more = !self.send_all(channel)?;
            if channel.tx.publish() {
                outcome.notify = Some(channel.port);
            }
            // Who has more to do looks again by itself.
            if outcome.more || !channel.tx.rearm()? {
                return Ok(outcome);
            }
        }
    }

    /// Sends what waits, as far as the step goes; true when nothing is left.
    fn send_all(&mut self, channel: &mut Channel) -> Result<bool, Unusable> {
        while self.left != 0 {
            let status = if let Some(round) = channel.round {
                channel.round = self.go_round(channel, round);
                channel.round.is_none().then_some(status::OKAY)
            } else {
                let Some(taken) = channel.tx.take(&self.front)? else {
                    return Ok(true);
                };
                self.left = self.left.saturating_sub(1);
                match taken {
                    Taken::Frame => self.send(channel),
                    Taken::Group { address, join } => {
                        let group = MacAddr(address);
                        let set = || self.network.set_group(channel.place, group, join);
                        let good = group.is_group() && set().is_ok();
                        Some(if good { status::OKAY } else { status::ERROR })
                    }
                    Taken::Nothing => {
                        self.counters.drop(Reason::Malformed);
                        Some(status::ERROR)
                    }
                }
            };
            if let Some(status) = status {
                channel.tx.answer(status);
            }
        }
        Ok(false)
    }

    /// Sends the frame that was taken; the answer to it, or `None` when it goes on by
    /// [`Turn::go_round`].
    fn send(&mut self, channel: &mut Channel) -> Option<i16> {
        let frame = channel.tx.frame();
        let (ethernet, route) = match self.check(frame, channel.place) {
            Ok(checked) => checked,
            Err(reason) => {
                self.counters.drop(reason);
                return Some(status::DROPPED);
            }
        };
        let reached = match route {
            Route::One(place) => self.deliver(channel.tx.frame_mut(), place),
            Route::Hearers => {
                channel.round = Some(Round {
                    destination: ethernet.destination,
                    after: None,
                });
                true
            }
            Route::Nobody => false,
        };
        if reached {
            self.counters.count(length(channel.tx.frame()));
        } else {
            self.counters.drop(Reason::Unreachable);
        }
        channel.round.is_none().then_some(status::OKAY)
    }

    /// Whether a frame may be sent, and where it goes.
    fn check(&mut self, frame: &Frame, place: PortId) -> Result<(Ethernet, Route), Reason> {
        let ethernet = Ethernet::parse(frame.head()).ok_or(Reason::Malformed)?;
        let route = self.network.route(place, ethernet);
        let route = route.map_err(|_| Reason::Spoofed)?;
        let head = frame.head();
        if !self.filter.passes(Direction::Out, head, frame.len()) {
            return Err(Reason::Filtered);
        }
        if let Some(bucket) = self.bucket
            && !bucket.lock().take(self.front.now(), length(frame))
        {
            return Err(Reason::Limited);
        }
        Ok((ethernet, route))
    }

    /// Delivers a frame to the next who hears it; `None` when there was none.
    fn go_round(&mut self, channel: &mut Channel, round: Round) -> Option<Round> {
        let Round { destination, after } = round;
        let next = self.network.next_hearer(channel.place, destination, after);
        let (port, place) = next?;
        // Whoever is gone meanwhile hears nothing.
        self.deliver(channel.tx.frame_mut(), place);
        Some(Round {
            after: Some(port),
            ..round
        })
    }

    /// Gives a frame to one who hears it; false when there is no such one any more.
    fn deliver(&mut self, frame: &mut Frame, place: Place) -> bool {
        let pages = frame.len().div_ceil(PAGE_SIZE);
        let (reached, work) = match place {
            Place::Vif(member) => (deliver(frame, &self.front, member), pages),
            Place::Uplink => {
                self.went_out = true;
                let uplink = self.network.uplink();
                let sent = uplink.map(|uplink| uplink.send(frame, &self.front));
                (sent.is_some(), sent.unwrap_or(0).max(pages))
            }
        };
        self.left = self.left.saturating_sub(work);
        reached
    }
}

fn length(frame: &Frame) -> u32 {
    u32::try_from(frame.len()).unwrap_or(u32::MAX)
}
