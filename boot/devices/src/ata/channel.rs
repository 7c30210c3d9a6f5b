//! One channel of the controller: its registers, and the command under way.

use super::identity::{Identity, WORDS};
use super::{bus_master, command, control, device, prd, register, status};
use crate::block::{
    Batch, Buffers, Direction, Done, Failed, Limits, Request, Row, SECTOR_SIZE, Work,
};
use crate::{DmaMemory, Registers};

/// A time in microseconds.
pub type Micros = u64;

/// How long a transfer may take: what a disk needs to spin up, and more.
const PATIENCE: Micros = 15_000_000;
/// How long a flush may take.
const FLUSH: Micros = 60_000_000;
/// How long the reset is held.
const RESET: Micros = 20;
/// How long disks may take after it.
const RECOVERY: Micros = 15_000_000;
/// How often is looked for what no interrupt tells.
const LOOK: Micros = 1_000;
/// How long a disk may take to say what it is.
const IDENTIFY: Micros = 2_000_000;
/// Sectors in one command.
const MAX_SECTORS: u32 = 1 << 16;

/// What a channel consists of.
#[derive(Debug)]
pub struct Parts<R, M> {
    /// The eight registers of the command block.
    pub command: R,
    /// The control register, which is also the alternate status.
    pub control: R,
    /// The bus master's eight registers for this channel.
    pub bus_master: R,
    /// Memory below 4 GiB for its table, which crosses no multiple of 64 KiB.
    pub table: M,
}

/// A channel with its disks and their requests.
#[derive(Debug)]
pub struct Channel<R, M, T> {
    parts: Parts<R, M>,
    disks: [Option<Identity>; 2],
    row: Row<T>,
    current: Option<Current<T>>,
    phase: Phase,
    /// No interrupt comes.
    polled: bool,
    /// When something is due: see [`Channel::deadline`].
    next: Option<Micros>,
}

/// The command under way.
#[derive(Debug)]
struct Current<T> {
    batch: Batch<T>,
    work: Work,
    /// It is the second try.
    again: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Between commands.
    Idle,
    /// The disk is at work, until then at the latest.
    Command { until: Micros },
    /// The reset is on until then.
    Reset { until: Micros },
    /// The disks recover, until then at the latest.
    Recovery { until: Micros },
    /// No disk answers any more.
    Gone,
}

