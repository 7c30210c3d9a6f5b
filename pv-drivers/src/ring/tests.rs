//! Both ends against each other, and each against a peer that keeps to nothing.

extern crate std;
use core::sync::atomic::Ordering::SeqCst;
use std::collections::VecDeque;
use std::vec::Vec;

use abi::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Back, Broken, Front, MAX_PAGES, Memory};
use crate::shared_page::SharedPage;
use crate::test_page::TestPage;

/// The size of a block request, which lies across pages.
const ENTRY: usize = 112;

struct Pages {
    pages: Vec<TestPage>,
    views: Vec<SharedPage>,
}

impl Pages {
    fn new(count: usize) -> Self {
        let pages: Vec<TestPage> = (0..count).map(|_| TestPage::new()).collect();
        let views = pages.iter().map(TestPage::view).collect();
        Self { pages, views }
    }

    fn memory(&self) -> Memory<&SharedPage> {
        assert_eq!(self.pages.len(), self.views.len());
        Memory::new(&self.views, ENTRY).unwrap()
    }

    /// Lets both rings start at any index.
    fn ends_at(&self, start: u32) -> (Front<&SharedPage>, Back<&SharedPage>) {
        let mut front = Front::new(self.memory());
        let head = &self.views[0];
        for (index, value) in [
            (REQ_PROD, start),
            (RSP_PROD, start),
            (REQ_EVENT, start.wrapping_add(1)),
            (RSP_EVENT, start.wrapping_add(1)),
        ] {
            head.u32(index).store(value, SeqCst);
        }
        front.set_indices(start);
        (front, Back::attach(self.memory()))
    }
}

fn entry(number: u8) -> [u8; ENTRY] {
    core::array::from_fn(|at| number.wrapping_mul(31) ^ u8::try_from(at).unwrap())
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u8),
    Take,
    Respond,
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<u8>().prop_map(Step::Push),
        3 => Just(Step::Take),
        2 => Just(Step::Respond),
        2 => Just(Step::Collect),
    ]
}

