//! The driver against a model of the card, whole and broken.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "tests choose their own numbers"
)]

use core::cell::{Cell, RefCell};
use std::rc::Rc;
use std::vec::Vec;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::registers::{
    ADDRESS, CTRL, EERD, ICR, IMC, IMS, RCTL, RECEIVE, STATUS, TCTL, TRANSMIT, ctrl, eerd,
};
use super::{
    BUFFER, BUFFERS_BYTES, Broken, Card, Found, Interrupts, Memory, NoCard, RING, RING_BYTES,
    Received, find,
};
use crate::{DmaMemory, Registers};

/// Where the model's memory lies for the card.
const BASE: u64 = 0x1_2345_0000;
const SIZE: usize = 2 * (RING_BYTES + BUFFERS_BYTES);
const OWN: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A piece of memory that card and driver share.
#[derive(Clone, Debug)]
struct Piece {
    all: Rc<RefCell<Vec<u8>>>,
    start: usize,
    size: usize,
}

impl Piece {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(at, &mut bytes);
        bytes
    }
}

impl DmaMemory for Piece {
    fn address(&self) -> u64 {
        BASE + self.start as u64
    }

    fn size(&self) -> usize {
        self.size
    }

    fn read32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.get(at))
    }

    fn read64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }

    fn write32(&self, at: usize, value: u32) {
        self.write(at, &value.to_le_bytes());
    }

    fn write64(&self, at: usize, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        assert!(at + out.len() <= self.size);
        out.copy_from_slice(&self.all.borrow()[self.start + at..][..out.len()]);
    }

    fn write(&self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= self.size);
        self.all.borrow_mut()[self.start + at..][..data.len()].copy_from_slice(data);
    }
}

/// The card.
#[derive(Debug)]
struct Model {
    registers: RefCell<Vec<u32>>,
    memory: Piece,
    eeprom: [u8; 6],
    sent: RefCell<Vec<Vec<u8>>>,
    /// Frames are sent as soon as they are there.
    is_quick: Cell<bool>,
}

#[derive(Clone, Debug)]
struct Handle(Rc<Model>);

impl Model {
    fn register(&self, at: usize) -> u32 {
        self.registers.borrow()[at / 4]
    }

    fn set(&self, at: usize, value: u32) {
        self.registers.borrow_mut()[at / 4] = value;
    }

    fn interrupts(&self) -> bool {
        self.register(ICR) & self.register(IMS) != 0
    }

    fn cause(&self, bits: u32) {
        self.set(ICR, self.register(ICR) | bits);
    }

    fn at(&self, address: u64) -> usize {
        usize::try_from(address - BASE).unwrap()
    }

    /// The descriptor that the ring's head points to.
    fn head(&self, ring: super::registers::Ring) -> usize {
        let [low, high] = ring.address().map(|at| u64::from(self.register(at)));
        self.at(high << 32 | low) + 16 * self.register(ring.head()) as usize
    }

    fn advance(&self, ring: super::registers::Ring) {
        let next = (self.register(ring.head()) + 1) % (self.register(ring.length()) / 16);
        self.set(ring.head(), next);
    }

    /// A frame comes in, in as many buffers as it takes; false when there are none.
    fn receive(&self, frame: &[u8]) -> bool {
        let mut pieces = frame.chunks(BUFFER).peekable();
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { 2 } else { 0 };
            let len = u16::try_from(piece.len()).unwrap();
            if !self.fill(piece, len, 1 | end, 0) {
                return false;
            }
        }
        true
    }

    /// Fills a buffer and says of it what is given.
    fn fill(&self, bytes: &[u8], len: u16, status: u8, errors: u8) -> bool {
        if self.register(RECEIVE.head()) == self.register(RECEIVE.tail()) {
            self.cause(1 << 6);
            return false;
        }
        let descriptor = self.head(RECEIVE);
        let buffer = self.at(self.memory.read64(descriptor));
        self.memory.write(buffer, bytes);
        let [low, high] = len.to_le_bytes();
        let said = [low, high, 0, 0, status, errors, 0, 0];
        self.memory.write(descriptor + 8, &said);
        self.advance(RECEIVE);
        self.cause(1 << 7);
        true
    }

    fn send(&self) {
        while self.register(TRANSMIT.head()) != self.register(TRANSMIT.tail()) {
            let descriptor = self.head(TRANSMIT);
            let what = self.memory.read64(descriptor + 8);
            assert_eq!(what >> 24, 0b1011);
            let buffer = self.at(self.memory.read64(descriptor));
            let mut frame = std::vec![0; usize::try_from(what & 0xffff).unwrap()];
            self.memory.read(buffer, &mut frame);
            self.sent.borrow_mut().push(frame);
            self.memory.write32(descriptor + 12, 1);
            self.advance(TRANSMIT);
        }
    }
}

