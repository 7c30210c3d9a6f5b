//! A virtual CPU: what everybody may touch ([`Vcpu`]) and what only the pCPU that runs it may
//! ([`Context`]).
//!
//! ```text
//!            start                    picked
//! Offline ----------> Runnable <------------------> Running
//!    ^                    ^       turn over            |
//!    |                    | wake                       | HLT, block, poll
//!    |                    +---------- Blocked <--------+
//!    +---------------------- down, HLT with IF=0 ------+
//! ```
//!
//! Whoever has something for a vCPU first makes it visible (an event bit, a posted vector, a
//! signal) and then calls [`VcpuRef::kick`]; a vCPU that is about to block first says so and then
//! looks for such things. One of the two always sees the other.

pub mod access;
mod account;
pub mod clock;
pub mod context;
pub mod ext_state;
pub mod initial;
pub mod inject;
mod last_branch;
pub mod run;
pub mod runstate;
mod standing;
pub mod timers;
pub mod trace;
pub mod upcall;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use abi::VcpuId;
use bitflags::bitflags;
use spin::Mutex;

use crate::domain::{Domain, ShutdownReason, VcpuRef, lifecycle};
use crate::intr::inbox::Inbox;
use crate::percpu;
use crate::sched;
use crate::sched::bvt::{Account, Share};
use crate::sched::heap::Seat;
use crate::time::Tsc;
use standing::{Kick, Standing};

pub use clock::VcpuClock;
pub use context::{Context, Running};
pub use initial::InitialState;
pub use runstate::Runstate;
pub use upcall::VcpuInfo;

/// `VMASST_TYPE_runstate_update_flag` (`public/xen.h`), as a bit of [`Domain::vm_assist`].
const RUNSTATE_UPDATE_FLAG: u32 = 1 << abi::vm_assist::RUNSTATE_UPDATE_FLAG;

/// Where a vCPU stands with the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
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
        /// The periodic timer was changed by another vCPU.
        const TIMERS = 1 << 5;
        /// A port this vCPU polls became pending.
        const POLL_DONE = 1 << 6;
        /// The guest wants the vCPU down, as it is at first; stays until the guest wants it up.
        const DOWN = 1 << 7;
    }
}

/// Where a new vCPU runs, and what it may claim there.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Its first home.
    pub home: u32,
    /// The pCPUs that it may run on, by bit.
    pub affinity: u64,
    /// Its claim.
    pub share: Share,
}

/// A virtual CPU, as everybody sees it.
#[derive(Debug)]
pub struct Vcpu {
    /// Its number in the domain.
    pub id: VcpuId,
    standing: Standing,
    /// The pCPUs that it may run on, by bit.
    pub affinity: u64,
    /// What it has had of them; changed under the lock of its home's queue, or by who moves it.
    pub account: Mutex<Account>,
    /// Its place in its home's queue.
    pub seat: Seat,
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
    /// The period in nanoseconds that another vCPU gave its periodic timer, 0 to stop it; set
    /// before [`Signals::TIMERS`].
    pub period: AtomicU64,
    /// Where its `vcpu_info` is, set before [`Signals::INFO_MOVED`].
    pub info: Mutex<Option<VcpuInfo>>,
    /// How it reads the time.
    pub clock: VcpuClock,
    /// How long it has been in which state.
    pub runstate: Mutex<Runstate>,
    /// What only the pCPU that runs it touches; locked for as long as it is loaded.
    pub context: Mutex<Context>,
}

impl Vcpu {
    /// A vCPU that has not been started.
    #[must_use]
    pub fn new(id: VcpuId, place: Placement, info: Option<VcpuInfo>, context: Context) -> Self {
        Self {
            id,
            standing: Standing::new(place.home),
            affinity: place.affinity,
            account: Mutex::new(Account::new(place.share)),
            seat: Seat::new(),
            inbox: Arc::clone(context.cpu.lapic.inbox()),
            upcall_vector: AtomicU8::new(0),
            wait_for_sipi: AtomicBool::new(true),
            initialised: AtomicBool::new(false),
            initial: Mutex::new(None),
            period: AtomicU64::new(0),
            info: Mutex::new(info),
            clock: VcpuClock::new(context.cpu.tsc_offset()),
            runstate: Mutex::new(Runstate::new()),
            context: Mutex::new(context),
        }
    }