proptest! {
    /// What goes in comes out, in order, however many pages there are and wherever indices start;
    /// an end that asked for an event and found nothing gets one when something comes.
    #[test]
    fn requests_and_responses_come_out_as_they_went_in(
        pages in 1usize..5,
        start in prop_oneof![any::<u32>(), u32::MAX - 40..=u32::MAX],
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let pages = Pages::new(pages);
        let (mut front, mut back) = pages.ends_at(start);
        let count = pages.memory().count() as usize;
        let (mut requests, mut responses) = (VecDeque::new(), VecDeque::new());
        let mut taken = VecDeque::new();
        let (mut back_rests, mut front_rests) = (true, true);
        for step in steps {
            let mut bytes = [0; ENTRY];
            match step {
                Step::Push(number) => {
                    let fits = requests.len() + taken.len() + responses.len() < count;
                    prop_assert_eq!(front.push(&entry(number)), fits);
                    if fits {
                        requests.push_back(number);
                    }
                    let told = front.publish();
                    prop_assert!(!fits || told || !back_rests);
                    back_rests &= !told && !fits;
                }
                Step::Take => {
                    let wanted = requests.pop_front();
                    prop_assert_eq!(back.take(&mut bytes), Ok(wanted.is_some()));
                    if let Some(number) = wanted {
                        prop_assert_eq!(bytes, entry(number));
                        taken.push_back(number);
                    }
                    let more = back.rearm().unwrap();
                    prop_assert_eq!(more, !requests.is_empty());
                    back_rests = !more;
                }
                Step::Respond => {
                    // In the wrong order, which is a back end's right.
                    if let Some(number) = taken.pop_back() {
                        back.respond(&entry(number)[..16]);
                        responses.push_back(number);
                        let told = back.publish();
                        prop_assert!(told || !front_rests);
                        front_rests = false;
                    }
                }
                Step::Collect => {
                    let wanted = responses.pop_front();
                    prop_assert_eq!(front.take(&mut bytes[..16]), Ok(wanted.is_some()));
                    if let Some(number) = wanted {
                        prop_assert_eq!(&bytes[..16], &entry(number)[..16]);
                    }
                    let more = front.rearm().unwrap();
                    prop_assert_eq!(more, !responses.is_empty());
                    front_rests = !more;
                }
            }
        }
    }

    /// A front end's index is believed exactly when its requests have room, whatever else it
    /// writes into the page.
    #[test]
    fn a_hostile_front_end_is_refused(
        start in any::<u32>(),
        rounds in proptest::collection::vec((any::<u32>(), 0u32..40, any::<bool>(), any::<[u32; 4]>()), 1..60),
    ) {
        let pages = Pages::new(1);
        let (_, mut back) = pages.ends_at(start);
        let head = &pages.views[0];
        let (mut taken, mut responded) = (start, start);
        for (wild, near, is_near, others) in rounds {
            let prod = if is_near { responded.wrapping_add(near) } else { wild };
            for (index, value) in [REQ_EVENT, RSP_PROD, RSP_EVENT].into_iter().zip(others) {
                head.u32(index).store(value, SeqCst);
            }
            head.u32(REQ_PROD).store(prod, SeqCst);
            let claimed = prod.wrapping_sub(responded);
            let good = claimed <= 32 && claimed >= taken.wrapping_sub(responded);
            let waits = good && prod != taken;
            let mut bytes = [0; ENTRY];
            let wanted = if good { Ok(waits) } else { Err(Broken) };
            prop_assert_eq!(back.take(&mut bytes), wanted);
            taken = taken.wrapping_add(u32::from(waits));
            prop_assert_eq!(back.rearm().is_ok(), good);
            prop_assert_eq!(back.outstanding(), taken.wrapping_sub(responded));
            if others[3] % 3 == 0 && taken != responded {
                back.respond(&bytes[..16]);
                let _ = back.publish();
                responded = responded.wrapping_add(1);
                prop_assert_eq!(head.u32(RSP_PROD).load(SeqCst), responded);
            }
        }
    }

    /// A back end cannot answer what was not asked.
    #[test]
    fn a_hostile_back_end_is_refused(start in any::<u32>(), asked in 0u32..=32, prod in any::<u32>(), near in any::<bool>()) {
        let pages = Pages::new(1);
        let (mut front, _) = pages.ends_at(start);
        for _ in 0..asked {
            prop_assert!(front.push(&entry(1)));
        }
        let _ = front.publish();
        let prod = if near { start.wrapping_add(prod % 40) } else { prod };
        pages.views[0].u32(RSP_PROD).store(prod, SeqCst);
        let answered = prod.wrapping_sub(start);
        let wanted = if answered <= asked { Ok(answered != 0) } else { Err(Broken) };
        prop_assert_eq!(front.take(&mut [0; 16]), wanted);
    }
}

#[test]
fn a_ring_has_pages_and_entries_or_is_none() {
    let pages = Pages::new(MAX_PAGES + 1);
    let views = &pages.views;
    let count = |pages: usize, entry| Memory::new(&views[..pages], entry).map(|m| m.count());
    assert_eq!(count(1, 112), Some(32));
    assert_eq!(count(4, 108), Some(128));
    assert_eq!(count(16, 112), Some(512));
    assert_eq!(count(1, 12), Some(256));
    assert_eq!(count(0, 112), None);
    assert_eq!(count(MAX_PAGES + 1, 112), None);
    assert_eq!(count(1, 0), None);
    assert_eq!(count(1, 5000), None);
}

#[test]
fn a_batch_is_told_of_once_and_one_who_looks_anyway_not_at_all() {
    let pages = Pages::new(1);
    let (mut front, mut back) = pages.ends_at(0);
    for _ in 0..3 {
        front.push(&entry(1));
    }
    assert!(front.publish());
    assert!(!front.publish());
    front.push(&entry(2));
    assert!(!front.publish(), "the back end has not asked again");
    while back.take(&mut [0; ENTRY]).unwrap() {}
    assert_eq!(back.rearm(), Ok(false));
    front.push(&entry(3));
    assert!(front.publish());
}
