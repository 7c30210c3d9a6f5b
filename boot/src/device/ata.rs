//! Disks behind a bus-master IDE controller.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use devices::ata::{Channel, Identity, Micros, Parts};
use devices::block::{self, Buffers, Done, Request, Span};
use spin::mutex::SpinMutex;
use vmm_core::storage::{self, BlockDevice, Direction, DiskInfo, IoError};
use vmm_core::time::Tsc;

use super::dma::{Dma, LIMIT_32};
use super::interrupts::Handler;
use super::registers::Window;
use super::{Clock, Owned};

/// The base address register of the bus master.
const BUS_MASTER: u8 = 4;
/// What a channel has there.
const BUS_MASTER_SIZE: usize = 8;
/// Ports and lines of both channels where the controller is not set to others.
const COMPATIBLE: [(u16, u16, u8); 2] = [(0x1f0, 0x3f6, 14), (0x170, 0x376, 15)];
/// Of the interface: the bus master is there.
const HAS_BUS_MASTER: u8 = 1 << 7;
/// Interrupts that may go missing before none is waited for.
const LOST: u32 = 3;

type Ata = Channel<Window, Dma, Ticket>;

/// A channel, for all its users.
#[derive(Debug)]
struct Controller {
    name: String,
    clock: Clock,
    channel: SpinMutex<State>,
    /// When to look, in TSC ticks.
    deadline: AtomicU64,
    /// Requests that failed.
    failed: AtomicU32,
}

#[derive(Debug)]
struct State {
    ata: Ata,
    /// Commands whose end no interrupt told.
    lost: u32,
}

/// A disk at a channel.
#[derive(Debug)]
struct Drive {
    controller: &'static Controller,
    number: u8,
    place: String,
    identity: Identity,
}

#[derive(Debug)]
struct Ticket(storage::Request);

impl Buffers for Ticket {
    fn spans(&self) -> impl Iterator<Item = Span> {
        self.0.spans().iter().map(|span| Span {
            address: span.start.raw(),
            len: span.len.into(),
        })
    }
}

/// Starts a controller and adds its disks.
pub(super) fn start(device: &Owned<'_>, disks: &mut Vec<&'static dyn BlockDevice>) {
    let address = device.function.address;
    let master = device
        .registers(BUS_MASTER)
        .filter(|_| device.function.interface & HAS_BUS_MASTER != 0);
    let Some(master) = master else {
        log::info!("ata {address}: no bus master: not used");
        return;
    };
    device.start();
    let before = disks.len();
    for channel in 0..2 {
        if start_channel(device, channel, &master, disks).is_none() {
            log::warn!("ata {address}: channel {channel} cannot be used");
        }
    }
    if disks.len() == before {
        device.machine.quiet(&device.function);
    }
}

/// Starts a channel; `None` when it lacks something.
fn start_channel(
    device: &Owned<'_>,
    number: u8,
    master: &Window,
    disks: &mut Vec<&'static dyn BlockDevice>,
) -> Option<()> {
    // Whether the channel is where the base address registers say, in the interface.
    let native = device.function.interface >> (2 * number) & 1 != 0;
    let (first, control, line) = COMPATIBLE[usize::from(number & 1)];
    let (command, control) = if native {
        let control = device.registers(2 * number + 1)?;
        (device.registers(2 * number)?, control.part(2, 1)?)
    } else {
        (Window::ports(first, 8), Window::ports(control, 1))
    };
    let parts = Parts {
        command,
        control,
        bus_master: master.part(usize::from(number) * BUS_MASTER_SIZE, BUS_MASTER_SIZE)?,
        table: Dma::alloc(0, LIMIT_32)?,
    };
    let clock = device.machine.clock;
    let name = format!("ata-{}-{number}", device.function.address);
    let ata = Channel::new(
        parts,
        || clock.now(),
        |disk, why| log::warn!("{name}.{disk}: {why}: not used"),
    );
    let found = ata.disks().clone();
    if found == [None, None] {
        return Some(());
    }
    let controller: &'static Controller = Box::leak(Box::new(Controller {
        name,
        clock,
        channel: SpinMutex::new(State { ata, lost: 0 }),
        deadline: AtomicU64::new(Tsc::NEVER.0),
        failed: AtomicU32::new(0),
    }));
    let heard = if native {
        device.serve_interrupt(controller)
    } else {
        device.machine.lines.serve_isa(line, controller)
    };
    if !heard {
        controller.poll();
    }
    for (number, identity) in (0..).zip(found) {
        let Some(identity) = identity else {
            continue;
        };
        disks.push(Box::leak(Box::new(Drive {
            controller,
            number,
            place: format!("{}.{number}", controller.name),
            identity,
        })));
    }
    Some(())
}

