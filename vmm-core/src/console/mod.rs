//! The guests' consoles: the back end of each one's ring, and the serial line they share.

pub mod mux;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use abi::EvtchnPort;
use lists::TryPush as _;
use pv_drivers::byte_ring::Broken;
use pv_drivers::console::Back;
use spin::Mutex;

use crate::domain::{Domain, list};
use crate::evtchn::Service;
use crate::mm::page::PageRef;
use crate::{percpu, platform};
use mux::{Input, Mux, Party};

/// Bytes taken from a guest in one go, so that no guest holds a pCPU up.
const SHARE: usize = 4096;
/// Typed bytes kept for a guest that does not read.
const TYPED_LIMIT: usize = 1024;

static MUX: Mutex<Mux> = Mutex::new(Mux::new());
/// Set when a domain had more to say than its share.
static MORE: AtomicBool = AtomicBool::new(false);

/// The hypervisor's end of one domain's console.
#[derive(Debug)]
pub struct DomainConsole {
    page: PageRef,
    /// The domain's port of its console.
    pub port: EvtchnPort,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    back: Back,
    typed: VecDeque<u8>,
    /// The guest's ring made no sense; said once.
    broken: bool,
}

impl DomainConsole {
    /// The console whose ring is in `page`.
    #[must_use]
    pub fn new(page: PageRef, port: EvtchnPort) -> Self {
        let back = Back::connect(&page);
        let state = State {
            back,
            typed: VecDeque::new(),
            broken: false,
        };
        Self {
            page,
            port,
            state: Mutex::new(state),
        }
    }
}

fn to_line(bytes: &[u8]) {
    platform::console_write(bytes);
}

/// Shows a domain's console from now on.
pub fn attach(domain: &Domain) {
    MUX.lock().add(domain.id, &domain.name);
}

/// Shows the last of a domain's console and forgets it.
pub fn detach(domain: &Arc<Domain>) {
    serve(domain);
    MUX.lock().remove(domain.id, &mut to_line);
}

/// Serves a domain's console: the guest sent its event, or something was typed.
pub fn serve(domain: &Arc<Domain>) {
    let mut state = domain.console.state.lock();
    let notify = match state.serve(domain) {
        Ok(notify) => notify,
        Err(Broken) => {
            if !core::mem::replace(&mut state.broken, true) {
                log::warn!(
                    "{}: console ring index out of range, console stopped",
                    domain.name
                );
            }
            false
        }
    };
    drop(state);
    if notify {
        let wake = domain.evtchn.lock().raise_service(Service::Console);
        domain.wake(wake);
    }
}

impl State {
    /// Moves bytes both ways; true when the guest is to be told.
    fn serve(&mut self, domain: &Domain) -> Result<bool, Broken> {
        if self.broken {
            return Ok(false);
        }
        let page = &domain.console.page;
        let mut buffer = [0u8; 512];
        let mut taken = 0;
        let mut notify = false;
        loop {
            let drained = self.back.drain(page, &mut buffer)?;
            notify |= drained.was_full;
            let Some(bytes) = buffer
                .get(..drained.bytes)
                .filter(|bytes| !bytes.is_empty())
            else {
                break;
            };
            MUX.lock()
                .output(Party::Domain(domain.id), bytes, &mut to_line);
            taken += bytes.len();
            if taken >= SHARE {
                MORE.store(true, Ordering::Release);
                if let Some(boot_cpu) = percpu::by_id(0) {
                    boot_cpu.reschedule();
                }
                break;
            }
        }
        let (front, _) = self.typed.as_slices();
        let given = self.back.feed(page, front)?;
        for _ in 0..given {
            self.typed.pop_front();
        }
        Ok(notify || given > 0)
    }
}

/// Takes what was typed and gives it to whom it is for. Called on the boot pCPU, which gets the
/// serial line's interrupts.
#[inline]
pub fn poll() {
    while let Some(byte) = platform::console_read() {
        take(byte);
    }
}

#[cold]
#[inline(never)]
fn take(byte: u8) {
    let input = MUX.lock().input(byte, &mut to_line);
    match input {
        Input::Nothing => {}
        Input::Quit => crate::start::quit(),
        Input::Ask(id, wish) => {
            if let Some(domain) = list::by_id(id) {
                crate::store::ask(&domain, wish);
            }
        }
        Input::Byte(id, byte) => {
            if let Some(domain) = list::by_id(id) {
                let mut state = domain.console.state.lock();
                if state.typed.len() < TYPED_LIMIT {
                    // Without memory for it, as beyond the limit, it is lost.
                    let _ = state.typed.try_push(byte);
                }
                drop(state);
                serve(&domain);
            }
        }
    }
}

/// Serves the domains that had more to say than their share.
pub fn serve_more() {
    if MORE.swap(false, Ordering::AcqRel) {
        for domain in list::all() {
            serve(&domain);
        }
    }
}

/// True when [`serve_more`] has something to do.
#[must_use]
pub fn has_more() -> bool {
    MORE.load(Ordering::Acquire)
}

/// Shows a line of the hypervisor's log.
pub fn log_line(line: &str) {
    match MUX.try_lock() {
        Some(mut mux) => mux.output(Party::Log, line.as_bytes(), &mut to_line),
        // Somebody is writing, perhaps this very pCPU: better a torn line than a lost one.
        None => platform::console_write(line.as_bytes()),
    }
}
