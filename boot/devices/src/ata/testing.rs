//! A model of a controller with its disks.

use core::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::vec::Vec;

use super::channel::Parts;
use super::{bus_master, command, control, device, register, status};
use crate::testing::FakeMemory;
use crate::{DmaMemory as _, Registers};

/// What goes wrong with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// The disk says that it could not.
    Error,
    /// The controller says that memory could not be reached.
    Bus,
    /// The disk never answers, until a reset.
    Silence,
    /// It is done, but no interrupt comes.
    Quiet,
    /// The disk is not there any more.
    Unplugged,
}

/// A disk, its contents, and what of them is on the medium.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) contents: Vec<u8>,
    pub(super) durable: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) disks: [Option<Disk>; 2],
    /// Memory, by the number of the sector.
    pub(super) memory: BTreeMap<u64, [u8; 512]>,
    pub(super) table: Option<Rc<FakeMemory>>,
    /// Of the commands to come.
    pub(super) faults: VecDeque<Fault>,
    /// Commands so far, of DMA the sectors too.
    pub(super) commands: Vec<(u8, u64, u32)>,
    pub(super) resets: u32,
    /// Each register has room for two.
    registers: [[u8; 2]; 8],
    said: u8,
    master: [u8; 8],
    /// Words of data to be read.
    answer: VecDeque<u16>,
    /// What is to happen at the next [`Machine::work`].
    pending: Option<Fault>,
    unplugged: bool,
}

impl Machine {
    fn chosen(&self) -> usize {
        usize::from(self.registers[register::DEVICE][0] & device::SECOND != 0)
    }

    fn status(&self) -> u8 {
        match self.disks[self.chosen()] {
            _ if self.unplugged => 0xff,
            Some(_) => self.said,
            None => 0,
        }
    }

    fn command(&mut self, what: u8) {
        let there = self.disks[self.chosen()].is_some();
        if !there || self.unplugged {
            return;
        }
        assert_eq!(self.said & status::BUSY, 0, "a command during another");
        if what == command::IDENTIFY {
            let sectors = self.disks[self.chosen()].as_ref().unwrap().contents.len() / 512;
            self.answer = identity(sectors as u64).into();
            self.said = 0x58;
            return;
        }
        self.said = 0xd0;
        self.pending = Some(self.faults.pop_front().unwrap_or(Fault::None));
        let (sector, count) = self.place();
        self.commands.push((what, sector, count));
    }

    fn place(&self) -> (u64, u32) {
        let at = |register: usize, old: usize| u64::from(self.registers[register][old]);
        let part = |old| {
            at(register::LBA_LOW, old)
                | at(register::LBA_MID, old) << 8
                | at(register::LBA_HIGH, old) << 16
        };
        let count = at(register::COUNT, 1) << 8 | at(register::COUNT, 0);
        (
            part(1) << 24 | part(0),
            if count == 0 { 1 << 16 } else { count as u32 },
        )
    }

    /// The disk does what it was told; true when an interrupt comes.
    pub(super) fn work(&mut self) -> bool {
        let Some(fault) = self.pending else {
            return false;
        };
        let (what, sector, count) = *self.commands.last().unwrap();
        let moves = what != command::FLUSH_CACHE_EXT;
        if moves && self.master[bus_master::COMMAND] & bus_master::START == 0 {
            return false;
        }
        if fault == Fault::Silence {
            return false;
        }
        self.pending = None;
        if fault == Fault::Unplugged {
            self.unplugged = true;
            return false;
        }
        self.said = 0x50;
        let chosen = self.chosen();
        match (what, fault) {
            (_, Fault::Error) => self.said |= status::ERROR,
            (_, Fault::Bus) => self.master[bus_master::STATUS] |= bus_master::ERROR,
            (command::FLUSH_CACHE_EXT, _) => {
                let disk = self.disks[chosen].as_mut().unwrap();
                disk.durable.clone_from(&disk.contents);
            }
            _ => self.transfer(what == command::WRITE_DMA_EXT, sector, count),
        }
        self.master[bus_master::STATUS] |= bus_master::INTERRUPT;
        fault != Fault::Quiet
    }

