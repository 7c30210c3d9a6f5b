//! The xenstore's place in the hypervisor: every domain's ring, and the one [`Store`] behind them.
//!
//! A domain's event brings its requests in, in steps; replies, and events for any domain, go out in the
//! same exit. When somebody else is to run in between, the guest repeats its call for the rest.
//!
//! Locks are taken in this order: the store, a domain's ring or its devices, what [`Domain`] says.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod nodes;
mod wish;

use abi::{DomId, EvtchnPort};
use alloc::sync::Arc;
use pv_drivers::byte_ring::Broken;
use pv_drivers::xenstore::{Back, Fault};
use spin::Mutex;
use xenstore::{Control, Error, Oversized, Quotas, Store};

use crate::backend;
use crate::domain::{Domain, list};
use crate::evtchn::Service;
use crate::machine::refuse;
use crate::mm::frame::frames;
use crate::mm::page::PageRef;

pub use wish::ask;

/// Requests of one domain that are carried out in one step.
const STEP: usize = 2;

static STORE: Mutex<Option<Store>> = Mutex::new(None);

/// The hypervisor's end of one domain's way to the store.
#[derive(Debug)]
pub struct DomainStore {
    page: PageRef,
    /// The domain's port of the store.
    pub port: EvtchnPort,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    back: Back,
    /// The guest broke the protocol; nothing but a reconnection is listened to.
    broken: bool,
    /// The log has a line about that.
    told: bool,
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
struct Served {
    /// The guest is to be told.
    moved: bool,
    /// There may be more to do.
    more: bool,
}

impl DomainStore {
    /// The end whose ring is in `page`.
    #[must_use]
    pub fn new(page: PageRef, port: EvtchnPort) -> Self {
        let back = Back::connect(&page);
        let ring = Ring {
            back,
            broken: false,
            told: false,
        };
        Self {
            page,
            port,
            ring: Mutex::new(ring),
        }
    }
}

/// Makes the store. Called once, before the first domain.
pub fn init() {
    match Store::new(Quotas::default()) {
        Ok(store) => *STORE.lock() = Some(store),
        Err(_) => refuse(format_args!("no memory is left for the xenstore")),
    }
}

/// Connects a new domain and makes its nodes; calls `give_way` between them.
///
/// # Errors
/// [`Error::Enomem`]; the domain is unknown then.
pub fn introduce(domain: &Domain, give_way: &mut dyn FnMut()) -> Result<(), Error> {
    let introduced = STORE
        .lock()
        .as_mut()
        .map(|store| store.introduce(domain.id));
    introduced.ok_or(Error::Enomem)??;
    let made = nodes::make(domain, give_way).and_then(|()| backend::introduce(domain, give_way));
    made.inspect_err(|_| release(domain, give_way))
}

/// Forgets a domain that has ended, with its nodes; calls `give_way` between steps.
pub fn release(domain: &Domain, give_way: &mut dyn FnMut()) {
    let leaving = with(|store| {
        backend::forget(&mut store.control(), domain);
        nodes::remove(&mut store.control(), domain.id);
        store.release(domain.id)
    });
    if let Some(mut leaving) = leaving {
        while with(|store| store.clear(&mut leaving)) == Some(false) {
            give_way();
        }
    }
}

/// Lets `act` change the store, and those who are concerned hear of it. `None` before [`init`].
fn with<T>(act: impl FnOnce(&mut Store) -> T) -> Option<T> {
    let mut guard = STORE.lock();
    let store = guard.as_mut()?;
    let result = act(store);
    send_all(store);
    Some(result)
}

/// Lets the hypervisor read and change nodes; who watches them hears of it. `None` before [`init`].
pub fn control<T>(act: impl FnOnce(&mut Control<'_>) -> T) -> Option<T> {
    with(|store| act(&mut store.control()))
}

/// Serves a domain that sent its event: a step, after which the caller looks whether somebody wants the
/// pCPU. True when there is more.
#[must_use = "the guest does not send its event again"]
pub fn serve(domain: &Arc<Domain>) -> bool {
    with(|store| serve_with(store, domain)).unwrap_or(false)
}

fn serve_with(store: &mut Store, domain: &Arc<Domain>) -> bool {
    let mut ring = domain.store.ring.lock();
    let Served { moved, more } = match ring.serve(store, domain) {
        Ok(served) => served,
        Err(fault) => {
            ring.broken = true;
            Back::report(&domain.store.page, fault);
            // Once: the guest may break it as often as it likes.
            if !core::mem::replace(&mut ring.told, true) {
                log::warn!("{}: xenstore ring: {fault:?}, stopped", domain.name);
            }
            Served {
                moved: true,
                more: false,
            }
        }
    };
    drop(ring);
    if moved {
        notify(domain);
    }
    more
}

/// Lets the back ends see what has changed, and sends whatever waits for whomever, as far as the
/// rings have room.
fn send_all(store: &mut Store) {
    // Ends: what back ends write is not what they watch.
    while let Some(number) = store.next_fired() {
        backend::front_changed(&mut store.control(), number);
    }
    let mut from = DomId(0);
    while let Some(id) = store.next_recipient(from) {
        if let Some(domain) = list::by_id(id) {
            let sent = domain.store.ring.lock().send(store, &domain);
            // A broken ring is told when its guest asks for something.
            if sent == Ok(true) {
                notify(&domain);
            }
        }
        from = DomId(id.0.saturating_add(1));
    }
}

fn notify(domain: &Arc<Domain>) {
    let wake = domain.evtchn.lock().raise_service(Service::Store);
    domain.wake(wake);
}

impl Ring {
    /// Carries out some of the requests that wait.
    fn serve(&mut self, store: &mut Store, domain: &Domain) -> Result<Served, Fault> {
        let page = &domain.store.page;
        let mut moved = false;
        if Back::wants_reconnect(page) {
            store.reconnect(domain.id);
            self.back.reconnect(page);
            self.broken = false;
            moved = true;
        }
        let done = |moved| Ok(Served { moved, more: false });
        if self.broken {
            return done(false);
        }
        for _ in 0..STEP {
            moved |= self.send(store, domain)?;
            if !store.may_ask(domain.id) {
                return done(moved);
            }
            if !store.bury() {
                // The next request waits until it counts no more what is gone.
                break;
            }
            let Some(inbox) = store.inbox(domain.id) else {
                return done(moved);
            };
            let back = &mut self.back;
            let complete = inbox.fill(|out| {
                let taken = back.take(page, out)?;
                moved |= taken > 0;
                Ok::<_, Broken>(taken)
            })?;
            match complete {
                Ok(true) => {
                    store.set_short(frames().is_short());
                    store.process(domain.id);
                }
                Ok(false) => return done(moved),
                Err(Oversized) => return Err(Fault::Protocol),
            }
        }
        moved |= self.send(store, domain)?;
        Ok(Served { moved, more: true })
    }

    /// Sends what waits, as far as the ring has room; true when that was something.
    fn send(&mut self, store: &mut Store, domain: &Domain) -> Result<bool, Broken> {
        let mut moved = false;
        if self.broken {
            return Ok(false);
        }
        while let Some(bytes) = store.outbox(domain.id).map(xenstore::Outbox::front)
            && !bytes.is_empty()
        {
            let given = self.back.give(&domain.store.page, bytes)?;
            if given == 0 {
                break;
            }
            moved = true;
            store.advance(domain.id, given);
        }
        Ok(moved)
    }
}
