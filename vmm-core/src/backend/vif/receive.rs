//! The half of an interface that receives, as its guest sees it.

use abi::{EvtchnPort, GrantRef};
use pv_drivers::grants::Grants;
use pv_drivers::net::{Frame, Offers, Rx, Undelivered};
use pv_drivers::ring::Broken;
use system::network::Direction;
use vswitch::{Counters, Filter, Reason};

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
    /// The half, as one of the device's, that the port is bound to.
    half: u16,
    /// It has that port for itself.
    is_own: bool,
    /// The front end's index made no sense.
    is_broken: bool,
}

impl Receiver {
    /// Takes up the ring. The half has a port of its own or the other half's, which is bound there;
    /// each with the number of its half.
    pub(super) fn connect(
        &mut self,
        front: Front<'_>,
        ring: GrantRef,
        offers: Offers,
        (both, own): ((EvtchnPort, u16), Option<(EvtchnPort, u16)>),
    ) -> Result<(), Refusal> {
        let page = front.map(ring)?;
        if let Some((port, half)) = own
            && let Err(refusal) = front.bind(port, half)
        {
            front.unmap(page);
            return Err(refusal);
        }
        // One page holds a ring.
        let rx = Rx::attach(page, offers).ok_or(Refusal::Key("rx-ring-ref"))?;
        let (port, half) = own.unwrap_or(both);
        self.channel = Some(Channel {
            rx,
            port,
            half,
            is_own: own.is_some(),
            is_broken: false,
        });
        Ok(())
    }

    pub(super) fn disconnect(&mut self, front: Front<'_>) {
        if let Some(channel) = self.channel.take() {
            if channel.is_own {
                front.unbind(channel.port, channel.half);
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

    /// Puts a frame into the front end's pages. The port and its half, when the front end is to
    /// be told.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) fn receive(
        &mut self,
        frame: &mut Frame,
        sender: &impl Grants,
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
        match channel.rx.deliver(frame, sender, &own) {
            Ok(()) => counters.count(u32::try_from(frame.len()).unwrap_or(u32::MAX)),
            Err(Undelivered::NoRoom | Undelivered::NotGranted) => counters.drop(Reason::NoRoom),
            Err(Undelivered::NotOffered) => counters.drop(Reason::NotOffered),
            Err(Undelivered::Broken) => {
                channel.is_broken = true;
                return Err(Broken);
            }
        }
        let told = channel.rx.publish();
        Ok(told.then_some((channel.port, channel.half)))
    }
}
