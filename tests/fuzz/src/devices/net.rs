//! The front end of a network interface, and what its guest must hear.
#![expect(
    clippy::cast_possible_truncation,
    reason = "small numbers of the test's own"
)]

use std::collections::VecDeque;

use abi::PAGE_SIZE;
use abi::netif::{RxRequest, RxResponse, TxRequest, TxResponse, status, tx_flags};
use abi::ring::{ENTRIES, REQ_PROD, RSP_PROD};
use calls::Choice;
use zerocopy::FromZeros;

use super::disk::FOREIGN;
use super::front::{Front, Rights, address};
use crate::Input;

const TX: u64 = 0x22;
const TX_GREF: u32 = 41;
const RX: u64 = 0x23;
const RX_GREF: u32 = 42;
/// Pages for what comes, and their grants; each is for one frame.
const IN: u64 = 0x58;
const IN_GREF: u32 = 50;
const IN_COUNT: u16 = 8;
/// The page that frames are sent from, and its grant.
const OUT: u64 = 0x50;
const OUT_GREF: u32 = 60;
const NOT_GRANTED: u32 = 39;
/// Entries of either ring.
const SLOTS: u32 = 256;
/// Bytes of the longest frame that is sent, and of the shortest that is one.
const LONGEST: u32 = 1514;
const SHORTEST: usize = 14;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Nobody's.
const UNKNOWN: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// The front end, and what must be so.
#[derive(Debug)]
pub(super) struct Net {
    mac: [u8; 6],
    port: Option<u32>,
    sent: u32,
    offered: u32,
    received: u32,
    /// As of a disk's front end.
    fair: bool,
    /// Pages that wait to be filled.
    waiting: VecDeque<u16>,
    /// Pages that can be offered.
    idle: Vec<u16>,
}

/// A frame and how it is sent.
struct Sending {
    bytes: Vec<u8>,
    slots: Vec<TxRequest>,
    status: i16,
    /// For whoever else there is.
    heard: bool,
}

impl Net {
    pub(super) fn new(front: &Front<'_>, mac: [u8; 6]) -> Self {
        for (gref, page) in (IN_GREF..).zip(IN..).take(IN_COUNT.into()) {
            front.grant(gref, page, Rights::Write);
        }
        front.grant(OUT_GREF, OUT, Rights::Read);
        front.grant(TX_GREF, TX, Rights::Write);
        front.grant(RX_GREF, RX, Rights::Write);
        Self {
            mac,
            port: None,
            sent: 0,
            offered: 0,
            received: 0,
            fair: false,
            waiting: VecDeque::new(),
            idle: Vec::new(),
        }
    }

    /// The number of this guest's extra address, which it alone uses.
    fn extra(&self, number: u8) -> [u8; 6] {
        let [.., last] = self.mac;
        [2, 0, 0, 1, last, number]
    }

    pub(super) fn step(
        &mut self,
        other: &mut Self,
        input: &mut Input<'_>,
        fronts: [&Front<'_>; 2],
    ) {
        let [front, _] = fronts;
        match input.below(32) {
            0..2 => self.connect(front),
            2 => self.part(input, front),
            3 => self.mislead(input, front),
            4 => self.scribble(input, front),
            5..14 => self.offer(input, front),
            _ => self.send(other, input, fronts),
        }
    }

    fn key(name: &str) -> String {
        format!("device/vif/0/{name}")
    }

    fn connect(&mut self, front: &Front<'_>) {
        front.say(&Self::key("state"), 6);
        front.say(&Self::key("state"), 1);
        assert_eq!(front.state_of_back("vif", 0), 2, "the back end waits");
        if let Some(port) = self.port.take() {
            front.close_port(port);
        }
        let port = front.new_port();
        for ring in [TX, RX] {
            front.write(address(ring), &[0_u8; ENTRIES]);
        }
        for key in ["event-channel-tx", "event-channel-rx"] {
            front.forget(&Self::key(key));
        }
        front.say(&Self::key("tx-ring-ref"), TX_GREF);
        front.say(&Self::key("rx-ring-ref"), RX_GREF);
        front.say(&Self::key("event-channel"), port);
        front.say(&Self::key("request-rx-copy"), 1);
        front.say(&Self::key("state"), 4);
        assert_eq!(front.state_of_back("vif", 0), 4, "it has connected");
        *self = Self {
            port: Some(port),
            fair: true,
            idle: (0..IN_COUNT).collect(),
            ..Self::new(front, self.mac)
        };
    }

    fn part(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        self.fair = false;
        front.say(&Self::key("state"), input.below(10));
    }

    fn mislead(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        const KEYS: [&str; 6] = [
            "tx-ring-ref",
            "rx-ring-ref",
            "event-channel",
            "event-channel-rx",
            "request-rx-copy",
            "feature-sg",
        ];
        match KEYS.get(input.index(KEYS.len() + 1)) {
            Some(key) => front.say(&Self::key(key), input.below(FOREIGN.start)),
            None => {
                self.fair = false;
                if let Some(port) = self.port.take() {
                    front.close_port(port);
                }
            }
        }
    }

    /// Writes anything into a ring, and has the back end look.
    fn scribble(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        self.fair = false;
        let ring = if input.flip() { TX } else { RX };
        let (at, word) = if input.flip() {
            (input.below(4) * 4, self.sent.wrapping_add(input.below(600)))
        } else {
            (
                input.below(1024) * 4,
                input.below(FOREIGN.start) << (16 * input.below(2)),
            )
        };
        front.write(address(ring) + u64::from(at), &word);
        if let Some(port) = self.port {
            front.send(port);
        }
    }

    /// Offers a page for what comes.
    fn offer(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        if self.idle.is_empty() {
            return;
        }
        let page = self.idle.swap_remove(input.index(self.idle.len()));
        let request = RxRequest {
            id: page,
            pad: 0,
            gref: IN_GREF + u32::from(page),
        };
        let at = ENTRIES as u32 + self.offered % SLOTS * size_of::<RxRequest>() as u32;
        front.write(address(RX) + u64::from(at), &request);
        self.offered = self.offered.wrapping_add(1);
        front.write(address(RX) + REQ_PROD as u64, &self.offered);
        self.waiting.push_back(page);
    }

    fn send(&mut self, other: &mut Self, input: &mut Input<'_>, [front, hearer]: [&Front<'_>; 2]) {
        let Some(port) = self.port else { return };
        let sending = self.frame(other, input);
        let offset = sending.slots.first().map_or(0, |slot| slot.offset);
        front.write(address(OUT) + u64::from(offset), &sending.bytes[..]);
        let first = self.sent;
        for slot in &sending.slots {
            let at = ENTRIES as u32 + self.sent % SLOTS * size_of::<TxRequest>() as u32;
            front.write(address(TX) + u64::from(at), slot);
            self.sent = self.sent.wrapping_add(1);
        }
        front.write(address(TX) + REQ_PROD as u64, &self.sent);
        front.send(port);
        if self.fair {
            let answered: u32 = front.read(address(TX) + RSP_PROD as u64);
            assert_eq!(answered, self.sent, "every slot is answered");
            for (index, slot) in (first..).zip(&sending.slots) {
                let at = ENTRIES as u32 + index % SLOTS * size_of::<TxRequest>() as u32;
                let response: TxResponse = front.read(address(TX) + u64::from(at));
                let answer = (response.id, response.status);
                assert_eq!(answer, (slot.id, sending.status), "{slot:?}");
            }
            self.hear(None, front);
            other.hear(sending.heard.then_some(&sending.bytes[..]), hearer);
        }
    }

