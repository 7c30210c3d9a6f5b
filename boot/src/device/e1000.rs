//! Intel's 8254x network cards.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use abi::PAGE_SIZE;
use devices::e1000::{self, BUFFER, BUFFERS_BYTES, CARDS, Found, Interrupts, Memory, RING_BYTES};
use vmm_core::mm::dma::DmaBlock;
use vmm_core::network::{
    self, Arrived, Buffer, Halves, MacAddr, NetworkCard, PciAddress, Receive, Transmit,
};

use super::dma::{Dma, LIMIT_32};
use super::interrupts::Handler;
use super::registers::Window;
use super::{Clock, Owned};

/// The base address register of the card's registers.
const REGISTERS: u8 = 0;

/// A card.
#[derive(Debug)]
struct Card {
    place: PciAddress,
    found: Found<&'static Window>,
    interrupts: Interrupts<&'static Window>,
    is_taken: AtomicBool,
}

/// The buffers of one direction.
#[derive(Debug)]
struct Buffers(DmaBlock);

#[derive(Debug)]
struct Outgoing {
    card: e1000::Transmit<&'static Window, Dma>,
    buffers: Buffers,
}

#[derive(Debug)]
struct Incoming {
    card: e1000::Receive<&'static Window, Dma>,
    buffers: Buffers,
    interrupts: Interrupts<&'static Window>,
}

/// True for a function that this driver drives.
pub(super) fn is_card(device: &Owned<'_>) -> bool {
    CARDS.contains(&(device.function.vendor, device.function.device))
}

/// Finds a card's address and takes its interrupt. It is silent until somebody wants it.
pub(super) fn start(device: &Owned<'_>, cards: &mut Vec<&'static dyn NetworkCard>) {
    let address = device.function.address;
    device.start();
    match find(device) {
        Ok(card) => cards.push(card),
        Err(why) => {
            log::warn!("e1000 {address}: {why}: not used");
            device.machine.quiet(&device.function);
        }
    }
}

fn find(device: &Owned<'_>) -> Result<&'static Card, &'static str> {
    let registers = device.registers(REGISTERS).ok_or("it has no registers")?;
    let registers: &'static Window = Box::leak(Box::new(registers));
    let clock = device.machine.clock;
    let found = e1000::find(registers, |micros| wait(clock, micros));
    let found = found.map_err(|why| why.text())?;
    let address = device.function.address;
    let card: &'static Card = Box::leak(Box::new(Card {
        place: PciAddress {
            segment: address.segment,
            bus: address.bus,
            device: address.device,
            function: address.function,
        },
        interrupts: found.interrupts(),
        found,
        is_taken: AtomicBool::new(false),
    }));
    if device.serve_interrupt(card) {
        Ok(card)
    } else {
        Err("no interrupt of its can be heard")
    }
}

/// Waits, for the start, when nobody else runs.
fn wait(clock: Clock, micros: u32) {
    let end = clock.now().saturating_add(micros.into());
    while clock.now() < end {
        core::hint::spin_loop();
    }
}

impl Handler for Card {
    fn interrupt(&self) {
        if self.interrupts.take() {
            network::arrived();
        }
    }
}

impl NetworkCard for Card {
    fn place(&self) -> PciAddress {
        self.place
    }

    fn address(&self) -> MacAddr {
        MacAddr(self.found.address)
    }

    fn start(&self) -> Option<Halves> {
        if self.is_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (receive, incoming) = memory()?;
        let (transmit, outgoing) = memory()?;
        let card = self.found.start(receive, transmit).ok()?;
        Some(Halves {
            transmit: Box::new(Outgoing {
                card: card.transmit,
                buffers: outgoing,
            }),
            receive: Box::new(Incoming {
                card: card.receive,
                buffers: incoming,
                interrupts: self.found.interrupts(),
            }),
        })
    }
}

/// A ring and its buffers.
fn memory() -> Option<(Memory<Dma>, Buffers)> {
    let ring = Dma::alloc(order(RING_BYTES), LIMIT_32)?;
    let buffers = DmaBlock::alloc(order(BUFFERS_BYTES), LIMIT_32)?;
    let memory = Memory {
        ring,
        buffers: buffers.start().raw(),
    };
    Some((memory, Buffers(buffers)))
}

/// The least power of two of pages for so many bytes.
fn order(bytes: usize) -> u8 {
    let pages = bytes.div_ceil(PAGE_SIZE).next_power_of_two();
    u8::try_from(pages.trailing_zeros()).unwrap_or(u8::MAX)
}

impl Buffers {
    fn get(&self, number: u16) -> Option<Buffer<'_>> {
        let at = usize::from(number).checked_mul(BUFFER)?;
        Some(Buffer {
            page: self.0.get(at / PAGE_SIZE)?,
            offset: u16::try_from(at % PAGE_SIZE).ok()?,
        })
    }
}

impl Transmit for Outgoing {
    fn room(&mut self) -> usize {
        self.card.room().into()
    }

    fn buffer(&self) -> Option<Buffer<'_>> {
        self.buffers.get(self.card.buffer())
    }

    fn put(&mut self, len: usize) {
        self.card.put(len);
    }

    fn publish(&mut self) {
        self.card.publish();
    }
}

impl Receive for Incoming {
    fn look(&mut self) -> Option<Arrived<'_>> {
        let received = self.card.look()?.ok();
        let frame = received.and_then(|received| {
            let buffer = self.buffers.get(received.buffer)?;
            Some(Arrived::Frame(buffer, received.len))
        });
        Some(frame.unwrap_or(Arrived::Broken))
    }

    fn give_back(&mut self) {
        self.card.give_back();
    }

    fn publish(&mut self) {
        self.card.publish();
    }

    fn rearm(&mut self) {
        self.interrupts.unmask();
    }

    fn missed(&mut self) -> u64 {
        self.card.missed().into()
    }
}