impl Registers for Handle {
    fn read8(&self, _: usize) -> u8 {
        panic!("registers have 32 bits")
    }

    fn read16(&self, _: usize) -> u16 {
        panic!("registers have 32 bits")
    }

    fn read32(&self, at: usize) -> u32 {
        let value = self.0.register(at);
        match at {
            ICR => self.0.set(ICR, 0),
            EERD if value & eerd::START != 0 => {
                let word = 2 * (value >> 8 & 0xff) as usize;
                let [a, b] = [self.0.eeprom[word], self.0.eeprom[word + 1]];
                return u32::from_le_bytes([0x10, 0, a, b]);
            }
            _ => {}
        }
        value
    }

    fn write8(&self, _: usize, _: u8) {
        panic!("registers have 32 bits")
    }

    fn write16(&self, _: usize, _: u16) {
        panic!("registers have 32 bits")
    }

    fn write32(&self, at: usize, value: u32) {
        match at {
            IMS => self.0.set(IMS, self.0.register(IMS) | value),
            IMC => self.0.set(IMS, self.0.register(IMS) & !value),
            CTRL => self.0.set(CTRL, value & !ctrl::RST),
            _ => self.0.set(at, value),
        }
        if at == TRANSMIT.tail() && self.0.is_quick.get() {
            self.0.send();
        }
    }
}

/// A model whose EEPROM has this address, and a driver's memory.
fn model(eeprom: [u8; 6]) -> (Rc<Model>, [Memory<Piece>; 2]) {
    let all = Rc::new(RefCell::new(std::vec![0xee; SIZE]));
    let piece = |start, size| Piece {
        all: Rc::clone(&all),
        start,
        size,
    };
    let ring = |number| Memory {
        ring: piece(number * RING_BYTES, RING_BYTES),
        buffers: BASE + (2 * RING_BYTES + number * BUFFERS_BYTES) as u64,
    };
    let model = Model {
        registers: RefCell::new(std::vec![0; 0x8000]),
        memory: piece(0, SIZE),
        eeprom,
        sent: RefCell::default(),
        is_quick: Cell::new(true),
    };
    (Rc::new(model), [ring(0), ring(1)])
}

fn begin(model: &Rc<Model>, [receive, transmit]: [Memory<Piece>; 2]) -> Result<Running, NoCard> {
    let found = find(Handle(Rc::clone(model)), |_| ())?;
    let Card { receive, transmit } = found.start(receive, transmit)?;
    let interrupts = found.interrupts();
    Ok(Running {
        found,
        receive,
        transmit,
        interrupts,
    })
}

#[derive(Debug)]
struct Running {
    found: Found<Handle>,
    receive: super::Receive<Handle, Piece>,
    transmit: super::Transmit<Handle, Piece>,
    interrupts: Interrupts<Handle>,
}

fn card() -> (Rc<Model>, Running) {
    let (model, memory) = model(OWN);
    let card = begin(&model, memory).unwrap();
    (model, card)
}

/// What a buffer holds.
fn bytes(model: &Model, ring: usize, received: Received) -> Vec<u8> {
    let mut bytes = std::vec![0; received.len.into()];
    let buffer = usize::from(received.buffer);
    let at = 2 * RING_BYTES + ring * BUFFERS_BYTES + buffer * BUFFER;
    model.memory.read(at, &mut bytes);
    bytes
}