    fn frame(&self, other: &Self, input: &mut Input<'_>) -> Sending {
        let destination = match input.below(8) {
            0 => BROADCAST,
            1 => UNKNOWN,
            2 => self.mac,
            3 => other.extra(0),
            _ => other.mac,
        };
        let (source, allowed) = match input.below(8) {
            0 => (self.extra(0), true),
            1 => (self.extra(1), true),
            2 => (BROADCAST, false),
            _ => (self.mac, true),
        };
        let length = match input.below(16) {
            0 => input.below(SHORTEST as u32),
            _ => SHORTEST as u32 + input.below(LONGEST - SHORTEST as u32 + 1),
        } as usize;
        let mut bytes = [&destination[..], &source].concat();
        bytes.extend(self.sent.to_le_bytes());
        bytes.resize(length, input.bytes::<1>()[0]);
        let offset = input.below((PAGE_SIZE - length) as u32 + 1) as u16;
        let gref = if input.below(16) == 0 {
            NOT_GRANTED
        } else {
            OUT_GREF
        };
        let slots = slots(input, gref, offset, length as u16);
        let good = length >= SHORTEST && gref == OUT_GREF;
        let status = match (good, allowed) {
            (false, _) => status::ERROR,
            (true, false) => status::DROPPED,
            (true, true) => status::OKAY,
        };
        Sending {
            heard: status == status::OKAY && destination != self.mac,
            bytes,
            slots,
            status,
        }
    }

    /// What must have come: this frame, if there is a page for it, or nothing.
    fn hear(&mut self, frame: Option<&[u8]>, front: &Front<'_>) {
        if !self.fair {
            return;
        }
        let page = frame.and_then(|_| self.waiting.pop_front());
        let came: u32 = front.read(address(RX) + RSP_PROD as u64);
        let wanted = self.received + u32::from(page.is_some());
        assert_eq!(came, wanted, "a frame for each page");
        if let Some((page, frame)) = page.zip(frame) {
            let at = ENTRIES as u32 + self.received % SLOTS * size_of::<RxResponse>() as u32;
            let response: RxResponse = front.read(address(RX) + u64::from(at));
            let mut bytes = vec![0; frame.len()];
            let at = address(IN + u64::from(page)) + u64::from(response.offset);
            assert!(front.guest.read(at, &mut bytes));
            assert_eq!((response.id, response.flags), (page, 0));
            assert_eq!(usize::try_from(response.status), Ok(frame.len()));
            assert_eq!(bytes, frame, "what was sent");
            self.idle.push(page);
        }
        self.received = came;
    }

    /// Takes whatever came, from one who keeps to no rules.
    pub(super) fn settle(&mut self, front: &Front<'_>) {
        if !self.fair {
            return;
        }
        let came: u32 = front.read(address(RX) + RSP_PROD as u64);
        let new = came.wrapping_sub(self.received) as usize;
        assert!(new <= self.waiting.len(), "no more than there were pages");
        self.idle.extend(self.waiting.drain(..new));
        self.received = came;
    }
}

/// A frame in one slot or, in two, its beginning and its end.
fn slots(input: &mut Input<'_>, gref: u32, offset: u16, length: u16) -> Vec<TxRequest> {
    let mut first = TxRequest::new_zeroed();
    first.gref = gref;
    first.offset = offset;
    first.id = u16::from_le_bytes(input.bytes());
    first.size = length;
    if length < 2 || input.flip() {
        return vec![first];
    }
    let rest = 1 + u16::try_from(input.below(u32::from(length) - 1)).expect("a short frame");
    let second = TxRequest {
        offset: offset + (length - rest),
        flags: 0,
        id: first.id.wrapping_add(1),
        size: rest,
        ..first
    };
    first.flags = tx_flags::MORE_DATA;
    vec![first, second]
}
