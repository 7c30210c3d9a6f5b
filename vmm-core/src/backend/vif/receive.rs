//! The half of an interface that receives, as its guest sees it.

use abi::{EvtchnPort, GrantRef};
use pv_drivers::net::{Frame, Offers, Rx, Undelivered};
use pv_drivers::ring::Broken;
use system::network::Direction;
use vswitch::{Counters, Filter, Reason};

use super::{RECEIVER, SENDER};
use crate::backend::front::{Front, Mapped, Refusal};

#[derive(Debug, Default)]
pub(super) struct Receiver {
    channel: Option<Channel>,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct Channel {
    rx: Rx<Mapped>,
    port: EvtchnPort,
    /// The queue that the port is bound to.
    queue: u16,
    /// The front end's index made no sense.
    is_broken: bool,
}

impl Receiver {
    /// Takes up the ring. The half has a port of its own or the other half's, which is bound there.
    pub(super) fn connect(
        &mut self,
        front: Front<'_>,
        ring: GrantRef,
        offers: Offers,
        (both, own): (EvtchnPort, Option<EvtchnPort>),
    ) -> Result<(), Refusal> {
        let page = front.map(ring)?;
        if let Some(port) = own
            && let Err(refusal) = front.bind(port, RECEIVER)
        {
            front.unmap(page);
            return Err(refusal);
        }
        // One page holds a ring.
        let rx = Rx::attach(page, offers).ok_or(Refusal::Key("rx-ring-ref"))?;
        self.channel = Some(Channel {
            rx,
            port: own.unwrap_or(both),
            queue: own.map_or(SENDER, |_| RECEIVER),
            is_broken: false,
        });
        Ok(())
    }

    pub(super) fn disconnect(&mut self, front: Front<'_>) {
        if let Some(channel) = self.channel.take() {
            if channel.queue == RECEIVER {
                front.unbind(channel.port, RECEIVER);
            }
            channel.rx.into_pages().for_each(|page| front.unmap(page));
        }
    }

    /// # Errors
    /// [`Broken`] once a frame has met with that.
    pub(super) fn check(&self) -> Result<(), Broken> {
        match &self.channel {
            Some(channel) if channel.is_broken => Err(Broken),
            _ => Ok(()),
        }
    }

    /// Puts a frame into the front end's pages. The port and its queue, when the front end is to
    /// be told.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) fn receive(
        &mut self,
        frame: &mut Frame,
        sender: Front<'_>,
        own: Front<'_>,
        filter: &Filter,
    ) -> Result<Option<(EvtchnPort, u16)>, Broken> {
        let Self { channel, counters } = self;
        let Some(channel) = channel.as_mut().filter(|channel| !channel.is_broken) else {
            counters.drop(Reason::NoRoom);
            return Ok(None);
        };
        if !filter.passes(Direction::In, frame.head(), frame.len()) {
            counters.drop(Reason::Filtered);
            return Ok(None);
        }
        match channel.rx.deliver(frame, &sender, &own) {
            Ok(()) => counters.count(u32::try_from(frame.len()).unwrap_or(u32::MAX)),
            Err(Undelivered::NoRoom | Undelivered::NotGranted) => counters.drop(Reason::NoRoom),
            Err(Undelivered::NotOffered) => counters.drop(Reason::NotOffered),
            Err(Undelivered::Broken) => {
                channel.is_broken = true;
                return Err(Broken);
            }
        }
        let told = channel.rx.publish();
        Ok(told.then_some((channel.port, channel.queue)))
    }
}
