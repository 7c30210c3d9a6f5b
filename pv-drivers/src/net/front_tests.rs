//! Both halves of an interface before the back end, and before one that makes no sense.

extern crate std;
use core::sync::atomic::Ordering::SeqCst;
use std::boxed::Box;
use std::vec::Vec;

use abi::PAGE_SIZE;
use abi::netif::{ExtraInfo, RxResponse, TxResponse, extra, rx_flags, status};
use abi::ring::RSP_PROD;
use proptest::prelude::{any, prop_assert_eq, proptest};
use zerocopy::IntoBytes as _;

use super::{Checksum, MAX_FRAME, NotSent, Offers, Received, Receiver, Rx, Sender, Taken, Tx};
use crate::guest::gnttab;
use crate::ring::{Back, Broken, Memory};
use crate::shared_page::SharedPage;
use crate::test_guest::{PEER, TestGuest};

const PAGES: usize = 20;

/// One guest sends to itself.
struct Bench {
    guest: TestGuest,
    grants: gnttab::Grants<[SharedPage; 1]>,
    sender: Sender<PAGES>,
    receiver: Receiver<PAGES>,
    tx: Tx<Box<SharedPage>>,
    rx: Rx<Box<SharedPage>>,
}

impl Bench {
    fn new() -> Self {
        let guest = TestGuest::new(2 + 2 * PAGES);
        let mut grants = guest.grants();
        let pages = |from| core::array::from_fn(|page| guest.page(from + page));
        let mut sender = Sender::new(guest.page(1), pages(3)).unwrap();
        let mut receiver = Receiver::new(guest.page(2), pages(3 + PAGES)).unwrap();
        sender.grant(&mut grants, PEER).unwrap();
        receiver.grant(&mut grants, PEER).unwrap();
        assert!(receiver.publish());
        let offers = Offers {
            scatter_gather: true,
            ..Offers::default()
        };
        let [to, from] = [1, 2].map(|page| Box::new(*guest.page(page)));
        Self {
            tx: Tx::attach(to).unwrap(),
            rx: Rx::attach(from, offers).unwrap(),
            grants,
            sender,
            receiver,
            guest,
        }
    }

    /// Carries frames over as long as there are any.
    fn carry(&mut self) {
        let _ = self.sender.publish();
        let _ = self.receiver.publish();
        while let Some(taken) = self.tx.take(&self.guest).unwrap() {
            assert_eq!(taken, Taken::Frame);
            let frame = self.tx.frame_mut();
            let delivered = self.rx.deliver(frame, &self.guest, &self.guest);
            delivered.unwrap();
            self.tx.answer(status::OKAY);
        }
        let _ = self.tx.publish();
        let _ = self.rx.publish();
    }
}

