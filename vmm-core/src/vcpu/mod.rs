//! A virtual CPU: what everybody may touch ([`Vcpu`]) and what only the pCPU that runs it may
//! ([`Context`]).
//!
//! ```text
//!            start                    picked
//! Offline ----------> Runnable <------------------> Running
//!    ^                    ^       slice over           |
//!    |                    | wake                       | HLT, block, poll
//!    |                    +---------- Blocked <--------+
//!    +---------------------- down, HLT with IF=0 ------+
//! ```
//!
//! Whoever has something for a vCPU first makes it visible (an event bit, a posted vector, a
//! signal) and then calls [`VcpuRef::kick`]; a vCPU that is about to block first says so and then
//! looks for such things. One of the two always sees the other.

pub mod access;
pub mod context;
pub mod ext_state;
pub mod initial;
pub mod inject;
pub mod run;
pub mod runstate;
pub mod timers;
pub mod upcall;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use abi::VcpuId;
use bitflags::bitflags;
use spin::Mutex;

use crate::domain::{Domain, VcpuRef, lifecycle};
use crate::intr::inbox::Inbox;
use crate::percpu;
use crate::sched;

pub use context::{Context, Running};
pub use initial::InitialState;
pub use runstate::Runstate;
pub use upcall::VcpuInfo;

/// Where a vCPU stands with the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RunState {
    /// Not started, or stopped by the guest.
    Offline,
    /// Wants a pCPU and has none.
    Runnable,
    /// On its pCPU.
    Running,
    /// Waits for an event.
    Blocked,
    /// Gone for good: its domain has ended.
    Dead,
}

bitflags! {
    /// What others ask of a vCPU; it looks before its next VM entry.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Signals: u32 {
        /// The domain has ended.
        const DIE = 1 << 0;
        /// An initial state waits in [`Vcpu::initial`].
        const START = 1 << 1;
        /// The vCPU's `vcpu_info` moved.
        const INFO_MOVED = 1 << 2;
        /// An INIT.
        const INIT = 1 << 4;
        /// A deadline was changed by somebody else.
        const TIMERS = 1 << 5;
        /// A port this vCPU polls became pending.
        const POLL_DONE = 1 << 6;
        /// The guest asked that the vCPU be stopped.
        const DOWN = 1 << 7;
    }
}

/// A virtual CPU, as everybody sees it.
#[derive(Debug)]
pub struct Vcpu {
    /// Its number in the domain.
    pub id: VcpuId,
    /// The pCPU that it runs on.
    pub home: u32,
    state: AtomicU8,
    signals: AtomicU32,
    /// What others leave for its local APIC.
    pub inbox: Arc<Inbox>,
    /// The vector of `HVMOP_set_evtchn_upcall_vector`, or 0.
    pub upcall_vector: AtomicU8,
    /// True after an INIT, until a start-up IPI.
    pub wait_for_sipi: AtomicBool,
    /// True once the vCPU has been given an initial state.
    pub initialised: AtomicBool,
    /// The state to start with, set before [`Signals::START`].
    pub initial: Mutex<Option<InitialState>>,
    /// Where its `vcpu_info` is, set before [`Signals::INFO_MOVED`].
    pub info: Mutex<Option<VcpuInfo>>,
    /// How long it has been in which state.
    pub runstate: Mutex<Runstate>,
    /// What only the pCPU that runs it touches; locked for as long as it is loaded.
    pub context: Mutex<Context>,
}

impl Vcpu {
    /// A vCPU that has not been started.
    #[must_use]
    pub fn new(id: VcpuId, home: u32, info: Option<VcpuInfo>, context: Context) -> Self {
        Self {
            id,
            home,
            state: AtomicU8::new(RunState::Offline as u8),
            signals: AtomicU32::new(0),
            inbox: Arc::clone(context.cpu.lapic.inbox()),
            upcall_vector: AtomicU8::new(0),
            wait_for_sipi: AtomicBool::new(true),
            initialised: AtomicBool::new(false),
            initial: Mutex::new(None),
            info: Mutex::new(info),
            runstate: Mutex::new(Runstate::new()),
            context: Mutex::new(context),
        }
    }

    /// Where the vCPU stands.
    #[must_use]
    pub fn state(&self) -> RunState {
        match self.state.load(Ordering::SeqCst) {
            0 => RunState::Offline,
            1 => RunState::Runnable,
            2 => RunState::Running,
            3 => RunState::Blocked,
            _ => RunState::Dead,
        }
    }

    /// Moves from one state to another; false when the vCPU was not in `from`.
    pub(crate) fn transition(&self, from: RunState, to: RunState) -> bool {
        self.state
            .compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Adds signals, without waking the vCPU.
    pub(crate) fn set_signals(&self, signals: Signals) {
        self.signals.fetch_or(signals.bits(), Ordering::SeqCst);
    }

    /// Takes all signals.
    pub(crate) fn take_signals(&self) -> Signals {
        Signals::from_bits_retain(self.signals.swap(0, Ordering::SeqCst))
    }

    /// The signals that wait.
    #[must_use]
    pub fn signals(&self) -> Signals {
        Signals::from_bits_retain(self.signals.load(Ordering::SeqCst))
    }

    /// True when any signal waits.
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        self.signals.load(Ordering::SeqCst) != 0
    }
}

impl VcpuRef {
    /// Gives the vCPU's owner notice that something waits for it.
    pub fn kick(&self) {
        if self.transition(RunState::Blocked, RunState::Runnable) {
            sched::enqueue(self.clone());
        } else if self.state() == RunState::Running
            && let Some(cpu) = percpu::by_id(self.home)
        {
            cpu.wake();
        }
    }

    /// Sets signals and gives notice of them.
    pub fn signal(&self, signals: Signals) {
        self.set_signals(signals);
        self.kick();
    }

    /// Starts an offline vCPU with the state given; false when it is not offline.
    pub fn start(&self, state: InitialState) -> bool {
        *self.initial.lock() = Some(state);
        self.set_signals(Signals::START);
        self.initialised.store(true, Ordering::SeqCst);
        self.wait_for_sipi.store(false, Ordering::SeqCst);
        self.online()
    }

    /// Gives a vCPU that has none the state it will start with, without starting it; false when
    /// it has one.
    pub fn initialise(&self, state: InitialState) -> bool {
        if self.initialised.swap(true, Ordering::SeqCst) {
            return false;
        }
        *self.initial.lock() = Some(state);
        self.set_signals(Signals::START);
        self.wait_for_sipi.store(false, Ordering::SeqCst);
        true
    }

    /// Lets an offline vCPU run; false when it is not offline.
    pub fn online(&self) -> bool {
        let started = self.transition(RunState::Offline, RunState::Runnable);
        if started {
            self.domain().online.fetch_add(1, Ordering::SeqCst);
            sched::enqueue(self.clone());
        }
        started
    }

    /// Tells the vCPU that its domain has ended.
    pub(crate) fn signal_death(&self) {
        self.set_signals(Signals::DIE);
        if self.transition(RunState::Offline, RunState::Dead) {
            lifecycle::vcpu_left(self.domain());
        } else {
            self.kick();
        }
    }
}

/// References to all of a domain's vCPUs.
pub fn refs(domain: &Arc<Domain>) -> impl Iterator<Item = VcpuRef> + '_ {
    domain
        .vcpus
        .iter()
        .filter_map(|vcpu| VcpuRef::new(domain, vcpu.id))
}
