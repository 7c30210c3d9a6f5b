//! Frames from one front end to another, and from one that keeps to nothing.

extern crate std;
use std::boxed::Box;
use std::vec::Vec;

use abi::netif::{
    ExtraInfo, RxRequest, RxResponse, TxRequest, TxResponse, extra, rx_flags, status, tx_flags,
};
use abi::{GrantRef, PAGE_SIZE};
use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::{Frame, Gso, MAX_FRAME, MIN_FRAME, Offers, Rx, Taken, Tx, Undelivered, Unusable};
use crate::grants::Grants;
use crate::ring::{Front, Memory};
use crate::shared_page::SharedPage;
use crate::test_page::TestPage;

/// Pages of a front end. The last one is granted for reading only; what lies behind is not.
struct Guest(Vec<TestPage>);

impl Guest {
    fn new(pages: usize) -> Self {
        Self((0..pages).map(|_| TestPage::new()).collect())
    }
}

impl Grants for Guest {
    fn with_page<R>(
        &self,
        gref: GrantRef,
        write: bool,
        act: impl FnOnce(&SharedPage) -> R,
    ) -> Option<R> {
        let index = gref.0 as usize;
        let allowed = !write || index + 1 < self.0.len();
        let page = self.0.get(index).filter(|_| allowed)?;
        Some(act(&page.view()))
    }
}

const ALL: Offers = Offers {
    scatter_gather: true,
    gso_ipv4: true,
    gso_ipv6: true,
    blank_checksums: true,
    blank_checksums_ipv6: true,
};

type View = Box<SharedPage>;

/// A sender and a receiver with their rings.
struct Bench {
    _pages: [TestPage; 2],
    sends: Front<View>,
    tx: Tx<View>,
    sender: Guest,
    receives: Front<View>,
    rx: Rx<View>,
    receiver: Guest,
}

impl Bench {
    fn new(offers: Offers) -> Self {
        let pages = [TestPage::new(), TestPage::new()];
        let [to, from] = [0, 1].map(|ring: usize| Box::new(pages[ring].view()));
        Self {
            sends: Front::new(Memory::new([to.clone()], 12).unwrap()),
            tx: Tx::attach(to).unwrap(),
            sender: Guest::new(20),
            receives: Front::new(Memory::new([from.clone()], 8).unwrap()),
            rx: Rx::attach(from, offers).unwrap(),
            receiver: Guest::new(40),
            _pages: pages,
        }
    }

    fn push(&mut self, request: TxRequest) {
        assert!(self.sends.push(request.as_bytes()));
    }

    /// Puts bytes into the sender's pages, as they are cut, and into the ring with these flags.
    fn send(&mut self, bytes: &[u8], cuts: &[usize], flags: u16, extras: &[ExtraInfo]) {
        let mut at = 0;
        let ends = cuts.iter().copied().chain([bytes.len()]);
        let pieces: Vec<_> = ends
            .map(|end| (core::mem::replace(&mut at, end), end))
            .collect();
        for (page, &(from, to)) in pieces.iter().enumerate() {
            let offset = (page * 7 + 2).min(PAGE_SIZE - (to - from));
            self.sender.0[page].view().write(offset, &bytes[from..to]);
            let size = if page == 0 { bytes.len() } else { to - from };
            let mut own = if page == 0 { flags } else { 0 };
            own |= u16::from(page + 1 < pieces.len()) * tx_flags::MORE_DATA;
            own |= u16::from(page == 0 && !extras.is_empty()) * tx_flags::EXTRA_INFO;
            self.push(TxRequest {
                gref: u32::try_from(page).unwrap(),
                offset: u16::try_from(offset).unwrap(),
                flags: own,
                id: 100 + u16::try_from(page).unwrap(),
                size: u16::try_from(size).unwrap(),
            });
            for info in extras.iter().filter(|_| page == 0) {
                let mut slot = TxRequest::new_zeroed();
                slot.as_mut_bytes()[..8].copy_from_slice(info.as_bytes());
                self.push(slot);
            }
        }
        let _ = self.sends.publish();
    }

    fn take(&mut self) -> Taken {
        self.tx.take(&self.sender).unwrap().unwrap()
    }

    fn take_frame(&mut self) {
        assert_eq!(self.take(), Taken::Frame);
    }

    /// Gives the back end pages from `first` on.
    fn give(&mut self, first: u16, count: u16) {
        for id in first..first + count {
            let gref = id.into();
            let request = RxRequest { id, pad: 0, gref };
            assert!(self.receives.push(request.as_bytes()));
        }
        let _ = self.receives.publish();
    }