impl<R: Registers, M: DmaMemory, T: Buffers> Channel<R, M, T> {
    /// Takes a channel over and asks which disks it has; that waits for them. `clock` tells the
    /// time, `report` is told of a disk that cannot be used, and why.
    pub fn new(
        parts: Parts<R, M>,
        clock: impl Fn() -> Micros,
        mut report: impl FnMut(u8, &'static str),
    ) -> Self {
        parts.bus_master.write8(bus_master::COMMAND, 0);
        parts.control.write8(0, 0);
        let disks = [0, 1].map(|disk| {
            let words = parts.identify(disk, &clock)?;
            Identity::parse(&words)
                .inspect_err(|why| report(disk, why))
                .ok()
        });
        Self {
            parts,
            disks,
            row: Row::new(),
            current: None,
            phase: Phase::Idle,
            polled: false,
            next: None,
        }
    }

    /// The disks.
    #[must_use]
    pub const fn disks(&self) -> &[Option<Identity>; 2] {
        &self.disks
    }

    /// From now on no interrupt is waited for.
    pub const fn poll(&mut self) {
        self.polled = true;
    }

    /// Takes a request over.
    ///
    /// # Errors
    /// Gives it back when it cannot be carried out: sectors that the disk does not have, memory out
    /// of the controller's reach, no memory left, or no disk any more.
    pub fn submit(&mut self, request: Request<T>, now: Micros) -> Result<(), Request<T>> {
        if self.phase == Phase::Gone || !self.is_sound(&request) {
            return Err(request);
        }
        self.row.push(request)?;
        if self.phase == Phase::Idle {
            self.begin(now);
        }
        Ok(())
    }

    /// When [`Channel::look`] is to be called, unless the interrupt comes first.
    #[must_use]
    pub const fn deadline(&self) -> Option<Micros> {
        self.next
    }

    /// The interrupt has come, or might have.
    pub fn interrupt(&mut self, now: Micros) -> Option<Done<T>> {
        let done = match self.phase {
            Phase::Command { .. } => self.check(now),
            Phase::Idle | Phase::Reset { .. } | Phase::Recovery { .. } | Phase::Gone => {
                // Not expected; reading the status ends it.
                let _ = self.parts.command.read8(register::STATUS);
                self.parts.acknowledge();
                None
            }
        };
        self.schedule(now);
        done
    }

    /// Does what time has brought. Something may be left to do at once.
    pub fn look(&mut self, now: Micros) -> Option<Done<T>> {
        let done = match self.phase {
            Phase::Command { until } => {
                // Perhaps it is done, and only the interrupt is missing.
                let done = self.check(now);
                if done.is_none() && self.phase == (Phase::Command { until }) && until <= now {
                    self.reset(now);
                }
                done
            }
            Phase::Reset { until } if until <= now => {
                self.parts.control.write8(0, 0);
                self.phase = Phase::Recovery {
                    until: now.saturating_add(RECOVERY),
                };
                None
            }
            Phase::Recovery { until } => self.recover(now, until),
            Phase::Gone => self.row.fail(),
            Phase::Idle | Phase::Reset { .. } => None,
        };
        self.schedule(now);
        done
    }

    fn is_sound(&self, request: &Request<T>) -> bool {
        let disk = self.disks.get(usize::from(request.disk));
        let Some(Some(disk)) = disk else {
            return false;
        };
        if request.sectors == 0 {
            return request.flush_before || request.flush_after;
        }
        let end = request.sector.checked_add(request.sectors.into());
        request.sectors <= MAX_SECTORS
            && end.is_some_and(|end| end <= disk.sectors)
            && prd::fits(
                &self.parts.table,
                request.token.spans(),
                bytes(request.sectors),
            )
    }

    /// Begins the next command, if there is something to do.
    fn begin(&mut self, now: Micros) {
        let limits = Limits {
            sectors: MAX_SECTORS,
            spans: prd::room(&self.parts.table),
        };
        self.current =
            self.row
                .next(limits)
                .map(|(batch, work, again)| Current { batch, work, again });
        match &self.current {
            None => self.phase = Phase::Idle,
            Some(current) if self.issue(current).is_some() => {
                let limit = match current.work {
                    Work::Flush => FLUSH,
                    Work::Transfer { .. } => PATIENCE,
                };
                self.phase = Phase::Command {
                    until: now.saturating_add(limit),
                };
            }
            // A disk that takes no command may do so after a reset.
            Some(_) => self.reset(now),
        }
        self.schedule(now);
    }

    fn issue(&self, current: &Current<T>) -> Option<()> {
        let first = current.batch.first()?;
        let disk = self.disks.get(usize::from(first.disk))?.as_ref()?;
        if !self.parts.select(first.disk) {
            return None;
        }
        match current.work {
            Work::Flush => {
                self.parts.acknowledge();
                let flush = disk.flush;
                self.parts.command.write8(register::COMMAND, flush);
                // From then on the status says whether it is done.
                self.parts.settle();
            }
            Work::Transfer {
                direction,
                sector,
                sectors,
            } => {
                let spans = current
                    .batch
                    .iter()
                    .flat_map(|request| request.token.spans());
                prd::fill(&self.parts.table, spans, bytes(sectors)).ok()?;
                self.parts.transfer(direction, sector, sectors)?;
            }
        }
        Some(())
    }

    /// Looks whether the command is done.
    fn check(&mut self, now: Micros) -> Option<Done<T>> {
        let current = self.current.as_ref()?;
        let moves = matches!(current.work, Work::Transfer { .. });
        let state = self.parts.bus_master.read8(bus_master::STATUS);
        let waits = moves && state & (bus_master::INTERRUPT | bus_master::ERROR) == 0;
        if waits || self.parts.control.read8(0) & status::BUSY != 0 {
            return None;
        }
        self.parts.bus_master.write8(bus_master::COMMAND, 0);
        // This also ends the disk's interrupt.
        let said = self.parts.command.read8(register::STATUS);
        self.parts.acknowledge();
        let bad = status::ERROR | status::FAULT | status::DATA_REQUEST | status::BUSY;
        if said & bad != 0 || moves && state & bus_master::ERROR != 0 {
            self.reset(now);
            return None;
        }
        let done = self
            .current
            .take()
            .and_then(|current| self.row.advance(current.batch));
        self.begin(now);
        done
    }

    /// Resets both disks; the command is tried again afterwards, or fails.
    fn reset(&mut self, now: Micros) {
        self.parts.bus_master.write8(bus_master::COMMAND, 0);
        self.parts.control.write8(0, control::RESET);
        self.phase = Phase::Reset {
            until: now.saturating_add(RESET),
        };
    }

    /// After a reset: goes on as soon as the disks are ready.
    fn recover(&mut self, now: Micros, until: Micros) -> Option<Done<T>> {
        let said = self.parts.control.read8(0);
        if said & status::BUSY != 0 && said != 0xff && now < until {
            return None;
        }
        let gone = said & status::BUSY != 0 || said == 0x7f;
        self.parts.acknowledge();
        let current = self.current.take();
        if gone {
            self.phase = Phase::Gone;
            return current
                .map(|current| failed(current.batch))
                .or_else(|| self.row.fail());
        }
        let done = match current {
            Some(current) if current.again => Some(failed(current.batch)),
            Some(current) => {
                self.row.repeat(current.batch);
                None
            }
            None => None,
        };
        self.begin(now);
        done
    }

    /// Finds when to look.
    fn schedule(&mut self, now: Micros) {
        let soon = now.saturating_add(LOOK);
        self.next = match self.phase {
            Phase::Idle => None,
            Phase::Gone => (!self.row.is_empty()).then_some(now),
            Phase::Command { until } if self.polled => Some(until.min(soon)),
            Phase::Command { until } | Phase::Reset { until } => Some(until),
            Phase::Recovery { until } => Some(until.min(soon)),
        };
    }
}

fn failed<T>(requests: Batch<T>) -> Done<T> {
    Done {
        requests,
        result: Err(Failed),
    }
}

fn bytes(sectors: u32) -> u64 {
    u64::from(sectors).saturating_mul(SECTOR_SIZE)
}

impl<R: Registers, M: DmaMemory> Parts<R, M> {
    /// Selects a disk; false when it takes no command.
    fn select(&self, disk: u8) -> bool {
        let second = if disk == 0 { 0 } else { device::SECOND };
        self.command.write8(register::DEVICE, device::LBA | second);
        self.settle() & (status::BUSY | status::DATA_REQUEST) == 0
    }

