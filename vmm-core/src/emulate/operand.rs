//! Operands: registers, immediates, effective addresses, and places in guest memory.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use abi::{Gpa, Gva, PAGE_SIZE};
use iced_x86::{MemorySize, OpKind, Register};

use super::alu::Width;
use super::{Access, CodeWidth, Machine, Run, Segment, Stop};

/// A general-purpose register or a part of one.
#[derive(Clone, Copy)]
pub(super) struct Gpr {
    pub(super) number: u8,
    /// 8 for AH, CH, DH and BH.
    shift: u32,
    pub(super) width: Width,
}

/// Where an operand is in guest-physical memory: in one page, or in two.
#[derive(Clone, Copy)]
pub(super) struct Place {
    first: Gpa,
    /// The second page, for an operand that crosses into it.
    second: Option<Gpa>,
    /// Bytes in the first page.
    split: usize,
    width: Width,
}

/// The last page that was translated, so that a string instruction does not walk for each byte.
pub(super) type LastPage = Option<(u64, Gpa)>;

const OFFSET: u64 = PAGE_SIZE as u64 - 1;

impl Gpr {
    /// AL, AX, EAX or RAX.
    pub(super) fn accumulator(width: Width) -> Self {
        Self {
            number: 0,
            shift: 0,
            width,
        }
    }

    pub(super) fn of(register: Register) -> Option<Self> {
        let raw = register as u32;
        // First register of a run, last one, number of the first, shift, width.
        let runs = [
            (Register::AL, Register::BL, 0, 0, Width::Byte),
            (Register::AH, Register::BH, 0, 8, Width::Byte),
            (Register::SPL, Register::R15L, 4, 0, Width::Byte),
            (Register::AX, Register::R15W, 0, 0, Width::Word),
            (Register::EAX, Register::R15D, 0, 0, Width::Double),
            (Register::RAX, Register::R15, 0, 0, Width::Quad),
        ];
        runs.into_iter()
            .find_map(|(first, last, base, shift, width)| {
                let inside = (first as u32..=last as u32).contains(&raw);
                let number = raw.checked_sub(first as u32)?.checked_add(base)?;
                inside.then_some(Self {
                    number: u8::try_from(number).ok()?,
                    shift,
                    width,
                })
            })
    }
}

/// The segment of a segment register.
fn segment(register: Register) -> Option<Segment> {
    match register {
        Register::ES => Some(Segment::Es),
        Register::CS => Some(Segment::Cs),
        Register::SS => Some(Segment::Ss),
        Register::DS => Some(Segment::Ds),
        Register::FS => Some(Segment::Fs),
        Register::GS => Some(Segment::Gs),
        _ => None,
    }
}

fn is_memory(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI
    )
}

/// The size of an integer in memory.
fn memory_width(size: MemorySize) -> Option<Width> {
    match size {
        MemorySize::UInt8 | MemorySize::Int8 => Some(Width::Byte),
        MemorySize::UInt16 | MemorySize::Int16 => Some(Width::Word),
        MemorySize::UInt32 | MemorySize::Int32 => Some(Width::Double),
        MemorySize::UInt64 | MemorySize::Int64 => Some(Width::Quad),
        _ => None,
    }
}