    /// Delivers the frame that was taken last.
    fn deliver(&mut self) -> Result<(), Undelivered> {
        let frame = self.tx.frame_mut();
        let result = self.rx.deliver(frame, &self.sender, &self.receiver);
        let _ = self.rx.publish();
        result
    }

    fn response(&mut self) -> Option<RxResponse> {
        let mut response = RxResponse::new_zeroed();
        let there = self.receives.take(response.as_mut_bytes()).unwrap();
        there.then_some(response)
    }

    /// What a front end makes of the responses: bytes, flags of the first, segmentation.
    fn receive(&mut self) -> (Vec<u8>, u16, Option<ExtraInfo>) {
        let mut response = self.response().unwrap();
        let first = response.flags;
        let extra = (first & rx_flags::EXTRA_INFO != 0).then(|| {
            let slot = self.response().unwrap();
            ExtraInfo::read_from_bytes(slot.as_bytes()).unwrap()
        });
        let mut bytes = Vec::new();
        loop {
            let mut piece = std::vec![0; usize::try_from(response.status).unwrap()];
            let page = &self.receiver.0[usize::from(response.id)];
            page.view().read(response.offset.into(), &mut piece);
            bytes.append(&mut piece);
            if response.flags & rx_flags::MORE_DATA == 0 {
                break;
            }
            response = self.response().unwrap();
        }
        let others = rx_flags::MORE_DATA | rx_flags::EXTRA_INFO;
        (bytes, first & !others, extra)
    }

    fn answers(&mut self) -> Vec<(u16, i16)> {
        let _ = self.tx.publish();
        let mut answers = Vec::new();
        let mut answer = TxResponse::new_zeroed();
        while self.sends.take(answer.as_mut_bytes()).unwrap() {
            answers.push((answer.id, answer.status));
        }
        answers
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 + at / 251).to_le_bytes()[0])
        .collect()
}

const GSO: ExtraInfo = ExtraInfo {
    kind: extra::GSO,
    flags: 0,
    data: [0xb4, 5, extra::GSO_TCPV4, 0, 0, 0],
};

#[test]
fn what_is_left_to_others_is_passed_on() {
    let mut bench = Bench::new(ALL);
    bench.give(0, 20);
    let sent = bytes(9000);
    bench.send(&sent, &[66, 4100, 5000], tx_flags::CSUM_BLANK, &[GSO]);
    bench.take_frame();
    let frame = bench.tx.frame();
    assert_eq!((frame.len(), frame.head()), (9000, &sent[..128]));
    bench.deliver().unwrap();
    let (received, flags, gso) = bench.receive();
    assert_eq!(received, sent);
    assert_eq!(flags, rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED);
    let gso = gso.unwrap();
    assert_eq!((gso.kind, gso.flags, gso.data), (GSO.kind, 0, GSO.data));
    bench.tx.answer(status::OKAY);
    let answers = bench.answers();
    assert_eq!(answers[..4], [(100, 0), (101, 0), (102, 0), (103, 0)]);
    assert_eq!(answers[4..], [(0, status::NULL)]);
    // A frame that needs nothing of this.
    bench.send(&sent[..60], &[], tx_flags::DATA_VALIDATED, &[]);
    bench.take_frame();
    bench.deliver().unwrap();
    let (received, flags, gso) = bench.receive();
    assert_eq!(
        (&received[..], flags),
        (&sent[..60], rx_flags::DATA_VALIDATED)
    );
    assert!(gso.is_none());
}

#[test]
fn the_head_that_was_looked_at_is_delivered() {
    let mut bench = Bench::new(ALL);
    bench.give(0, 2);
    let sent = bytes(300);
    bench.send(&sent, &[100], 0, &[]);
    bench.take_frame();
    let changed = [0xee; PAGE_SIZE];
    for page in &bench.sender.0 {
        page.view().write(0, &changed);
    }
    bench.deliver().unwrap();
    let (received, ..) = bench.receive();
    assert_eq!(received[..128], sent[..128]);
    assert_eq!(received[128..], changed[..172]);
}

