//! Devices whose back ends run inside the hypervisor.
//!
//! A domain's devices come from its description and are there as long as it is. Front and back end
//! meet in the xenstore, as everywhere in Xen's world; domain 0 stands for the hypervisor.
//!
//! ```text
//! front end says its state ----> store --> front_changed --> Driver::connect: maps the rings by
//!   (device/<kind>/<n>)                                      grant, binds the event channels
//! front end sends its event ---> kick ---> Driver::serve, a step at a time in that very exit
//!
//! what waits when a connection is made: leftovers ---> serve_more
//! ```
//!
//! * [`Device`] is one of them, [`Driver`] what it does.
//! * [`Front`] is what a back end sees of the front end's domain, [`Keys`] of the store.
//!
//! Locks are taken in this order: the store, a device's link, a queue, what [`Domain`] says.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod driver;
mod front;
mod keys;
mod vbd;
mod vif;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::DomId;
use abi::xenbus::XenbusState;
use pv_drivers::blk::{IoError, Tag};
use pv_drivers::grants::Grants;
use pv_drivers::net::Frame;
use pv_drivers::xenbus::back::{Step, step};
use spin::Mutex;
use system::{Archive, ArchiveError, DomainConfig};
use xenstore::Control;

use crate::domain::{Domain, list};
use crate::evtchn::DeviceQueue;
use crate::network::Member;
use crate::storage::Origin;
use crate::{percpu, store};

use driver::{Driver, Outcome};
use front::{Front, Refusal};
use keys::{Announcement, Keys};
pub use vbd::MAX_QUEUES as MAX_DISK_QUEUES;

/// Set when a queue is to be served beside its front end's event.
static MORE: AtomicBool = AtomicBool::new(false);

/// A device with its back end.
#[derive(Debug)]
pub struct Device {
    /// Its place in the domain's list.
    slot: u16,
    /// Its number in the xenstore.
    number: u32,
    driver: Driver,
    link: Mutex<Link>,
    /// Queues that are to be served so.
    more: AtomicU32,
}

#[derive(Debug)]
struct Link {
    /// The back end's state.
    state: XenbusState,
    /// Something was wrong with the front end; said once.
    complained: bool,
}

/// Why a device cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceError {
    /// Its image is damaged.
    Archive(ArchiveError),
    /// The machine does not have the disk as it is described.
    Disk(&'static str),
}

impl From<ArchiveError> for DeviceError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

/// A domain's devices.
#[derive(Debug)]
pub struct Devices(Box<[Device]>);

impl Devices {
    /// The devices of a domain's description, which has that place in the system's. Calls
    /// `give_way` between steps.
    ///
    /// # Errors
    /// [`DeviceError`] for a disk that cannot be.
    pub fn new(
        archive: &Archive<'static>,
        (index, config): (usize, &DomainConfig),
        id: DomId,
        give_way: &mut dyn FnMut(),
    ) -> Result<Self, DeviceError> {
        let mut drivers = Vec::new();
        for (number, disk) in config.disks.iter().enumerate() {
            let place = (index, number);
            let vbd = vbd::Vbd::new(archive, place, disk, id, config.vcpus, give_way)?;
            drivers.push((disk.name.virtual_device(), Driver::Vbd(vbd)));
        }
        for (number, vif) in (0..).zip(&config.vifs) {
            let vif = vif::Vif::new(number, vif, config.vcpus);
            drivers.push((number.into(), Driver::Vif(Box::new(vif))));
        }
        let devices = (0..).zip(drivers).map(|(slot, (number, driver))| Device {
            slot,
            number,
            driver,
            link: Mutex::new(Link {
                state: XenbusState::Initialising,
                complained: false,
            }),
            more: AtomicU32::new(0),
        });
        Ok(Self(devices.collect()))
    }

    fn get(&self, slot: u16) -> Option<&Device> {
        self.0.get(usize::from(slot))
    }