impl<M: Machine> Run<'_, M> {
    /// The register that is operand `operand`.
    pub(super) fn register(&self, operand: u32) -> Result<Gpr, Stop> {
        match self.insn.op_kind(operand) {
            OpKind::Register => Gpr::of(self.insn.op_register(operand)).ok_or(Stop::Unsupported),
            _ => Err(Stop::Unsupported),
        }
    }

    pub(super) fn is_register(&self, operand: u32) -> bool {
        self.insn.op_kind(operand) == OpKind::Register
    }

    pub(super) fn get(&mut self, register: Gpr) -> u64 {
        self.machine
            .gpr(register.number)
            .wrapping_shr(register.shift)
            & register.width.mask()
    }

    /// Writes a register: its other bits stay, but a 32-bit write clears the upper half.
    pub(super) fn set(&mut self, register: Gpr, value: u64) {
        let mask = register.width.mask();
        let value = match register.width {
            Width::Double | Width::Quad => value & mask,
            Width::Byte | Width::Word => {
                let kept = self.machine.gpr(register.number) & !mask.wrapping_shl(register.shift);
                kept | (value & mask).wrapping_shl(register.shift)
            }
        };
        self.machine.set_gpr(register.number, value);
    }

    /// The value of a register or of an immediate operand.
    pub(super) fn value(&mut self, operand: u32) -> Result<u64, Stop> {
        if self.is_register(operand) {
            let register = self.register(operand)?;
            return Ok(self.get(register));
        }
        self.insn
            .try_immediate(operand)
            .map_err(|_| Stop::Unsupported)
    }

    /// The size of the operand in memory.
    pub(super) fn memory_width(&self) -> Result<Width, Stop> {
        memory_width(self.insn.memory_size()).ok_or(Stop::Unsupported)
    }

    /// The linear address of the operand in memory.
    pub(super) fn address(&mut self, operand: u32) -> Result<u64, Stop> {
        let insn = self.insn;
        if !is_memory(insn.op_kind(operand)) {
            return Err(Stop::Unsupported);
        }
        let address = insn
            .try_virtual_address(operand, 0, |register, _, _| self.address_part(register))
            .ok_or(Stop::Unsupported)?;
        Ok(self.linear(address))
    }

    /// Cuts an address to what the mode can address.
    pub(super) fn linear(&self, address: u64) -> u64 {
        match self.width {
            CodeWidth::Bits64 => address,
            CodeWidth::Bits16 | CodeWidth::Bits32 => address & 0xffff_ffff,
        }
    }

    /// The value that `register` adds to an address: its content, or the base of the segment.
    fn address_part(&mut self, register: Register) -> Option<u64> {
        let Some(segment) = segment(register) else {
            return Gpr::of(register).map(|register| self.get(register));
        };
        let flat = self.width == CodeWidth::Bits64;
        match segment {
            Segment::Es | Segment::Cs | Segment::Ss | Segment::Ds if flat => Some(0),
            _ => Some(self.machine.segment_base(segment)),
        }
    }

    /// Translates the operand in memory.
    pub(super) fn place(&mut self, operand: u32, access: Access) -> Result<Place, Stop> {
        let address = self.address(operand)?;
        let width = self.memory_width()?;
        self.place_at(address, width, access, &mut None)
    }

    /// Translates `width` bytes at `address`.
    pub(super) fn place_at(
        &mut self,
        address: u64,
        width: Width,
        access: Access,
        last: &mut LastPage,
    ) -> Result<Place, Stop> {
        let first = self.translate(address, access, last)?;
        let room = PAGE_SIZE.wrapping_sub(Gva::new(address).page_offset());
        let split = room.min(width.bytes());
        let second = if split < width.bytes() {
            let next = self.linear(address.wrapping_add(split as u64));
            Some(self.translate(next, access, last)?)
        } else {
            None
        };
        Ok(Place {
            first,
            second,
            split,
            width,
        })
    }

    fn translate(
        &mut self,
        address: u64,
        access: Access,
        last: &mut LastPage,
    ) -> Result<Gpa, Stop> {
        let page = match *last {
            Some((page, gpa)) if page == address & !OFFSET => gpa.raw(),
            _ => {
                let gpa = self.machine.translate(Gva::new(address), access)?;
                let page = gpa.raw() & !OFFSET;
                *last = Some((address & !OFFSET, Gpa::new(page)));
                page
            }
        };
        Ok(Gpa::new(page | address & OFFSET))
    }

    pub(super) fn load(&mut self, place: Place) -> u64 {
        let mut bytes = [0; 8];
        let (first, second) = halves(&mut bytes, place);
        self.machine.read(place.first, first);
        if let Some(gpa) = place.second {
            self.machine.read(gpa, second);
        }
        u64::from_le_bytes(bytes)
    }

    pub(super) fn store(&mut self, place: Place, value: u64) {
        let mut bytes = value.to_le_bytes();
        let (first, second) = halves(&mut bytes, place);
        self.machine.write(place.first, first);
        if let Some(gpa) = place.second {
            self.machine.write(gpa, second);
        }
    }
}

/// The bytes of an operand in its first and in its second page.
fn halves(bytes: &mut [u8; 8], place: Place) -> (&mut [u8], &mut [u8]) {
    let operand = bytes.get_mut(..place.width.bytes()).unwrap_or_default();
    operand
        .split_at_mut_checked(place.split)
        .unwrap_or_default()
}
