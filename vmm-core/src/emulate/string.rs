//! STOS, LODS and MOVS, with and without a repeat prefix.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use iced_x86::{OpKind, Register};

use super::alu::Width;
use super::operand::{Gpr, LastPage};
use super::{Access, Machine, Run, Stop};

/// Iterations of one exit; then the vCPU may take an interrupt.
const MAX_ITERATIONS: u32 = 512;
/// After so many there is a look whether somebody wants the pCPU.
const STEP: u32 = 8;

const RFLAGS_DF: u64 = 1 << 10;

/// A string instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Store,
    Load,
    Move,
}

/// The registers of an address size: counter, source and destination index.
struct Indices {
    count: Gpr,
    source: Gpr,
    destination: Gpr,
}

impl Indices {
    fn of(kind: OpKind) -> Option<Self> {
        let (count, source, destination) = match kind {
            OpKind::MemorySegSI | OpKind::MemoryESDI => (Register::CX, Register::SI, Register::DI),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => {
                (Register::ECX, Register::ESI, Register::EDI)
            }
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => {
                (Register::RCX, Register::RSI, Register::RDI)
            }
            _ => return None,
        };
        Some(Self {
            count: Gpr::of(count)?,
            source: Gpr::of(source)?,
            destination: Gpr::of(destination)?,
        })
    }
}

impl<M: Machine> Run<'_, M> {
    /// Executes a string instruction, or as many of its iterations as one exit may take.
    pub(super) fn string(&mut self, kind: Kind) -> Result<(), Stop> {
        let width = self.memory_width()?;
        let memory = if kind == Kind::Load { 1 } else { 0 };
        let indices = Indices::of(self.insn.op_kind(memory)).ok_or(Stop::Unsupported)?;
        let mut pages = [None, None];
        if !self.insn.has_rep_prefix() && !self.insn.has_repne_prefix() {
            return self.iteration(kind, width, &indices, &mut pages);
        }
        for done in 0..MAX_ITERATIONS {
            let count = self.get(indices.count);
            if count == 0 {
                return Ok(());
            }
            if done != 0 && done.is_multiple_of(STEP) && self.machine.is_wanted_elsewhere() {
                return Err(Stop::Repeat);
            }
            self.iteration(kind, width, &indices, &mut pages)?;
            self.set(indices.count, count.wrapping_sub(1));
        }
        if self.get(indices.count) == 0 {
            Ok(())
        } else {
            Err(Stop::Repeat)
        }
    }

    fn iteration(
        &mut self,
        kind: Kind,
        width: Width,
        indices: &Indices,
        [source_page, destination_page]: &mut [LastPage; 2],
    ) -> Result<(), Stop> {
        let accumulator = Gpr::accumulator(width);
        let source = match kind {
            Kind::Store => None,
            Kind::Load | Kind::Move => {
                let address = self.address(1)?;
                Some(self.place_at(address, width, Access::Read, source_page)?)
            }
        };
        let destination = match kind {
            Kind::Load => None,
            Kind::Store | Kind::Move => {
                let address = self.address(0)?;
                Some(self.place_at(address, width, Access::Write, destination_page)?)
            }
        };
        let value = match source {
            Some(place) => self.load(place),
            None => self.get(accumulator),
        };
        match destination {
            Some(place) => self.store(place, value),
            None => self.set(accumulator, value),
        }
        if source.is_some() {
            self.step(indices.source, width);
        }
        if destination.is_some() {
            self.step(indices.destination, width);
        }
        Ok(())
    }

    /// Moves an index by one element, in the direction RFLAGS.DF says.
    fn step(&mut self, index: Gpr, width: Width) {
        let size = width.bytes() as u64;
        let at = self.get(index);
        let down = self.machine.rflags() & RFLAGS_DF != 0;
        self.set(
            index,
            if down {
                at.wrapping_sub(size)
            } else {
                at.wrapping_add(size)
            },
        );
    }
}