#[test]
fn a_receiver_gets_what_it_takes_and_has_room_for() {
    let sent = bytes(5000);
    let mut bench = Bench::new(ALL);
    bench.send(&sent, &[2000], 0, &[]);
    bench.take_frame();
    bench.give(0, 1);
    assert_eq!(bench.deliver(), Err(Undelivered::NoRoom));
    bench.give(1, 1);
    assert_eq!(bench.deliver(), Ok(()));
    assert_eq!(bench.receive().0, sent);
    let lacks = [
        Offers {
            scatter_gather: false,
            ..ALL
        },
        Offers {
            gso_ipv4: false,
            ..ALL
        },
        Offers {
            blank_checksums: false,
            ..ALL
        },
    ];
    for offers in lacks {
        let mut bench = Bench::new(offers);
        bench.give(0, 9);
        bench.send(&sent, &[2000], tx_flags::CSUM_BLANK, &[GSO]);
        bench.take_frame();
        assert_eq!(bench.deliver(), Err(Undelivered::NotOffered));
        assert!(bench.response().is_none());
    }
}

/// The folded sum of 16-bit words, the last one filled up with a zero.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| {
        let low = word.get(1).copied().unwrap_or(0);
        u32::from(word[0]) << 8 | u32::from(low)
    });
    words.fold(0, |sum, word| (sum + word) % 0xffff)
}

/// A frame of TCP over IPv6 or IPv4 with `payload` bytes, whose checksum is blank; the bytes of the
/// pseudo header, and where the transport's begin.
fn blank(ipv6: bool, payload: usize) -> (Vec<u8>, Vec<u8>, usize) {
    let mut frame = std::vec![0x11; 12];
    let len = u16::try_from(20 + payload).unwrap();
    let addresses = bytes(32);
    let mut pseudo = if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([6, 64]);
        frame.extend(&addresses);
        addresses
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + len).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend(&addresses[..8]);
        addresses[..8].to_vec()
    };
    pseudo.extend([0, 6]);
    pseudo.extend(len.to_be_bytes());
    let start = frame.len();
    frame.extend(bytes(20 + payload));
    let field = u16::try_from(sum(&pseudo)).unwrap();
    frame[start + 16..start + 18].copy_from_slice(&field.to_be_bytes());
    // What Ethernet fills a short frame up with is no part of it.
    frame.extend([0x99, 0x77]);
    (frame, pseudo, start)
}

#[test]
fn a_blank_checksum_is_filled_in_for_who_does_not_take_it() {
    let none = Offers {
        blank_checksums: false,
        blank_checksums_ipv6: false,
        ..ALL
    };
    let only_ipv4 = Offers {
        blank_checksums: true,
        ..none
    };
    for (offers, ipv6, fills) in [
        (none, false, true),
        (none, true, true),
        (only_ipv4, false, false),
        (only_ipv4, true, true),
        (ALL, true, false),
    ] {
        for (payload, cuts) in [(0, &[][..]), (1, &[41]), (1401, &[60, 135, 600])] {
            let (sent, pseudo, start) = blank(ipv6, payload);
            let mut bench = Bench::new(offers);
            bench.give(0, 4);
            bench.send(&sent, cuts, tx_flags::CSUM_BLANK, &[]);
            bench.take_frame();
            bench.deliver().unwrap();
            let (mut received, flags, _) = bench.receive();
            if fills {
                assert_eq!(flags, rx_flags::DATA_VALIDATED);
                let end = received.len() - 2;
                let whole = sum(&pseudo) + sum(&received[start..end]);
                assert_eq!(whole % 0xffff, 0, "{offers:?} {ipv6} {payload}");
                received[start + 16..start + 18].copy_from_slice(&sent[start + 16..start + 18]);
            } else {
                assert_eq!(flags, rx_flags::CSUM_BLANK | rx_flags::DATA_VALIDATED);
            }
            assert_eq!(received, sent);
        }
    }
    // What is no TCP has no place for one.
    let mut bench = Bench::new(none);
    bench.give(0, 4);
    bench.send(&bytes(100), &[], tx_flags::CSUM_BLANK, &[]);
    bench.take_frame();
    assert_eq!(bench.deliver(), Err(Undelivered::NotOffered));
}