    fn transfer(&mut self, write: bool, sector: u64, count: u32) {
        let to_memory = self.master[bus_master::COMMAND] & bus_master::TO_MEMORY != 0;
        assert_eq!(to_memory, !write);
        let table = self.table.clone().unwrap();
        let found = u32::from_le_bytes(*self.master[bus_master::TABLE..].first_chunk().unwrap());
        assert_eq!(u64::from(found), table.address());
        let mut places = Vec::new();
        for at in (0..table.size()).step_by(8) {
            let (start, word) = (u64::from(table.read32(at)), table.read32(at + 4));
            let length = u64::from((word & 0xffff).wrapping_sub(1) & 0xffff) + 1;
            places.extend((start..start + length).step_by(512));
            if word >> 31 != 0 {
                break;
            }
        }
        assert_eq!(places.len(), count as usize);
        let chosen = self.chosen();
        let disk = self.disks[chosen].as_mut().unwrap();
        for (place, at) in places.into_iter().zip(sector as usize..) {
            let sector = &mut disk.contents[at * 512..at * 512 + 512];
            let memory = self.memory.entry(place).or_insert([0; 512]);
            if write {
                sector.copy_from_slice(memory);
            } else {
                memory.copy_from_slice(sector);
            }
        }
    }
}

/// Words as a disk has them.
pub(super) fn identity(sectors: u64) -> [u16; 256] {
    let mut words = [0; 256];
    words[0] = 0x40;
    fn words_of(text: &[u8]) -> impl Iterator<Item = u16> {
        text.chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(b' ')]))
    }
    for (first, text) in [(10, &b"S123                "[..]), (27, b"FAKE DISK  ")] {
        for (at, word) in (first..).zip(words_of(text)) {
            words[at] = word;
        }
    }
    words[49] = 0x300;
    words[83] = 0x7400;
    for (at, word) in (100..104).enumerate() {
        words[word] = (sectors >> (16 * at)) as u16;
    }
    words
}

/// One block of the machine's registers.
#[derive(Debug)]
pub(super) struct Block {
    kind: Kind,
    machine: Rc<RefCell<Machine>>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Command,
    Control,
    Master,
}

impl Registers for Block {
    fn read8(&self, at: usize) -> u8 {
        let mut machine = self.machine.borrow_mut();
        match self.kind {
            Kind::Control => machine.status(),
            Kind::Command if at == register::STATUS => {
                let said = machine.status();
                machine.said &= !status::DATA_REQUEST | u8::from(!machine.answer.is_empty()) << 3;
                said
            }
            Kind::Command => machine.registers[at][0],
            Kind::Master => machine.master[at],
        }
    }

    fn read16(&self, at: usize) -> u16 {
        assert!(matches!(self.kind, Kind::Command) && at == register::DATA);
        let mut machine = self.machine.borrow_mut();
        let word = machine.answer.pop_front().expect("data to read");
        if machine.answer.is_empty() {
            machine.said = 0x50;
        }
        word
    }

    fn read32(&self, _: usize) -> u32 {
        unreachable!("no such register")
    }

    fn write8(&self, at: usize, value: u8) {
        let mut machine = self.machine.borrow_mut();
        match self.kind {
            Kind::Command if at == register::COMMAND => machine.command(value),
            Kind::Command => {
                let [new, old] = &mut machine.registers[at];
                *old = core::mem::replace(new, value);
            }
            Kind::Control => {
                assert_eq!(value & 2, 0, "interrupts stay on");
                if value & control::RESET != 0 {
                    machine.resets += 1;
                    machine.pending = None;
                    machine.said = 0xd0;
                } else if !machine.unplugged {
                    machine.said = 0x50;
                }
            }
            Kind::Master if at == bus_master::STATUS => {
                let noted = bus_master::ERROR | bus_master::INTERRUPT;
                machine.master[at] &= !(value & noted);
            }
            Kind::Master => machine.master[at] = value,
        }
    }

    fn write16(&self, _: usize, _: u16) {
        unreachable!("no such register")
    }

    fn write32(&self, at: usize, value: u32) {
        assert!(matches!(self.kind, Kind::Master) && at == bus_master::TABLE);
        let mut machine = self.machine.borrow_mut();
        machine.master[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// A machine whose disks have so many sectors, and its parts.
pub(super) fn machine(sectors: [usize; 2]) -> (Rc<RefCell<Machine>>, Parts<Block, Rc<FakeMemory>>) {
    let disk = |sectors: usize| {
        (sectors != 0).then(|| Disk {
            contents: std::vec![0; sectors * 512],
            durable: std::vec![0; sectors * 512],
        })
    };
    let table = Rc::new(FakeMemory::new(0x8000, 256));
    let machine = Rc::new(RefCell::new(Machine {
        disks: sectors.map(disk),
        table: Some(Rc::clone(&table)),
        said: 0x50,
        ..Machine::default()
    }));
    let block = |kind| Block {
        kind,
        machine: Rc::clone(&machine),
    };
    let parts = Parts {
        command: block(Kind::Command),
        control: block(Kind::Control),
        bus_master: block(Kind::Master),
        table,
    };
    (machine, parts)
}
