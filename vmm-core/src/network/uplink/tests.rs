//! Frames through an uplink whose card is a model.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "tests choose their own numbers"
)]

extern crate std;
use std::boxed::Box;
use std::collections::VecDeque;
use std::string::ToString as _;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use abi::netif::{ExtraInfo, TxRequest, extra, tx_flags};
use abi::{DomId, GrantRef};
use pv_drivers::grants::Grants;
use pv_drivers::net::{Taken, Tx};
use pv_drivers::ring::{Front, Memory};
use pv_drivers::shared_page::SharedPage;
use system::network::{Action, MacAddr, NetworkConfig, Nic, PciAddress, Rate, Rule, UplinkConfig};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::mm::page::PageRef;
use crate::mm::testing;
use crate::network::{
    Arrived, Buffer, Halves, Member, Network, NetworkCard, Receive, Transmit, assign,
};

#[derive(Debug, Default)]
struct State {
    /// Frames put in and not sent, and sent.
    put: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    room: usize,
    /// Frames that came in; broken ones are empty.
    came: VecDeque<Vec<u8>>,
    given_back: usize,
    is_armed: bool,
}

/// A card with one buffer for each direction.
#[derive(Debug)]
struct Model {
    state: Arc<Mutex<State>>,
    page: PageRef,
}

/// Where its buffers are.
const OFFSET: u16 = 2048;

impl Transmit for Model {
    fn room(&mut self) -> usize {
        self.state.lock().unwrap().room
    }

    fn buffer(&self) -> Option<Buffer<'_>> {
        let page = &self.page;
        let offset = OFFSET;
        Some(Buffer { page, offset })
    }

    fn put(&mut self, len: usize) {
        let mut frame = std::vec![0; len];
        self.page.read(OFFSET.into(), &mut frame);
        // What was in the buffer before is never sent.
        self.page.write(OFFSET.into(), &[0xee; 2048]);
        let mut state = self.state.lock().unwrap();
        state.put.push(frame);
        state.room -= 1;
    }

    fn publish(&mut self) {
        let State { put, sent, .. } = &mut *self.state.lock().unwrap();
        sent.append(put);
    }
}

impl Receive for Model {
    fn look(&mut self) -> Option<Arrived<'_>> {
        let state = self.state.lock().unwrap();
        let frame = state.came.front()?;
        if frame.is_empty() {
            return Some(Arrived::Broken);
        }
        self.page.write(OFFSET.into(), frame);
        let (page, offset) = (&*self.page, OFFSET);
        let len = u16::try_from(frame.len()).unwrap();
        Some(Arrived::Frame(Buffer { page, offset }, len))
    }

    fn give_back(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.came.pop_front().unwrap();
        state.given_back += 1;
    }

    fn publish(&mut self) {}

    fn rearm(&mut self) {
        let mut state = self.state.lock().unwrap();
        assert!(state.came.is_empty());
        state.is_armed = true;
    }

    fn missed(&mut self) -> u64 {
        3
    }
}

#[derive(Debug)]
struct Card {
    number: u8,
    state: Option<Arc<Mutex<State>>>,
}

impl NetworkCard for Card {
    fn place(&self) -> PciAddress {
        PciAddress {
            segment: 0,
            bus: 0,
            device: self.number,
            function: 0,
        }
    }

    fn address(&self) -> MacAddr {
        MacAddr([0x52, 0x54, 0, 0, 0, self.number])
    }

    fn start(&self) -> Option<Halves> {
        let half = || {
            Some(Box::new(Model {
                state: Arc::clone(self.state.as_ref()?),
                page: testing::frames(1).remove(0),
            }))
        };
        let (transmit, receive) = (half()?, half()?);
        Some(Halves { transmit, receive })
    }
}

/// A network with an uplink, and two interfaces on it.
struct Bench {
    state: Arc<Mutex<State>>,
    network: Network,
    heard: Vec<(u16, Vec<u8>)>,
}