#[test]
fn pages_that_are_not_granted_cost_the_frame_and_nothing_else() {
    let mut bench = Bench::new(ALL);
    // The second page is for reading only.
    bench.give(38, 3);
    let sent = bytes(8000);
    bench.send(&sent, &[4000], 0, &[]);
    bench.take_frame();
    assert_eq!(bench.deliver(), Err(Undelivered::NotGranted));
    for id in [38, 39] {
        let refused = bench.response().unwrap();
        let seen = (refused.id, refused.flags, refused.status);
        assert_eq!(seen, (id, 0, status::ERROR));
    }
    assert!(bench.response().is_none());
    // The sender's pages go before they are copied.
    bench.give(0, 2);
    bench.send(&sent, &[4000], 0, &[]);
    bench.take_frame();
    bench.sender.0.truncate(1);
    assert_eq!(bench.deliver(), Err(Undelivered::NotGranted));
    // And before they are looked at.
    bench.send(&sent[..200], &[], 0, &[]);
    bench.sender.0.clear();
    assert_eq!(bench.take(), Taken::Nothing);
    bench.tx.answer(status::ERROR);
    assert_eq!(bench.answers(), [(100, status::ERROR)]);
}

#[test]
fn a_frame_of_one_piece_is_as_one_that_was_sent() {
    let source = Guest::new(2);
    let sent = bytes(1000);
    source.0[1].view().write(2048, &sent);
    let mut frame = Frame::whole(GrantRef(1), 2048, 1000, &source).unwrap();
    let mut bench = Bench::new(Offers::default());
    bench.give(0, 1);
    assert_eq!(
        bench.rx.deliver(&mut frame, &source, &bench.receiver),
        Ok(())
    );
    let _ = bench.rx.publish();
    let (received, flags, gso) = bench.receive();
    assert!(received == sent && flags == 0 && gso.is_none());
    let none = |gref, offset, len| Frame::whole(GrantRef(gref), offset, len, &source).is_none();
    assert!(none(1, 0, 13) && none(1, 4090, 14) && none(2, 0, 14));
}

#[test]
fn groups_come_without_a_frame() {
    let mut bench = Bench::new(ALL);
    for (kind, wanted) in [(extra::MCAST_ADD, true), (extra::MCAST_DEL, false)] {
        let data = [1, 0, 0x5e, 0, 0, 7];
        let info = ExtraInfo {
            kind,
            flags: 0,
            data,
        };
        bench.send(&[], &[], 0, &[info]);
        let taken = bench.take();
        let (address, join) = (data, wanted);
        assert_eq!(taken, Taken::Group { address, join });
        bench.tx.answer(status::OKAY);
    }
    assert_eq!(bench.answers().len(), 4);
}

#[test]
fn slots_that_make_no_sense_break_the_ring() {
    let request = TxRequest {
        gref: 0,
        offset: 0,
        flags: 0,
        id: 1,
        size: 100,
    };
    let more = |request| TxRequest {
        flags: tx_flags::MORE_DATA,
        ..request
    };
    let sized = |size| TxRequest { size, ..request };
    let too_many: Vec<_> = (0..19).map(|_| more(sized(1))).collect();
    let info = |kind, flags, data| {
        let mut slot = TxRequest::new_zeroed();
        let info = ExtraInfo { kind, flags, data };
        slot.as_mut_bytes()[..8].copy_from_slice(info.as_bytes());
        slot
    };
    let with_extra = TxRequest {
        flags: tx_flags::EXTRA_INFO,
        ..request
    };
    let gso = |size, kind| [size, 0, kind, 0, 0, 0];
    let broken = [
        std::vec![more(request)],
        std::vec![more(request), sized(101)],
        std::vec![sized(4097)],
        std::vec![TxRequest {
            offset: 4000,
            ..request
        }],
        std::vec![
            more(request),
            TxRequest {
                offset: 4095,
                ..sized(2)
            }
        ],
        too_many,
        std::vec![with_extra],
        std::vec![with_extra, info(0, 0, [0; 6])],
        std::vec![with_extra, info(77, 0, [0; 6])],
        std::vec![with_extra, info(extra::GSO, 0, gso(0, 1))],
        std::vec![with_extra, info(extra::GSO, 0, gso(9, 3))],
        std::vec![with_extra, info(extra::GSO, 1, gso(9, 1))],
        core::iter::once(with_extra)
            .chain((0..9).map(|_| info(extra::HASH, 1, [0; 6])))
            .collect(),
    ];
    for (case, requests) in broken.into_iter().enumerate() {
        let mut bench = Bench::new(ALL);
        for request in requests {
            bench.push(request);
        }
        let _ = bench.sends.publish();
        assert!(
            matches!(bench.tx.take(&bench.sender), Err(Unusable::Slot)),
            "case {case}"
        );
    }
    let mut bench = Bench::new(ALL);
    bench.push(sized(13));
    let _ = bench.sends.publish();
    assert!(matches!(bench.take(), Taken::Nothing), "too short");
}

