//! A front end's requests, before the back end and before one that makes no sense.

extern crate std;
use core::sync::atomic::Ordering::SeqCst;
use std::boxed::Box;
use std::vec::Vec;

use abi::blkif::Response;
use abi::ring::RSP_PROD;
use proptest::prelude::{prop_assert_eq, proptest};
use zerocopy::IntoBytes as _;

use super::proto::Protocol;
use super::tests::TestDisk;
use super::{Buffer, Completion, IoError, NotTaken, Queue, RING_REQUESTS, Request, Requests};
use crate::guest::gnttab;
use crate::ring::{Back, Broken, Memory};
use crate::shared_page::SharedPage;
use crate::test_guest::{PEER, TestGuest};

/// The ring's page; those behind it hold data.
const RING: usize = 1;

struct Bench {
    guest: TestGuest,
    grants: gnttab::Grants<[SharedPage; 1]>,
    requests: Requests,
    queue: Queue<Box<SharedPage>>,
    disk: TestDisk,
}

impl Bench {
    fn new() -> Self {
        let guest = TestGuest::new(20);
        let ring = Box::new(*guest.page(RING));
        Self {
            grants: guest.grants(),
            requests: Requests::new(guest.page(RING)).unwrap(),
            queue: Queue::attach([ring], Protocol::X86_64).unwrap(),
            disk: TestDisk::new(false),
            guest,
        }
    }

    fn submit(&mut self, request: Request<'_>, tag: u64) -> Result<(), NotTaken> {
        self.requests.submit(&mut self.grants, PEER, request, tag)
    }

    fn serve(&mut self) {
        let _ = self.requests.publish();
        let served = self.queue.serve(&self.guest, &self.disk, 1000);
        assert!(served.is_ok());
    }

    fn complete(&mut self) -> Option<Completion> {
        self.requests.complete(&mut self.grants).unwrap()
    }
}

const fn done(tag: u64) -> Option<Completion> {
    Some(Completion {
        tag,
        result: Ok(()),
    })
}

#[test]
fn what_is_written_is_read_and_no_grant_is_left() {
    let mut bench = Bench::new();
    let all = bench.grants.free();
    let [one, two] = [2, 3].map(|page| bench.guest.page(page));
    one.write(512, &[0xa5; 1024]);
    let pieces = [Buffer {
        page: one,
        first: 1,
        last: 2,
    }];
    bench.submit(Request::Write(7, &pieces), 70).unwrap();
    let whole = [Buffer::whole(two)];
    bench.submit(Request::Flush, 71).unwrap();
    bench.submit(Request::Read(6, &whole), 72).unwrap();
    assert_eq!(bench.grants.free(), all - 2);
    bench.serve();
    assert_eq!(
        [(); 4].map(|()| bench.complete()),
        [done(70), done(71), done(72), None]
    );
    let mut bytes = [0; 1024];
    two.read(512, &mut bytes);
    assert_eq!(bytes, [0xa5; 1024]);
    bench.submit(Request::Discard(0, 8), 73).unwrap();
    bench.submit(Request::Read(1000, &whole), 74).unwrap();
    bench.serve();
    assert_eq!(bench.complete(), done(73));
    let failed = Completion {
        tag: 74,
        result: Err(IoError),
    };
    assert_eq!(bench.complete(), Some(failed));
    assert!(bench.requests.is_empty());
    assert_eq!(bench.grants.free(), all);
    assert_eq!(
        bench.submit(Request::Read(0, &[]), 0),
        Err(NotTaken::Malformed)
    );
    let many = [whole[0]; 12];
    assert_eq!(
        bench.submit(Request::Read(0, &many), 0),
        Err(NotTaken::Malformed)
    );
}

#[test]
fn a_ring_is_full_at_some_time_and_empty_when_abandoned() {
    let mut bench = Bench::new();
    let all = bench.grants.free();
    let buffers = [Buffer::whole(bench.guest.page(2))];
    for tag in 0..RING_REQUESTS {
        let request = Request::Read(0, &buffers);
        assert_eq!(bench.submit(request, tag as u64), Ok(()));
    }
    assert_eq!(bench.submit(Request::Flush, 99), Err(NotTaken::Full));
    let mut tags = Vec::new();
    while let Some(Completion { tag, result }) = bench.requests.abandon(&mut bench.grants) {
        assert_eq!(result, Err(IoError));
        tags.push(tag);
    }
    assert_eq!(tags.len(), RING_REQUESTS);
    assert_eq!(bench.grants.free(), all);
}

#[test]
fn pages_that_are_in_use_come_back_later() {
    let mut bench = Bench::new();
    let all = bench.grants.free();
    let buffers = [2, 3].map(|page| Buffer::whole(bench.guest.page(page)));
    bench.submit(Request::Read(0, &buffers), 5).unwrap();
    bench.serve();
    // The second of the two, as the first free reference is 8.
    bench.guest.mark_used(abi::GrantRef(9), true);
    assert_eq!((bench.complete(), bench.complete()), (None, None));
    bench.guest.mark_used(abi::GrantRef(9), false);
    assert_eq!((bench.complete(), bench.complete()), (done(5), None));
    assert_eq!(bench.grants.free(), all);
}

proptest! {
    /// Answers of a back end that lies lead to one completion for each request at most.
    #[test]
    fn a_back_end_that_lies_is_found_out(
        ids in proptest::collection::vec(0u64..40, 1..8),
        prod in 0u32..10,
    ) {
        let mut bench = Bench::new();
        for tag in 0..4 {
            bench.submit(Request::Flush, tag).unwrap();
        }
        let _ = bench.requests.publish();
        let memory = Memory::new([Box::new(*bench.guest.page(RING))], 112).unwrap();
        let mut back = Back::attach(memory);
        while back.take(&mut [0; 112]).unwrap() {}
        for id in ids.iter().take(4) {
            let response = Response { id: *id, operation: 3, pad: 0, status: 0, pad2: 0 };
            back.respond(response.as_bytes());
        }
        bench.guest.page(RING).u32(RSP_PROD).store(prod, SeqCst);
        let mut seen = Vec::new();
        let end = loop {
            match bench.requests.complete(&mut bench.grants) {
                Ok(Some(Completion { tag, .. })) => seen.push(tag),
                Ok(None) => break Ok(()),
                Err(Broken) => break Err(Broken),
            }
        };
        let before = seen.len();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), before);
        if prod > 4 {
            prop_assert_eq!(end, Err(Broken));
        }
    }
}
