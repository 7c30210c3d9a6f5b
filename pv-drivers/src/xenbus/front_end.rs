//! A front end on its way.

use core::ops::{Deref, DerefMut};

use abi::xenbus::XenbusState;

use super::front::{Phase, Step, step};
use super::{Bus, Device, Error};
use crate::shared_page::SharedPage;

/// The most steps that one look takes: a back end that answers at once is brought all the way
/// round.
const STEPS: usize = 8;

/// What is particular about a kind of device.
pub trait Driver {
    /// Its directory's name in the xenstore.
    const KIND: &'static str;
    /// What such a front end says once it has offered its rings.
    const OFFERED: XenbusState;

    /// Grants rings and writes the keys that tell of them.
    ///
    /// # Errors
    /// [`Error`]; [`Driver::release`] follows.
    fn offer<T: AsRef<[SharedPage]>>(
        &mut self,
        bus: &mut Bus<T>,
        device: &Device,
    ) -> Result<(), Error>;

    /// Learns of the device, now that the back end is connected.
    ///
    /// # Errors
    /// [`Error`]; [`Driver::release`] follows.
    fn begin<T: AsRef<[SharedPage]>>(
        &mut self,
        bus: &mut Bus<T>,
        device: &Device,
    ) -> Result<(), Error>;

    /// Takes back all that was granted; false while something of it is in use.
    fn release<T: AsRef<[SharedPage]>>(&mut self, bus: &mut Bus<T>) -> bool;
}

/// The front end of one device.
///
/// [`FrontEnd::look`] does what the back end's state asks for. It is to be called after events of
/// the store, of which the back end's state is one; it asks the store and waits for its answers,
/// but for nobody else.
#[derive(Debug)]
pub struct FrontEnd<D> {
    device: Device,
    phase: Phase,
    /// Whether it is to connect anew when a connection has ended.
    comes_back: bool,
    driver: D,
}

impl<D: Driver> FrontEnd<D> {
    /// Finds the device and has the store tell of its back end's state.
    ///
    /// # Errors
    /// [`Error`]; there may be no such device.
    pub fn new<T: AsRef<[SharedPage]>>(
        bus: &mut Bus<T>,
        number: u32,
        driver: D,
    ) -> Result<Self, Error> {
        let device = Device::find(&mut bus.store, D::KIND, number)?;
        let mut front_end = Self {
            device,
            phase: Phase::Waiting,
            comes_back: true,
            driver,
        };
        let Self { device, phase, .. } = &mut front_end;
        // Somebody may have used the device before this guest began.
        let said = match device.back_state(&mut bus.store) {
            XenbusState::Connected | XenbusState::Closing => {
                *phase = Phase::Leaving;
                XenbusState::Closed
            }
            _ => XenbusState::Initialising,
        };
        device.say(&mut bus.store, said)?;
        device.watch_back(&mut bus.store)?;
        Ok(front_end)
    }

    /// Does what the back end's state asks for.
    ///
    /// # Errors
    /// [`Error`]: the connection is being ended, and does not come back.
    pub fn look<T: AsRef<[SharedPage]>>(&mut self, bus: &mut Bus<T>) -> Result<Phase, Error> {
        for _ in 0..STEPS {
            let back = self.device.back_state(&mut bus.store);
            let step = step(self.phase, back);
            if step == Step::Stay {
                break;
            }
            let before = self.phase;
            self.take(bus, step).inspect_err(|_| {
                self.comes_back = false;
                // The store may be why there is an error; there is nobody else to tell.
                let _ = self.go(bus, Phase::Leaving, XenbusState::Closed);
            })?;
            if self.phase == before {
                break;
            }
        }
        Ok(self.phase)
    }

    fn take<T: AsRef<[SharedPage]>>(&mut self, bus: &mut Bus<T>, step: Step) -> Result<(), Error> {
        match step {
            Step::Stay => Ok(()),
            Step::Offer => {
                self.driver.offer(bus, &self.device)?;
                self.go(bus, Phase::Offered, D::OFFERED)
            }
            Step::Begin => {
                self.driver.begin(bus, &self.device)?;
                self.go(bus, Phase::Connected, XenbusState::Connected)
            }
            Step::Leave => self.go(bus, Phase::Leaving, XenbusState::Closed),
            // What is in use is looked at again after the next event.
            Step::Release if !self.driver.release(bus) => Ok(()),
            Step::Release if self.comes_back => {
                self.go(bus, Phase::Waiting, XenbusState::Initialising)
            }
            Step::Release => {
                self.phase = Phase::Gone;
                Ok(())
            }
        }
    }

    fn go<T>(&mut self, bus: &mut Bus<T>, phase: Phase, state: XenbusState) -> Result<(), Error> {
        // It counts from the moment on at which the back end may see it.
        self.phase = phase;
        Ok(self.device.say(&mut bus.store, state)?)
    }

    /// Ends the connection and begins anew, as after [`Broken`](crate::ring::Broken).
    ///
    /// # Errors
    /// [`Error`].
    pub fn restart<T: AsRef<[SharedPage]>>(&mut self, bus: &mut Bus<T>) -> Result<Phase, Error> {
        if matches!(self.phase, Phase::Offered | Phase::Connected) {
            self.go(bus, Phase::Leaving, XenbusState::Closed)?;
        }
        self.look(bus)
    }

    /// Ends the connection for good. When the phase is [`Phase::Gone`], nothing is granted any
    /// more.
    ///
    /// # Errors
    /// [`Error`].
    pub fn close<T: AsRef<[SharedPage]>>(&mut self, bus: &mut Bus<T>) -> Result<Phase, Error> {
        self.comes_back = false;
        match self.phase {
            Phase::Waiting => {
                self.go(bus, Phase::Gone, XenbusState::Closed)?;
                Ok(self.phase)
            }
            Phase::Offered | Phase::Connected => self.restart(bus),
            Phase::Leaving | Phase::Gone => self.look(bus),
        }
    }

    /// Where it is on its way.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The device's directories.
    #[must_use]
    pub const fn device(&self) -> &Device {
        &self.device
    }
}

impl<D> Deref for FrontEnd<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.driver
    }
}

impl<D> DerefMut for FrontEnd<D> {
    fn deref_mut(&mut self) -> &mut D {
        &mut self.driver
    }
}