/// Cuts of a frame into pieces that fit pages, at most 18 of them.
fn cuts(len: usize, wanted: &[usize]) -> Vec<usize> {
    let mut cuts: Vec<usize> = wanted.iter().map(|at| at % (len + 1)).collect();
    let mut at = 0;
    while len - at > PAGE_SIZE {
        at += PAGE_SIZE;
        cuts.push(at);
    }
    cuts.sort_unstable();
    cuts.truncate(17);
    cuts
}

fn fits(len: usize, cuts: &[usize]) -> bool {
    let mut at = 0;
    cuts.iter()
        .chain([&len])
        .all(|&end| end - core::mem::replace(&mut at, end) <= PAGE_SIZE)
}

proptest! {
    /// However a frame is cut, its bytes arrive.
    #[test]
    fn bytes_arrive_in_order(
        len in prop_oneof![MIN_FRAME..2000, MIN_FRAME..=MAX_FRAME],
        wanted in proptest::collection::vec(any::<usize>(), 0..5),
        gso in any::<bool>(),
    ) {
        let cuts = cuts(len, &wanted);
        if fits(len, &cuts) {
            let mut bench = Bench::new(ALL);
            bench.give(0, 18);
            let sent = bytes(len);
            bench.send(&sent, &cuts, 0, if gso { &[GSO] } else { &[] });
            bench.take_frame();
            prop_assert_eq!(bench.tx.frame().gso, gso.then_some(Gso { size: 1460, is_ipv6: false }));
            prop_assert_eq!(bench.deliver(), Ok(()));
            let (received, ..) = bench.receive();
            prop_assert!(received == sent);
        }
    }

    /// Whichever part of a frame is asked for, its bytes are copied, and no others.
    #[test]
    fn parts_of_a_frame_are_copied(
        len in MIN_FRAME..9000,
        wanted in proptest::collection::vec(any::<usize>(), 0..5),
        from in any::<usize>(),
        size in any::<usize>(),
        offset in 0_usize..100,
    ) {
        let cuts = cuts(len, &wanted);
        if fits(len, &cuts) {
            let mut bench = Bench::new(ALL);
            let sent = bytes(len);
            bench.send(&sent, &cuts, 0, &[]);
            bench.take_frame();
            let from = from % (len + 1);
            let size = size % (len - from + 1).min(PAGE_SIZE - offset);
            let target = TestPage::new();
            let frame = bench.tx.frame();
            let copied = frame.copy_range(from..from + size, &target.view(), offset, &bench.sender);
            prop_assert_eq!(copied, Some(()));
            let mut page = [0; PAGE_SIZE];
            target.view().read(0, &mut page);
            prop_assert_eq!(&page[offset..offset + size], &sent[from..from + size]);
            let written = page.iter().filter(|byte| **byte != 0).count();
            prop_assert!(written <= size);
            let beyond = frame.copy_range(len..len + 1, &target.view(), 0, &bench.sender);
            prop_assert_eq!(beyond, None);
        }
    }

    /// Whatever is in the slots: what is taken is answered, once for each slot.
    #[test]
    fn any_slots_are_taken_without_harm(
        slots in proptest::collection::vec(
            (0_u32..24, prop_oneof![0_u16..64, any::<u16>()], 0_u16..16, any::<u16>(), 0_u16..300),
            1..60,
        ),
        kinds in prop_oneof![Just(true), Just(false)],
        room in 0_u16..40,
    ) {
        let mut bench = Bench::new(ALL);
        bench.give(0, room);
        for &(gref, offset, flags, id, size) in &slots {
            // Those that stand for extra information have its kind in the first byte.
            let gref = if kinds { gref % 5 } else { gref };
            bench.push(TxRequest { gref, offset, flags, id, size });
        }
        let _ = bench.sends.publish();
        let mut taken = 0;
        while let Ok(Some(what)) = bench.tx.take(&bench.sender) {
            if what == Taken::Frame {
                prop_assert!((MIN_FRAME..=MAX_FRAME).contains(&bench.tx.frame().len()));
                let _ = bench.deliver();
            }
            taken += bench.tx.slots();
            bench.tx.answer(status::OKAY);
        }
        prop_assert_eq!(bench.answers().len(), taken);
        prop_assert!(taken <= slots.len());
        let mut answered = 0;
        while bench.response().is_some() {
            answered += 1;
        }
        prop_assert!(answered <= usize::from(room));
    }
}