    /// The pCPU that it runs on.
    #[must_use]
    pub fn home(&self) -> u32 {
        self.standing.home()
    }

    /// Gives it a home, for the one that may: see [`standing`].
    pub(crate) fn set_home(&self, cpu: u32) {
        self.standing.set_home(cpu);
    }

    /// Where the vCPU stands.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.standing.state()
    }

    /// Moves from one state to another; false when the vCPU was not in `from`.
    pub(crate) fn transition(&self, from: RunState, to: RunState) -> bool {
        self.standing.transition(from, to)
    }

    /// Adds signals, without waking the vCPU.
    pub(crate) fn set_signals(&self, signals: Signals) {
        self.standing.set_signals(signals);
    }

    /// Takes back signals that are no longer meant.
    pub(crate) fn clear_signals(&self, signals: Signals) {
        self.standing.clear_signals(signals);
    }

    /// Takes all signals; [`Signals::DOWN`] stays.
    pub(crate) fn take_signals(&self) -> Signals {
        self.standing.take_signals()
    }

    /// The signals that wait.
    #[must_use]
    pub fn signals(&self) -> Signals {
        self.standing.signals()
    }

    /// True when any signal waits.
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        !self.standing.signals().is_empty()
    }
}

impl VcpuRef {
    /// Gives the vCPU's owner notice that something waits for it.
    pub fn kick(&self) {
        match self.standing.kick() {
            Kick::Enqueue => sched::enqueue(self.clone()),
            Kick::Interrupt(home) => {
                if let Some(cpu) = percpu::by_id(home) {
                    cpu.wake();
                }
            }
            Kick::Nothing => {}
        }
    }

    /// Sets signals and gives notice of them.
    pub fn signal(&self, signals: Signals) {
        self.set_signals(signals);
        self.kick();
    }

    /// Starts a vCPU with the state given.
    pub fn start(&self, state: InitialState) {
        *self.initial.lock() = Some(state);
        self.set_signals(Signals::START);
        self.initialised.store(true, Ordering::SeqCst);
        self.wait_for_sipi.store(false, Ordering::SeqCst);
        self.online();
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

    /// Lets an offline vCPU run, and one that is on its way there come back at once.
    pub fn online(&self) {
        if self.standing.up() {
            self.domain().online.fetch_add(1, Ordering::SeqCst);
            self.settle_and_enqueue();
        }
    }

    /// Takes the vCPU that has left its pCPU offline, unless its domain ended or the guest wants
    /// it up meanwhile. With the last one the domain has powered off.
    pub(crate) fn go_offline(&self) {
        self.transition(RunState::Running, RunState::Offline);
        if self.signals().contains(Signals::DIE) {
            self.signal_death();
        } else if self.standing.come_back() {
            self.settle_and_enqueue();
        } else if self.domain().online.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.domain().shut_down(ShutdownReason::Poweroff);
        }
    }

    fn settle_and_enqueue(&self) {
        sched::settle(self);
        sched::enqueue(self.clone());
    }

    /// An INIT: the vCPU goes back to its reset state and waits for a start-up IPI, which may come
    /// at once.
    pub fn init(&self) {
        self.clear_signals(Signals::START);
        self.initialised.store(false, Ordering::SeqCst);
        self.wait_for_sipi.store(true, Ordering::SeqCst);
        self.signal(Signals::INIT | Signals::DOWN);
    }

    /// Charges the time since the last change to the state that ends.
    pub(crate) fn enter_runstate(&self, kind: runstate::Kind, now: Tsc) {
        let domain = self.domain();
        let now = domain.clock.system_time(now);
        let flag = domain.vm_assist.load(Ordering::Relaxed) & RUNSTATE_UPDATE_FLAG != 0;
        self.runstate.lock().enter(kind, now, flag);
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
