//! What each instruction does.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use iced_x86::Mnemonic;

use super::alu::{self, Binary, BitChange, Unary, Width};
use super::operand::Gpr;
use super::string::Kind;
use super::{Access, Machine, Run, Stop};

impl<M: Machine> Run<'_, M> {
    pub(super) fn execute(&mut self) -> Result<(), Stop> {
        match self.insn.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movnti => self.mov(),
            Mnemonic::Movzx => self.extend(|_, value| value),
            Mnemonic::Movsx | Mnemonic::Movsxd => self.extend(Width::sign_extend),
            Mnemonic::Add => self.binary(Binary::Add),
            Mnemonic::Adc => self.binary(Binary::Adc),
            Mnemonic::Sub => self.binary(Binary::Sub),
            Mnemonic::Sbb => self.binary(Binary::Sbb),
            Mnemonic::And => self.binary(Binary::And),
            Mnemonic::Or => self.binary(Binary::Or),
            Mnemonic::Xor => self.binary(Binary::Xor),
            Mnemonic::Cmp => self.compare(Binary::Sub),
            Mnemonic::Test => self.compare(Binary::And),
            Mnemonic::Inc => self.unary(Unary::Inc),
            Mnemonic::Dec => self.unary(Unary::Dec),
            Mnemonic::Not => self.unary(Unary::Not),
            Mnemonic::Neg => self.unary(Unary::Neg),
            Mnemonic::Bt => self.bit_test(BitChange::Keep),
            Mnemonic::Bts => self.bit_test(BitChange::Set),
            Mnemonic::Btr => self.bit_test(BitChange::Reset),
            Mnemonic::Btc => self.bit_test(BitChange::Complement),
            Mnemonic::Xchg => self.exchange(),
            Mnemonic::Xadd => self.exchange_add(),
            Mnemonic::Cmpxchg => self.compare_exchange(),
            Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => {
                self.string(Kind::Store)
            }
            Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
                self.string(Kind::Load)
            }
            Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => {
                self.string(Kind::Move)
            }
            // Nothing is cached outside RAM.
            Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => Ok(()),
            _ => Err(Stop::Unsupported),
        }
    }

    fn mov(&mut self) -> Result<(), Stop> {
        if self.is_register(0) {
            let register = self.register(0)?;
            let place = self.place(1, Access::Read)?;
            let value = self.load(place);
            self.set(register, value);
        } else {
            let value = self.value(1)?;
            let place = self.place(0, Access::Write)?;
            self.store(place, value);
        }
        Ok(())
    }

    fn extend(&mut self, extend: fn(Width, u64) -> u64) -> Result<(), Stop> {
        let register = self.register(0)?;
        let place = self.place(1, Access::Read)?;
        let width = self.memory_width()?;
        let value = extend(width, self.load(place));
        self.set(register, value);
        Ok(())
    }

    /// An operation with an operand in memory on either side.
    fn binary(&mut self, op: Binary) -> Result<(), Stop> {
        let width = self.memory_width()?;
        let flags = self.machine.rflags();
        if self.is_register(0) {
            let register = self.register(0)?;
            let place = self.place(1, Access::Read)?;
            let (a, b) = (self.get(register), self.load(place));
            let (result, flags) = alu::binary(op, width, a, b, flags);
            self.set(register, result);
            self.machine.set_rflags(flags);
        } else {
            let b = self.value(1)?;
            let place = self.place(0, Access::Write)?;
            let (result, flags) = alu::binary(op, width, self.load(place), b, flags);
            self.store(place, result);
            self.machine.set_rflags(flags);
        }
        Ok(())
    }

    /// An operation that only sets flags.
    fn compare(&mut self, op: Binary) -> Result<(), Stop> {
        let width = self.memory_width()?;
        let (a, b) = if self.is_register(0) {
            let place = self.place(1, Access::Read)?;
            (self.value(0)?, self.load(place))
        } else {
            let b = self.value(1)?;
            let place = self.place(0, Access::Read)?;
            (self.load(place), b)
        };
        let (_, flags) = alu::binary(op, width, a, b, self.machine.rflags());
        self.machine.set_rflags(flags);
        Ok(())
    }

    fn unary(&mut self, op: Unary) -> Result<(), Stop> {
        let width = self.memory_width()?;
        let place = self.place(0, Access::Write)?;
        let flags = self.machine.rflags();
        let (result, flags) = alu::unary(op, width, self.load(place), flags);
        self.store(place, result);
        self.machine.set_rflags(flags);
        Ok(())
    }

    /// A bit number in a register is signed and reaches beyond the operand: it moves the address
    /// by whole operands (SDM 2A, "BT - Bit Test").
    fn bit_test(&mut self, change: BitChange) -> Result<(), Stop> {
        let width = self.memory_width()?;
        let access = if change == BitChange::Keep {
            Access::Read
        } else {
            Access::Write
        };
        let bit = self.value(1)?;
        let mut address = self.address(0)?;
        if self.is_register(1) {
            let bits = width.sign_extend(bit).cast_signed();
            let operands = bits.wrapping_shr(width.bits().trailing_zeros());
            let bytes = operands.cast_unsigned().wrapping_mul(width.bytes() as u64);
            address = self.linear(address.wrapping_add(bytes));
        }
        let place = self.place_at(address, width, access, &mut None)?;
        let flags = self.machine.rflags();
        let (result, flags) = alu::bit_test(change, width, self.load(place), bit, flags);
        if access == Access::Write {
            self.store(place, result);
        }
        self.machine.set_rflags(flags);
        Ok(())
    }

    fn exchange(&mut self) -> Result<(), Stop> {
        let (memory, other) = if self.is_register(0) { (1, 0) } else { (0, 1) };
        let register = self.register(other)?;
        let place = self.place(memory, Access::Write)?;
        let new = self.get(register);
        let old = self.load(place);
        self.store(place, new);
        self.set(register, old);
        Ok(())
    }

    fn exchange_add(&mut self) -> Result<(), Stop> {
        let width = self.memory_width()?;
        let register = self.register(1)?;
        let place = self.place(0, Access::Write)?;
        let added = self.get(register);
        let old = self.load(place);
        let (sum, flags) = alu::binary(Binary::Add, width, old, added, self.machine.rflags());
        self.store(place, sum);
        self.set(register, old);
        self.machine.set_rflags(flags);
        Ok(())
    }

    /// The destination is written in both cases, with its old value when they differ.
    fn compare_exchange(&mut self) -> Result<(), Stop> {
        let width = self.memory_width()?;
        let new = self.value(1)?;
        let accumulator = Gpr::accumulator(width);
        let place = self.place(0, Access::Write)?;
        let expected = self.get(accumulator);
        let old = self.load(place);
        let (_, flags) = alu::binary(Binary::Sub, width, expected, old, self.machine.rflags());
        self.machine.set_rflags(flags);
        if flags & alu::ZF != 0 {
            self.store(place, new);
        } else {
            self.store(place, old);
            self.set(accumulator, old);
        }
        Ok(())
    }
}