const OUTSIDE: MacAddr = MacAddr([4, 0, 0, 0, 0, 1]);

const fn mac(device: u16) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, device.to_le_bytes()[0]])
}

impl Bench {
    fn new(change: impl FnOnce(&mut UplinkConfig)) -> Self {
        testing::init();
        let state = Arc::new(Mutex::new(State::default()));
        state.lock().unwrap().room = 100;
        let card = Card {
            number: 1,
            state: Some(Arc::clone(&state)),
        };
        let mut uplink = UplinkConfig::new(Nic::First);
        change(&mut uplink);
        let config = NetworkConfig {
            uplink: Some(uplink),
            ..NetworkConfig::new("lan".into())
        };
        let network = Network::new(&config, Some(&card));
        network.uplink().unwrap().start();
        for device in [1, 2] {
            let domain = DomId(7);
            let member = Member { domain, device };
            network.attach(mac(device), 0, member).unwrap();
        }
        assert!(core::mem::take(&mut state.lock().unwrap().is_armed));
        Self {
            state,
            network,
            heard: Vec::new(),
        }
    }

    fn comes(&self, frame: &[u8]) {
        self.state.lock().unwrap().came.push_back(frame.to_vec());
    }

    /// One go.
    fn serve(&mut self) -> bool {
        let uplink = self.network.uplink().unwrap();
        uplink.serve(&self.network, |frame, page, member| {
            let target = testing::frames(1).remove(0);
            frame.copy_range(0..frame.len(), &target, 0, page).unwrap();
            let mut bytes = std::vec![0; frame.len()];
            target.read(0, &mut bytes);
            self.heard.push((member.device, bytes));
            true
        })
    }

    fn counters(&self) -> [std::string::String; 2] {
        let uplink = self.network.uplink().unwrap();
        let sent = uplink.sending.lock().counters.to_string();
        [sent, uplink.receiving.lock().counters().to_string()]
    }
}

/// A guest that sends from one page after the other, all granted.
struct Guest(Vec<PageRef>);

impl Grants for Guest {
    fn with_page<R>(
        &self,
        gref: GrantRef,
        _: bool,
        act: impl FnOnce(&SharedPage) -> R,
    ) -> Option<R> {
        self.0.get(gref.0 as usize).map(|page| act(page))
    }
}

/// Has a guest send bytes through its ring, and the uplink send them outside; how many frames.
fn send(bench: &Bench, bytes: &[u8], flags: u16, gso: Option<u16>) -> usize {
    let pages = testing::frames(bytes.len().div_ceil(4096));
    let ring = testing::frames(1).remove(0);
    let mut front = Front::new(Memory::new([ring.clone()], 12).unwrap());
    let mut tx = Tx::attach(ring).unwrap();
    for (number, (page, piece)) in pages.iter().zip(bytes.chunks(4096)).enumerate() {
        page.write(0, piece);
        let first = number == 0;
        let more = number + 1 < pages.len();
        let with_gso = first && gso.is_some();
        let request = TxRequest {
            gref: u32::try_from(number).unwrap(),
            offset: 0,
            flags: (u16::from(more) * tx_flags::MORE_DATA)
                | (u16::from(with_gso) * tx_flags::EXTRA_INFO)
                | (u16::from(first) * flags),
            id: 0,
            size: u16::try_from(if first { bytes.len() } else { piece.len() }).unwrap(),
        };
        assert!(front.push(request.as_bytes()));
        if let Some(size) = gso.filter(|_| first) {
            let [low, high] = size.to_le_bytes();
            let info = ExtraInfo {
                kind: extra::GSO,
                flags: 0,
                data: [low, high, extra::GSO_TCPV4, 0, 0, 0],
            };
            let mut slot = TxRequest::new_zeroed();
            slot.as_mut_bytes()[..8].copy_from_slice(info.as_bytes());
            assert!(front.push(slot.as_bytes()));
        }
    }
    let _ = front.publish();
    let guest = Guest(pages);
    assert_eq!(tx.take(&guest), Ok(Some(Taken::Frame)));
    let count = bench.network.uplink().unwrap().send(tx.frame(), &guest);
    bench.network.uplink().unwrap().publish();
    count
}