    /// Lets go of all that is the domain's, which has ended, and of what it has written. Others
    /// may run at each `give_way`.
    pub fn release(&self, domain: &Arc<Domain>, mut give_way: impl FnMut()) {
        for device in &self.0 {
            device.driver.disconnect(Front::new(domain, device.slot));
            device.driver.clear(&mut give_way);
            if let Driver::Vif(vif) = &device.driver {
                vif.report(&domain.name);
            }
        }
    }
}

/// The number of the store's watch on a front end's state.
fn watch_number(domain: DomId, slot: u16) -> u64 {
    u64::from(domain.0) << 16 | u64::from(slot)
}

/// Makes the directories of a new domain's devices, a key at a time; calls `give_way` between them.
///
/// # Errors
/// [`xenstore::Error::Enomem`].
pub fn introduce(domain: &Domain, give_way: &mut dyn FnMut()) -> Result<(), xenstore::Error> {
    for device in &domain.devices.0 {
        let (kind, number) = (device.driver.kind(), device.number);
        let mut keys = Announcement::new(kind, domain.id, number, give_way);
        keys.make(domain.id, kind)?;
        device.driver.announce(&mut keys)?;
        let said = store::control(|control| {
            let mut keys = device.keys(control, domain.id);
            let mut link = device.link.lock();
            link.say(&mut keys, XenbusState::InitWait)?;
            keys.watch_front(watch_number(domain.id, device.slot))
        });
        said.ok_or(xenstore::Error::Enomem)??;
    }
    Ok(())
}

/// Removes what [`introduce`] made in domain 0's part of the store, where nothing is written any
/// more; what it made in the domain's own goes with that.
pub fn forget(control: &mut Control<'_>, domain: &Domain) {
    for device in &domain.devices.0 {
        device.link.lock().state = XenbusState::Closed;
        control.unwatch(watch_number(domain.id, device.slot));
        control.remove(&keys::back_home(device.driver.kind(), domain.id));
    }
}

/// A front end's state may have changed; `number` is that of the watch.
pub fn front_changed(control: &mut Control<'_>, number: u64) {
    let id = u16::try_from(number >> 16).map(DomId);
    let slot = u16::try_from(number & 0xffff);
    if let (Ok(id), Ok(slot)) = (id, slot)
        && let Some(domain) = list::by_id(id)
        && let Some(device) = domain.devices.get(slot)
    {
        device.front_changed(control, &domain);
    }
}

/// Serves a queue whose event the front end sent: a step, after which the caller looks whether
/// somebody wants the pCPU. True when there is more.
#[must_use = "the front end does not send its event again"]
pub fn kick(domain: &Arc<Domain>, queue: DeviceQueue) -> bool {
    let device = domain.devices.get(queue.device);
    device.is_some_and(|device| device.serve(domain, queue.queue))
}

/// A disk of the machine is done with a request of a front end's.
pub fn answer(origin: &Origin, tag: Tag, result: Result<(), IoError>) {
    let Origin { domain, queue, .. } = origin;
    if let Some(device) = domain.devices.get(queue.device) {
        let front = Front::new(domain, device.slot);
        let served = device.driver.answer(front, origin, tag, result);
        if device.follow(domain, queue.queue, served) {
            device.leave(1u32.checked_shl(queue.queue.into()).unwrap_or(0));
        }
    }
}

/// Gives a frame from outside to an interface; false when there is no such one any more.
pub(crate) fn deliver(frame: &mut Frame, sender: &impl Grants, member: Member) -> bool {
    vif::deliver(frame, sender, member)
}

/// Takes a step for each queue that was left.
pub fn serve_more() {
    if !MORE.swap(false, Ordering::AcqRel) {
        return;
    }
    for domain in list::all() {
        for device in &domain.devices.0 {
            device.serve_more(&domain);
        }
    }
}

/// True when [`serve_more`] has something to do.
#[must_use]
pub fn has_more() -> bool {
    MORE.load(Ordering::Acquire)
}

impl Link {
    fn say(&mut self, keys: &mut Keys<'_, '_>, state: XenbusState) -> Result<(), xenstore::Error> {
        self.state = state;
        keys.set("state", state.text())
    }
}

impl Device {
    fn keys<'a, 's>(&self, control: &'a mut Control<'s>, domain: DomId) -> Keys<'a, 's> {
        Keys::new(control, self.driver.kind(), domain, self.number)
    }

