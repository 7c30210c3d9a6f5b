//! Looks after its own memory and time while a neighbour, `peer=N`, does what it likes; ends after
//! it.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::Relaxed;

use abi::{DomId, Errno, EvtchnPort};
use guests::memory::Page;
use guests::report::Report;
use guests::sched::HostClock;
use guests::xen::SharedInfo;
use guests::{check, pair, runtime, say};
use pv_drivers::guest::sched;

guests::main!(run);

const PAGES: usize = 64;
static MEMORY: [Page; PAGES] = [const { Page::new() }; PAGES];

/// A port that no domain has.
const NO_PORT: EvtchnPort = EvtchnPort(u32::MAX);
/// How far the two clocks may be apart: they are read one after the other, and a turn of somebody
/// else's may come between.
const TOLERANCE_US: u64 = 200_000;

fn word(page: usize, index: usize) -> u64 {
    (page as u64) << 32 | index as u64 ^ 0x5a5a
}

fn run(t: &mut Report) {
    let peer = runtime::domain("peer");
    let (shared, host) = (SharedInfo::map(), HostClock::find());
    for (number, page) in MEMORY.iter().enumerate() {
        for index in 0..512 {
            page.view()
                .u64(index * 8)
                .store(word(number, index), Relaxed);
        }
    }
    // It may not have been built yet.
    pair::until(|| lives(peer));
    let (start, began) = (shared.now(), host.now());
    let (mut last, mut looks, mut apart) = (start, 0_u64, 0);
    while lives(peer) {
        let now = shared.now();
        if !check!(t, now >= last, "time goes forward: {now} after {last}") {
            return;
        }
        last = now;
        let by_host = host.us(host.now().wrapping_sub(began));
        apart = apart.max(by_host.abs_diff((now - start) / 1000));
        if !memory_is_as_it_was(t) {
            return;
        }
        looks += 1;
        let _ = sched::yield_now();
    }
    check!(t, looks > 10, "it was looked at ({looks} times)");
    check!(t, apart < TOLERANCE_US, "the clocks are {apart} us apart");
    say!("{looks} looks in {} ms", (last - start) / 1_000_000);
}

/// True while there is such a domain; its id is not used again.
fn lives(domain: DomId) -> bool {
    !matches!(pair::bind(domain, NO_PORT), Err(refused) if refused == Errno::Esrch)
}

fn memory_is_as_it_was(t: &mut Report) -> bool {
    for (number, page) in MEMORY.iter().enumerate() {
        for index in 0..512 {
            let found = page.view().u64(index * 8).load(Relaxed);
            if found != word(number, index) {
                return check!(t, false, "page {number} word {index} is {found:#x}");
            }
        }
    }
    true
}