fn ethernet(source: MacAddr, destination: MacAddr, kind: [u8; 2], content: &[u8]) -> Vec<u8> {
    [&destination.0, &source.0, &kind[..], content].concat()
}

/// A TCP packet in a frame to the outside.
fn tcp(payload: usize) -> Vec<u8> {
    let mut packet = std::vec![
        0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2
    ];
    let total = u16::try_from(40 + payload).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[1, 2, 0, 80]);
    header[12..14].copy_from_slice(&[0x50, 0x18]);
    packet.extend_from_slice(&header);
    packet.extend((0_u8..251).cycle().take(payload));
    ethernet(mac(1), OUTSIDE, [8, 0], &packet)
}

fn sum(parts: &[&[u8]]) -> u32 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let words = pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    words.fold(0, |sum, word| (sum + word) % 0xffff)
}

#[test]
fn a_frame_goes_out_as_it_is() {
    let bench = Bench::new(|_| ());
    let frame = ethernet(mac(1), OUTSIDE, [8, 6], &[7; 100]);
    assert_eq!(send(&bench, &frame, 0, None), 1);
    // A short one is filled up with zeros.
    let short = ethernet(mac(1), OUTSIDE, [8, 6], &[7; 20]);
    assert_eq!(send(&bench, &short, 0, None), 1);
    let sent = &bench.state.lock().unwrap().sent;
    assert_eq!(sent[0], frame);
    assert_eq!(sent[1], [&short[..], &[0; 26]].concat());
    assert_eq!(bench.counters()[0], "frames=2 bytes=174");
}

#[test]
fn what_guests_leave_to_each_other_is_done() {
    let bench = Bench::new(|_| ());
    assert_eq!(send(&bench, &tcp(1001), tx_flags::CSUM_BLANK, None), 1);
    assert_eq!(
        send(&bench, &tcp(60_000), tx_flags::CSUM_BLANK, Some(1400)),
        43
    );
    let sent = &bench.state.lock().unwrap().sent;
    assert_eq!(sent.len(), 44);
    let mut payload = Vec::new();
    for (number, frame) in sent.iter().enumerate() {
        let packet = &frame[14..];
        let length = u16::try_from(packet.len() - 20).unwrap().to_be_bytes();
        let covered = [&packet[12..20], &[0, 6], &length, &packet[20..]];
        assert_eq!(sum(&covered), 0, "{number}");
        if number > 0 {
            assert_eq!(sum(&[&packet[..20]]), 0);
            payload.extend_from_slice(&packet[40..]);
        }
    }
    assert!(payload == tcp(60_000)[54..]);
}

#[test]
fn what_no_cable_takes_stays() {
    let bench = Bench::new(|_| ());
    let long = ethernet(mac(1), OUTSIDE, [8, 6], &[7; 1501]);
    assert_eq!(send(&bench, &long, 0, None), 0);
    let tagged = ethernet(mac(1), OUTSIDE, [0x81, 0], &[7; 1504]);
    assert_eq!(send(&bench, &tagged, 0, None), 1);
    assert_eq!(send(&bench, &tcp(5000), 0, Some(1461)), 0);
    // More segments than there is room for, and what cannot be cut or has no checksum.
    assert_eq!(send(&bench, &tcp(5000), 0, Some(1)), 0);
    assert_eq!(send(&bench, &tagged, 0, Some(100)), 0);
    assert_eq!(send(&bench, &tagged, tx_flags::CSUM_BLANK, None), 0);
    assert_eq!(
        bench.counters()[0],
        "frames=1 bytes=1518 malformed=2 no_room=1 not_offered=2"
    );
}