/// All that came in.
fn take(model: &Model, card: &mut Running) -> Vec<Result<Vec<u8>, Broken>> {
    let mut taken = Vec::new();
    while let Some(found) = card.receive.look() {
        taken.push(found.map(|received| bytes(model, 0, received)));
        card.receive.give_back();
    }
    card.receive.publish();
    taken
}

fn frame(len: usize, first: u8) -> Vec<u8> {
    (0..len)
        .map(|at| first.wrapping_add(at.to_le_bytes()[0]))
        .collect()
}

fn send(model: &Model, card: &mut Running, frame: &[u8]) {
    let buffer = usize::from(card.transmit.buffer());
    let at = 2 * RING_BYTES + BUFFERS_BYTES + buffer * BUFFER;
    model.memory.write(at, frame);
    card.transmit.put(frame.len());
}

#[test]
fn a_card_is_set_up_whatever_was_left_in_it() {
    let (model, memory) = model(OWN);
    for register in 0..0x5400 / 4 {
        model.registers.borrow_mut()[register] = 0x5a5a_5a5a;
    }
    let card = begin(&model, memory).unwrap();
    assert_eq!(card.found.address, OWN);
    assert_eq!(model.register(IMS), 0);
    assert_eq!(model.register(RCTL), 0x0400_801a);
    assert_eq!(model.register(TCTL), 0x0004_00fa);
    let control = model.register(CTRL);
    assert_eq!(control & 0x60, 0x60);
    assert_eq!(control & 0xdc00_1888, 0);
    assert_eq!(model.register(RECEIVE.tail()), 255);
    assert_eq!(model.register(RECEIVE.length()), 4096);
    assert!((0..128).all(|word| model.register(0x5200 + 4 * word) == 0));
}

#[test]
fn the_address_is_where_the_card_has_it() {
    let (with_registers, memory) = model([0; 6]);
    with_registers.set(ADDRESS[0], 0x1200_5452);
    with_registers.set(ADDRESS[1], 0x8000_5634);
    assert_eq!(begin(&with_registers, memory).unwrap().found.address, OWN);
    for none in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        let (model, memory) = model(none);
        assert_eq!(begin(&model, memory).unwrap_err(), NoCard::NoAddress);
    }
}

#[test]
fn a_card_that_is_gone_is_not_waited_for() {
    let (model, memory) = model(OWN);
    model.set(STATUS, u32::MAX);
    assert_eq!(begin(&model, memory).unwrap_err(), NoCard::Gone);
    let (model, mut card) = card();
    model.set(ICR, u32::MAX);
    model.set(STATUS, u32::MAX);
    assert!(!card.interrupts.take());
    assert!(card.receive.look().is_none());
    // One that sends nothing takes as many frames as the ring holds.
    model.is_quick.set(false);
    for room in (1..=255).rev() {
        assert_eq!(card.transmit.room(), room);
        send(&model, &mut card, &frame(60, 0));
        card.transmit.publish();
    }
    assert_eq!(card.transmit.room(), 0);
    model.send();
    assert_eq!(card.transmit.room(), 255);
    let (model, [mut receive, transmit]) = self::model(OWN);
    receive.ring.size -= 1;
    assert_eq!(
        begin(&model, [receive, transmit]).unwrap_err(),
        NoCard::Memory
    );
}

#[test]
fn frames_come_in_in_order_for_ever() {
    let (model, mut card) = card();
    for round in 0..10 {
        let sent: Vec<_> = (0..255).map(|n| frame(14 + 7 * n, round)).collect();
        assert!(sent.iter().all(|frame| model.receive(frame)));
        // There is no room for more.
        assert!(!model.receive(&frame(60, 0)));
        let got: Vec<_> = take(&model, &mut card)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert!(got == sent);
    }
}