impl Controller {
    /// From now on the core looks by itself.
    fn poll(&self) {
        log::warn!("{}: no interrupt comes: polled", self.name);
        self.channel.lock().ata.poll();
    }

    /// Has the channel do something, and tells those who waited.
    fn step(&self, act: impl FnOnce(&mut State, Micros) -> Option<Done<Ticket>>) {
        let done = self.with(act);
        let Some(Done { requests, result }) = done else {
            return;
        };
        for request in requests {
            let request = request.token.0;
            if result.is_err() {
                self.tell(&request);
            }
            request.complete(result.map_err(|_| IoError));
        }
    }

    /// Tells of a request that failed: more and more rarely, since a guest can repeat it.
    fn tell(&self, request: &storage::Request) {
        let count = self.failed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if count.is_power_of_two() {
            log::error!("{}: {request} failed ({count} so far)", self.name);
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut State, Micros) -> R) -> R {
        let mut state = self.channel.lock();
        let result = act(&mut state, self.clock.now());
        let next = state.ata.deadline();
        let next = next.map_or(Tsc::NEVER, |micros| self.clock.ticks(micros));
        self.deadline.store(next.0, Ordering::Release);
        result
    }

    /// A command ended that no interrupt told of.
    fn note_lost(&self, state: &mut State) {
        state.lost = state.lost.saturating_add(1);
        if state.lost == LOST {
            log::warn!("{}: interrupts go missing: polled", self.name);
            state.ata.poll();
        }
    }
}

impl Handler for Controller {
    fn interrupt(&self) {
        self.step(|state, now| state.ata.interrupt(now));
    }
}

impl BlockDevice for Drive {
    fn info(&self) -> DiskInfo<'_> {
        DiskInfo {
            place: &self.place,
            model: &self.identity.model,
            serial: &self.identity.serial,
            sectors: self.identity.sectors,
            reach: LIMIT_32,
        }
    }

    fn submit(&self, request: storage::Request) -> Result<(), IoError> {
        let request = Request {
            disk: self.number,
            flush_before: request.flush_before,
            direction: match request.direction {
                Direction::Read => block::Direction::Read,
                Direction::Write => block::Direction::Write,
            },
            sector: request.sector,
            sectors: request.sectors(),
            flush_after: request.flush_after,
            token: Ticket(request),
        };
        // What is refused lets its pages go when the lock is free again.
        let refused = self
            .controller
            .with(|state, now| state.ata.submit(request, now).err());
        match refused {
            None => Ok(()),
            Some(_) => Err(IoError),
        }
    }

    fn deadline(&self) -> Tsc {
        Tsc(self.controller.deadline.load(Ordering::Acquire))
    }

    fn look(&self) {
        let controller = self.controller;
        controller.step(|state, now| {
            let due = state.ata.deadline().is_some_and(|due| due <= now);
            let done = state.ata.look(now);
            if due && done.as_ref().is_some_and(|done| done.result.is_ok()) {
                controller.note_lost(state);
            }
            done
        });
    }
}