    fn front_changed(&self, control: &mut Control<'_>, domain: &Arc<Domain>) {
        let mut keys = self.keys(control, domain.id);
        let seen = keys
            .front("state")
            .map_or(XenbusState::Unknown, XenbusState::parse);
        let mut link = self.link.lock();
        let front = Front::new(domain, self.slot);
        let said = match step(link.state, seen) {
            Step::Stay => Ok(()),
            Step::Say(state) => link.say(&mut keys, state),
            Step::Disconnect(state) => {
                self.driver.disconnect(front);
                link.say(&mut keys, state)
            }
            Step::Connect => match self.connect(&mut keys, front) {
                Ok(()) => {
                    // It may have asked for something before the channel was there.
                    self.leave(u32::MAX);
                    link.say(&mut keys, XenbusState::Connected)
                }
                Err(refusal) => self.give_up(&mut link, &mut keys, domain, &refusal),
            },
        };
        if said.is_err() {
            // Without memory for one word the front end hears nothing; it is as if the device had
            // stopped.
            self.driver.disconnect(front);
            link.state = XenbusState::Closed;
        }
    }

    fn connect(&self, keys: &mut Keys<'_, '_>, front: Front<'_>) -> Result<(), Refusal> {
        self.driver.connect(keys, front)?;
        self.driver.describe(keys).map_err(|_| Refusal::Memory)
    }

    /// Ends the connection because of what the front end did.
    fn give_up(
        &self,
        link: &mut Link,
        keys: &mut Keys<'_, '_>,
        domain: &Arc<Domain>,
        refusal: &Refusal,
    ) -> Result<(), xenstore::Error> {
        self.driver.disconnect(Front::new(domain, self.slot));
        if !core::mem::replace(&mut link.complained, true) {
            log::warn!("{}: {}: {refusal}, closed", domain.name, self.driver);
        }
        keys.set("error", refusal)?;
        link.say(keys, XenbusState::Closing)
    }

    /// Carries out a step of what waits in a queue; true when there is more.
    fn serve(&self, domain: &Arc<Domain>, queue: u16) -> bool {
        let served = self.driver.serve(Front::new(domain, self.slot), queue);
        self.follow(domain, queue, served)
    }

    /// Does what a step has left to do; true when there is more.
    fn follow(&self, domain: &Arc<Domain>, queue: u16, served: Result<Outcome, Refusal>) -> bool {
        match served {
            Ok(Outcome { notify, more }) => {
                if let Some(port) = notify {
                    let queue = DeviceQueue {
                        device: self.slot,
                        queue,
                    };
                    let wake = domain.evtchn.lock().raise_device(port, queue);
                    domain.wake(wake);
                }
                more
            }
            Err(refusal) => {
                self.broken(domain, &refusal);
                false
            }
        }
    }

    /// What the front end put into a ring makes no sense: that ends the connection.
    #[cold]
    fn broken(&self, domain: &Arc<Domain>, refusal: &Refusal) {
        store::control(|control| {
            let mut keys = self.keys(control, domain.id);
            let mut link = self.link.lock();
            // Otherwise somebody else was first, or the domain has ended.
            if link.state == XenbusState::Connected {
                let said = self.give_up(&mut link, &mut keys, domain, refusal);
                if said.is_err() {
                    link.state = XenbusState::Closed;
                }
            }
        });
    }

    /// Leaves queues for [`serve_more`].
    fn leave(&self, queues: u32) {
        self.more.fetch_or(queues, Ordering::Relaxed);
        MORE.store(true, Ordering::Release);
        if let Some(boot_cpu) = percpu::by_id(0) {
            boot_cpu.reschedule();
        }
    }

    fn serve_more(&self, domain: &Arc<Domain>) {
        let queues = self.more.swap(0, Ordering::Relaxed);
        for queue in 0..self.driver.queues() {
            let bit = 1u32.checked_shl(queue.into()).unwrap_or(0);
            if queues & bit != 0 && self.serve(domain, queue) {
                self.leave(bit);
            }
        }
    }
}