#[test]
fn frames_go_out_in_order_for_ever() {
    let (model, mut card) = card();
    for round in 0..10_u8 {
        for number in 0..200_u8 {
            assert!(card.transmit.room() > 0);
            send(
                &model,
                &mut card,
                &frame(60 + 7 * usize::from(number), round),
            );
        }
        assert_eq!(model.sent.borrow().len(), 200 * usize::from(round));
        card.transmit.publish();
    }
    let sent = model.sent.borrow();
    assert_eq!(sent.len(), 2000);
    for (number, sent) in sent.iter().enumerate() {
        let round = u8::try_from(number / 200).unwrap();
        assert!(*sent == frame(60 + 7 * (number % 200), round));
    }
}

#[test]
fn what_is_no_whole_frame_is_left_out() {
    let (model, mut card) = card();
    let good = frame(100, 1);
    assert!(model.receive(&frame(5000, 0)) && model.receive(&good));
    // Too short, longer than its buffer, damaged.
    for (len, errors) in [(13, 0), (2049, 0), (0xffff, 0), (100, 1), (100, 0x80)] {
        assert!(model.fill(&good, len, 3, errors));
    }
    // A bad checksum inside is the receiver's to find.
    assert!(model.fill(&good, 100, 3, 0x60));
    let broken = || Err(Broken);
    let taken = take(&model, &mut card);
    let wanted = [
        broken(),
        broken(),
        broken(),
        Ok(good.clone()),
        broken(),
        broken(),
        broken(),
        broken(),
        broken(),
        Ok(good.clone()),
    ];
    assert!(taken == wanted);
}

#[test]
fn an_interrupt_masks_until_all_is_done() {
    let (model, mut card) = card();
    card.interrupts.unmask();
    assert!(!model.interrupts());
    assert!(!card.interrupts.take());
    assert!(model.receive(&frame(60, 0)) && model.interrupts());
    assert!(card.interrupts.take());
    // More comes: it waits for the look at the ring.
    assert!(model.receive(&frame(60, 0)) && !model.interrupts());
    assert_eq!(take(&model, &mut card).len(), 2);
    card.interrupts.unmask();
    assert!(model.interrupts(), "once too often is no harm");
    assert!(card.interrupts.take());
    assert!(take(&model, &mut card).is_empty());
    card.interrupts.unmask();
    assert!(!model.interrupts());
    // Another's interrupt, on the same line.
    model.cause(1 << 2);
    assert!(!model.interrupts() && !card.interrupts.take());
}

proptest! {
    /// A card that writes anything into its rings, at any time.
    #[test]
    fn a_broken_card_does_no_harm(
        steps in proptest::collection::vec((0_u8..4, any::<u16>(), any::<u64>()), 1..300),
    ) {
        let (model, mut card) = card();
        model.is_quick.set(false);
        let mut put = 0;
        for (kind, place, word) in steps {
            match kind {
                0 => model.memory.write64(usize::from(place) * 16 % (2 * RING_BYTES) + 8, word),
                1 => if let Some(found) = card.receive.look() {
                    if let Ok(received) = found {
                        prop_assert!(received.buffer < RING);
                        prop_assert!((14..=BUFFER).contains(&received.len.into()));
                    }
                    card.receive.give_back();
                },
                2 => if card.transmit.room() > 0 {
                    prop_assert!(card.transmit.buffer() < RING);
                    card.transmit.put(usize::from(place));
                    put += 1;
                },
                _ => {
                    card.transmit.publish();
                    card.receive.publish();
                }
            }
            prop_assert!(card.transmit.room() < RING);
            prop_assert!(card.transmit.room() >= 255_u16.saturating_sub(put));
        }
        // Each descriptor that is the card's names a buffer inside.
        for at in (0..2 * RING_BYTES).step_by(16) {
            let address = model.memory.read64(at);
            let is_inside = (BASE..BASE + SIZE as u64).contains(&address);
            prop_assert!(is_inside || at >= RING_BYTES);
        }
        prop_assert_eq!(card.found.address, OWN);
    }
}