#[test]
fn rules_and_rate_hold_at_the_uplink() {
    let bench = Bench::new(|config| {
        config.rate = Some(Rate {
            bytes_per_second: 1000,
            burst: 1 << 16,
        });
        config.rules = std::vec![Rule {
            action: Action::Deny,
            ethertype: Some(0x0806),
            ..Rule::default()
        }];
    });
    let denied = ethernet(mac(1), OUTSIDE, [8, 6], &[7; 100]);
    assert_eq!(send(&bench, &denied, 0, None), 0);
    assert_eq!(send(&bench, &tcp(60_000), 0, Some(1400)), 43);
    assert_eq!(send(&bench, &tcp(60_000), 0, Some(1400)), 0);
    let counted = &bench.counters()[0];
    assert!(counted.ends_with(" filtered=1 limited=1"), "{counted}");
}

#[test]
fn what_comes_in_goes_to_whom_it_is_for() {
    let mut bench = Bench::new(|_| ());
    let to = |destination| ethernet(OUTSIDE, destination, [8, 0x99], &[5; 50]);
    let (own, all) = (to(mac(2)), to(MacAddr::BROADCAST));
    let other = to(MacAddr([4, 0, 0, 0, 0, 9]));
    let back = ethernet(mac(1), MacAddr::BROADCAST, [8, 0x99], &[5; 50]);
    for frame in [&own, &all, &other, &back, &Vec::new()] {
        bench.comes(frame);
    }
    assert!(!bench.serve());
    assert_eq!(bench.heard, [(2, own), (1, all.clone()), (2, all)]);
    assert!(bench.state.lock().unwrap().is_armed);
    assert_eq!(bench.state.lock().unwrap().given_back, 5);
    assert_eq!(
        bench.counters()[1],
        "frames=2 bytes=128 malformed=1 spoofed=1 unreachable=1 no_room=3"
    );
}

#[test]
fn a_flood_goes_in_shares_and_every_copy_once() {
    let mut bench = Bench::new(|_| ());
    for number in 0..100 {
        let content = [number; 50];
        bench.comes(&ethernet(OUTSIDE, MacAddr::BROADCAST, [8, 0x99], &content));
    }
    let mut goes = 1;
    while bench.serve() {
        assert!(!bench.state.lock().unwrap().is_armed && bench.heard.len() <= 64 * goes);
        goes += 1;
    }
    let wanted = (0..100).flat_map(|number| [(1, number), (2, number)]);
    let heard = bench
        .heard
        .iter()
        .map(|(device, bytes)| (*device, bytes[20]));
    assert!(heard.eq(wanted) && goes >= 4);
}

#[test]
fn each_network_gets_the_card_it_names() {
    let card = |number| Card {
        number,
        state: None,
    };
    let cards: &'static [Card] = Vec::from([1, 2, 3].map(card)).leak();
    let cards: Vec<&dyn NetworkCard> = cards.iter().map(|card| card as _).collect();
    let got = |names: &[&str]| {
        let network = |name: &&str| NetworkConfig {
            uplink: Nic::parse(name).map(UplinkConfig::new),
            ..NetworkConfig::new((*name).into())
        };
        let networks: Vec<_> = names.iter().map(network).collect();
        let assigned = assign::assign(&networks, &cards).into_iter();
        let devices = assigned.map(|card| card.map(|card| card.place().device));
        devices.collect::<Vec<_>>()
    };
    assert_eq!(got(&["first", "none"]), [Some(1), None]);
    assert_eq!(
        got(&["first", "00:01.0", "52:54:00:00:00:02"]),
        [Some(3), Some(1), Some(2)]
    );
    assert_eq!(got(&["00:02.0", "52:54:00:00:00:02"]), [Some(2), None]);
    assert_eq!(got(&["00:04.0", "first"]), [None, Some(1)]);
    let taken = ["00:01.0", "00:02.0", "00:03.0", "first"];
    assert_eq!(got(&taken), [Some(1), Some(2), Some(3), None]);
}