    /// The status after a write that changes it: right 400 ns later, as long as four reads take.
    fn settle(&self) -> u8 {
        let [.., said] = [(); 4].map(|()| self.control.read8(0));
        said
    }

    fn transfer(&self, direction: Direction, sector: u64, sectors: u32) -> Option<()> {
        let (way, command) = match direction {
            Direction::Read => (bus_master::TO_MEMORY, command::READ_DMA_EXT),
            Direction::Write => (0, command::WRITE_DMA_EXT),
        };
        let table = u32::try_from(self.table.address()).ok()?;
        self.bus_master.write8(bus_master::COMMAND, way);
        self.bus_master.write32(bus_master::TABLE, table);
        self.acknowledge();
        let [s0, s1, s2, s3, s4, s5, ..] = sector.to_le_bytes();
        // The largest count is written as 0.
        let [c0, c1, ..] = sectors.to_le_bytes();
        for (count, low, mid, high) in [(c1, s3, s4, s5), (c0, s0, s1, s2)] {
            self.command.write8(register::COUNT, count);
            self.command.write8(register::LBA_LOW, low);
            self.command.write8(register::LBA_MID, mid);
            self.command.write8(register::LBA_HIGH, high);
        }
        self.command.write8(register::COMMAND, command);
        self.bus_master
            .write8(bus_master::COMMAND, way | bus_master::START);
        Some(())
    }

    /// Clears what the bus master has noted.
    fn acknowledge(&self) {
        let state = self.bus_master.read8(bus_master::STATUS);
        let noted = bus_master::ERROR | bus_master::INTERRUPT;
        self.bus_master.write8(bus_master::STATUS, state | noted);
    }

    /// Asks a disk what it is; `None` when there is none.
    fn identify(&self, disk: u8, clock: &impl Fn() -> Micros) -> Option<[u16; WORDS]> {
        let limit = clock().saturating_add(IDENTIFY);
        let wait = || {
            loop {
                let said = self.control.read8(0);
                if said & status::BUSY == 0 || said == 0xff || clock() >= limit {
                    return said;
                }
            }
        };
        // An empty channel's lines float.
        if matches!(self.control.read8(0), 0x7f | 0xff) {
            return None;
        }
        wait();
        if !self.select(disk) {
            return None;
        }
        for at in [
            register::FEATURES,
            register::COUNT,
            register::LBA_LOW,
            register::LBA_MID,
            register::LBA_HIGH,
        ] {
            self.command.write8(at, 0);
        }
        self.command.write8(register::COMMAND, command::IDENTIFY);
        // A disk that is not there says nothing; another kind of device refuses.
        if self.settle() == 0 {
            return None;
        }
        let ready = wait();
        // This also ends the interrupt.
        let said = self.command.read8(register::STATUS);
        let bad = status::BUSY | status::ERROR | status::FAULT;
        if (ready | said) & bad != 0 || said & status::DATA_REQUEST == 0 {
            return None;
        }
        let words = [(); WORDS].map(|()| self.command.read16(register::DATA));
        wait();
        let _ = self.command.read8(register::STATUS);
        self.acknowledge();
        Some(words)
    }
}
