//! Hypercalls as a hostile guest makes them: plausible arguments with garbage among them.
//!
//! [`SHAPES`] says what each call takes. [`random`] makes a call of one of them, with values that
//! lead far into the hypervisor more often than not: ports, frames and grants that may exist. Who
//! makes the choices is behind [`Choice`]: the bytes of a fuzzer on a host, or the generator of the
//! micro-guest that does the same on a machine.
#![no_std]
#![forbid(unsafe_code)]

mod field;
mod generator;
mod shapes;

use abi::hypercall::{MULTICALL, SET_TIMER_OP};
use abi::memory::CMD_BITS;

use field::Writer;
pub use generator::Generator;
pub use shapes::{Registers, SHAPES, Shape};

/// The most bytes that lie in memory for one call.
pub const ROOM: usize = 1024;
/// Where in them the arguments of calls in a batch are.
const BATCHED: usize = 512;

/// Who chooses.
pub trait Choice {
    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u32) -> u32;
    /// Any number.
    fn any(&mut self) -> u64;
}

/// What the caller has around it.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The caller is 64-bit code.
    pub wide: bool,
    /// Where the bytes of the call will lie, in a page of their own.
    pub argument: u64,
    /// An address from which nothing can be read.
    pub absent: u64,
    /// Domains to name.
    pub domains: [u16; 3],
    /// The first of sixteen frames of RAM that the caller can do without.
    pub ram: u64,
    /// The first of sixteen frames with nothing in them.
    pub hole: u64,
    /// vCPUs that there are.
    pub vcpus: u32,
}

/// A call to make: these registers, and these bytes at [`Places::argument`].
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The hypercall's number.
    pub number: u64,
    /// Its arguments.
    pub args: [u64; 5],
    /// What lies in memory.
    pub bytes: [u8; ROOM],
}

/// One call, of those of `shapes` or of no known shape.
pub fn random(choice: &mut impl Choice, places: &Places, shapes: &[Shape]) -> Call {
    let mut call = Call {
        number: 0,
        args: [0; 5],
        bytes: [0; ROOM],
    };
    if choice.below(16) == 0 {
        return batch(choice, places, shapes, call);
    }
    let (number, args) = fill(choice, places, shapes, places.argument, &mut call.bytes);
    Call {
        number,
        args,
        ..call
    }
}

/// A batch of up to four calls, whose arguments lie behind it.
fn batch(choice: &mut impl Choice, places: &Places, shapes: &[Shape], mut call: Call) -> Call {
    let count = choice.below(5);
    let (list, rest) = call.bytes.split_at_mut(BATCHED);
    let mut entries = Writer::new(list, places.wide);
    for (index, bytes) in (0..count).zip(rest.chunks_exact_mut(BATCHED / 4)) {
        let behind = BATCHED as u64 + u64::from(index) * (BATCHED as u64 / 4);
        let at = places.argument.wrapping_add(behind);
        let (number, args) = fill(choice, places, shapes, at, bytes);
        entries.long(number);
        entries.long(choice.any());
        args.into_iter().for_each(|arg| entries.long(arg));
        entries.long(0);
    }
    call.number = MULTICALL;
    call.args = [
        field::pointer(choice, places, places.argument),
        count.into(),
        0,
        0,
        0,
    ];
    call
}

/// The number and registers of a call whose bytes, filled in here, will lie at `at`.
fn fill(
    choice: &mut impl Choice,
    places: &Places,
    shapes: &[Shape],
    at: u64,
    bytes: &mut [u8],
) -> (u64, [u64; 5]) {
    let known = u32::try_from(shapes.len()).unwrap_or(u32::MAX);
    let chosen = choice.below(known.saturating_add(2)) as usize;
    let Some(shape) = shapes.get(chosen) else {
        let number = u64::from(choice.below(64));
        // What has a shape is not called without it: who leaves out some calls means to.
        let known = number == MULTICALL || SHAPES.iter().any(|shape| shape.number == number);
        let number = if known { number | 64 } else { number };
        return (number, [(); 5].map(|()| field::word(choice, places)));
    };
    let count = u64::from(choice.below(4));
    let copies = if shape.registers == Registers::Array {
        count
    } else {
        1
    };
    let mut writer = Writer::new(bytes, places.wide);
    for _ in 0..copies {
        writer.structure(choice, places, at, shape.fields);
    }
    let pointer = field::pointer(choice, places, at);
    let small = |choice: &mut _| u64::from(field::small(choice));
    let args = match shape.registers {
        Registers::Pointer => [shape.command, pointer, 0, 0, 0],
        Registers::Resumable => {
            let progress = if choice.below(16) == 0 {
                small(choice)
            } else {
                0
            };
            [progress << CMD_BITS | shape.command, pointer, 0, 0, 0]
        }
        Registers::Array => [shape.command, pointer, count, 0, 0],
        Registers::Vcpu => {
            let vcpu = field::vcpu(choice, places).into();
            let pointer = if shape.fields.is_empty() { 0 } else { pointer };
            [shape.command, vcpu, pointer, 0, 0]
        }
        Registers::Numbers if shape.number == SET_TIMER_OP => {
            [choice.any(), small(choice), 0, 0, 0]
        }
        Registers::Numbers => [shape.command, small(choice), 0, 0, 0],
    };
    (shape.number, args)
}

#[cfg(test)]
mod tests;
