//! Arithmetic and logic with their status flags, on plain integers.
//!
//! SDM 1, "Status Flags"; the flags an instruction leaves undefined are as Intel processors leave
//! them.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

/// Carry.
pub(super) const CF: u64 = 1 << 0;
/// Even parity of the low byte.
pub(super) const PF: u64 = 1 << 2;
/// Carry out of bit 3.
pub(super) const AF: u64 = 1 << 4;
/// Zero.
pub(super) const ZF: u64 = 1 << 6;
/// Sign.
pub(super) const SF: u64 = 1 << 7;
/// Signed overflow.
pub(super) const OF: u64 = 1 << 11;
/// All of them.
pub(super) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// The size of an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    Byte,
    Word,
    Double,
    Quad,
}

impl Width {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Double => 4,
            Self::Quad => 8,
        }
    }

    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Byte => 8,
            Self::Word => 16,
            Self::Double => 32,
            Self::Quad => 64,
        }
    }

    pub(super) fn mask(self) -> u64 {
        u64::MAX.wrapping_shr(64_u32.wrapping_sub(self.bits()))
    }

    fn sign(self) -> u64 {
        self.mask() & !(self.mask() >> 1)
    }

    /// The value of the low bits of `value`, taken as a signed number, in 64 bits.
    pub(super) fn sign_extend(self, value: u64) -> u64 {
        let value = value & self.mask();
        if value & self.sign() == 0 {
            value
        } else {
            value | !self.mask()
        }
    }
}

/// An operation on two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binary {
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
}

/// An operation on one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unary {
    Inc,
    Dec,
    Not,
    Neg,
}

/// What BT and its relatives do to the bit they test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BitChange {
    Keep,
    Set,
    Reset,
    Complement,
}

/// The result of `op` and the flags after it.
pub(super) fn binary(op: Binary, width: Width, a: u64, b: u64, flags: u64) -> (u64, u64) {
    let (a, b) = (a & width.mask(), b & width.mask());
    let carry = flags & CF;
    let (result, status) = match op {
        Binary::Add => add(width, a, b, 0),
        Binary::Adc => add(width, a, b, carry),
        Binary::Sub => sub(width, a, b, 0),
        Binary::Sbb => sub(width, a, b, carry),
        Binary::And => (a & b, 0),
        Binary::Or => (a | b, 0),
        Binary::Xor => (a ^ b, 0),
    };
    (
        result,
        flags & !STATUS | status | result_flags(width, result),
    )
}

/// The result of `op` and the flags after it.
pub(super) fn unary(op: Unary, width: Width, a: u64, flags: u64) -> (u64, u64) {
    let a = a & width.mask();
    let ((result, status), kept) = match op {
        // INC and DEC leave the carry as it is.
        Unary::Inc => (add(width, a, 1, 0), CF),
        Unary::Dec => (sub(width, a, 1, 0), CF),
        Unary::Neg => (sub(width, 0, a, 0), 0),
        Unary::Not => return (!a & width.mask(), flags),
    };
    let status = (status | result_flags(width, result)) & !kept;
    (result, flags & !(STATUS & !kept) | status)
}

/// The operand after its bit `bit` (modulo the width) was tested, and the flags with that bit in
/// the carry.
pub(super) fn bit_test(
    change: BitChange,
    width: Width,
    a: u64,
    bit: u64,
    flags: u64,
) -> (u64, u64) {
    let bit =
        1_u64.rotate_left(u32::try_from(bit & 63).unwrap_or(0) & width.bits().wrapping_sub(1));
    let carry = if a & bit == 0 { 0 } else { CF };
    let result = match change {
        BitChange::Keep => a,
        BitChange::Set => a | bit,
        BitChange::Reset => a & !bit,
        BitChange::Complement => a ^ bit,
    };
    (result, flags & !CF | carry)
}

fn add(width: Width, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let sum = u128::from(a)
        .wrapping_add(u128::from(b))
        .wrapping_add(u128::from(carry));
    let result = a.wrapping_add(b).wrapping_add(carry) & width.mask();
    let flags = when(sum > u128::from(width.mask()), CF)
        | when((a ^ result) & (b ^ result) & width.sign() != 0, OF)
        | (a ^ b ^ result) & AF;
    (result, flags)
}

fn sub(width: Width, a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let result = a.wrapping_sub(b).wrapping_sub(borrow) & width.mask();
    let flags = when(
        u128::from(a) < u128::from(b).wrapping_add(u128::from(borrow)),
        CF,
    ) | when((a ^ b) & (a ^ result) & width.sign() != 0, OF)
        | (a ^ b ^ result) & AF;
    (result, flags)
}

fn result_flags(width: Width, result: u64) -> u64 {
    when(result == 0, ZF)
        | when(result & width.sign() != 0, SF)
        | when((result & 0xff).count_ones() & 1 == 0, PF)
}

fn when(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}