proptest! {
    /// Frames of all lengths arrive as they were sent, for longer than there are pages.
    #[test]
    fn frames_arrive(lengths in proptest::collection::vec(14usize..12_000, 1..40), start in any::<u8>()) {
        let mut bench = Bench::new();
        let mut out = std::vec![0; MAX_FRAME];
        for (number, len) in lengths.into_iter().enumerate() {
            let frame: Vec<u8> = (0..len)
                .map(|at| start.wrapping_add(u8::try_from((at * 7 + number) % 251).unwrap()))
                .collect();
            bench.sender.send(&frame).unwrap();
            bench.carry();
            let received = bench.receiver.receive(&mut out).unwrap();
            let wanted = Received { len, checksum: Checksum::Unknown };
            prop_assert_eq!(received, Some(wanted));
            prop_assert_eq!(&out[..len], &frame[..]);
            prop_assert_eq!(bench.receiver.receive(&mut out), Ok(None));
            bench.sender.reclaim().unwrap();
        }
        let all = bench.guest.grants().free();
        prop_assert_eq!(bench.grants.free(), all - 2 * PAGES);
        prop_assert_eq!(bench.sender.end(&mut bench.grants), true);
        prop_assert_eq!(bench.receiver.end(&mut bench.grants), true);
    }

    /// Whatever a back end writes, a frame is what came in pages that it was given, or nothing.
    #[test]
    fn a_back_end_that_lies_does_no_harm(
        responses in proptest::collection::vec(
            (any::<u16>(), 0u16..5000, 0u16..16, -3i16..5000, any::<bool>()),
            0..20,
        ),
        prod in 0u32..24,
    ) {
        let mut bench = Bench::new();
        let memory = Memory::new([Box::new(*bench.guest.page(2))], 8).unwrap();
        let mut back = Back::attach(memory);
        let mut number = 0;
        while back.take(&mut [0; 8]).unwrap() {
            number += 1;
        }
        prop_assert_eq!(number, PAGES);
        for (at, (id, offset, flags, status, honest)) in (0..).zip(responses) {
            let id = if honest { at } else { id };
            back.respond(RxResponse { id, offset, flags, status }.as_bytes());
        }
        bench.guest.page(2).u32(RSP_PROD).store(prod, SeqCst);
        let mut out = std::vec![0; 9000];
        while let Ok(Some(Received { len, .. })) = bench.receiver.receive(&mut out) {
            assert!(len <= 9000);
        }
    }
}

#[test]
fn what_is_said_about_a_frame_is_understood() {
    let mut bench = Bench::new();
    let memory = Memory::new([Box::new(*bench.guest.page(2))], 8).unwrap();
    let mut back = Back::attach(memory);
    while back.take(&mut [0; 8]).unwrap() {}
    let response = |id, flags, status| RxResponse {
        id,
        offset: 0,
        flags,
        status,
    };
    let info = |flags| ExtraInfo {
        kind: extra::GSO,
        flags,
        data: [0; 6],
    };
    let first = rx_flags::CSUM_BLANK | rx_flags::MORE_DATA | rx_flags::EXTRA_INFO;
    back.respond(response(0, first, 4096).as_bytes());
    back.respond(info(extra::FLAG_MORE).as_bytes());
    back.respond(info(0).as_bytes());
    back.respond(response(3, 0, 100).as_bytes());
    back.respond(response(4, 0, status::ERROR).as_bytes());
    back.respond(response(5, rx_flags::DATA_VALIDATED, 60).as_bytes());
    let _ = back.publish();
    let mut out = std::vec![0; MAX_FRAME];
    let mut next = |len, checksum| {
        let received = bench.receiver.receive(&mut out);
        assert_eq!(received, Ok(Some(Received { len, checksum })));
    };
    next(4196, Checksum::Blank);
    next(60, Checksum::Good);
    // A page that it was not given.
    back.respond(response(7, 0, 60).as_bytes());
    let _ = back.publish();
    assert_eq!(bench.receiver.receive(&mut out), Err(Broken));
}

#[test]
fn a_sender_has_as_much_room_as_pages() {
    let mut bench = Bench::new();
    for _ in 0..PAGES {
        assert_eq!(bench.sender.send(&[1; 60]), Ok(()));
    }
    assert_eq!(bench.sender.send(&[1; 60]), Err(NotSent::Full));
    assert_eq!(bench.sender.send(&[1; 65536]), Err(NotSent::TooLong));
    bench.carry();
    bench.sender.reclaim().unwrap();
    assert!(bench.sender.has_room(PAGES * PAGE_SIZE));
    // An answer to what was not asked.
    bench.sender.send(&[1; 60]).unwrap();
    let _ = bench.sender.publish();
    assert!(bench.tx.take(&bench.guest).is_ok());
    bench.tx.answer(status::OKAY);
    let _ = bench.tx.publish();
    let slot = 64 + 12 * (PAGES % 256);
    let lie = TxResponse { id: 500, status: 0 };
    bench.guest.page(1).write(slot, lie.as_bytes());
    assert_eq!(bench.sender.reclaim(), Err(Broken));
}
