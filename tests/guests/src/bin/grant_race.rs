//! Two vCPUs of one domain, which grants itself a page: no vCPU sees a page after
//! it has been unmapped, and an entry that is rewritten under a call confuses nobody.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU64};

use abi::grant_table::{flags, status, v1};
use abi::{DomId, GrantRef};
use guests::grants::{self, HOLE, Side};
use guests::memory::Page;
use guests::report::Report;
use guests::{check, check_eq, cpu, smp, xen};

guests::main!(run);

static PAGE: Page = Page::new();
static OTHER: Page = Page::new();
static OWN: Page = Page::new();

const GREF: GrantRef = GrantRef(8);
const ROUNDS: u64 = 60;

/// What vCPU 1 does: 0 to read the mapping, 1 to rewrite the entry, 2 to stop.
static MODE: AtomicU64 = AtomicU64::new(0);
/// What it read last, and how often it has.
static SEEN: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);
static STOPPED: AtomicBool = AtomicBool::new(false);

fn other() {
    // Interrupts are off here from the start: what takes this vCPU out of the guest, so that it
    // drops its translations, is not the guest's to mask.
    let word = grants::frame();
    let at = GREF.0 as usize * v1::ENTRY_SIZE;
    let mut state = 1_u32;
    loop {
        match MODE.load(SeqCst) {
            0 => {
                SEEN.store(cpu::read64(HOLE.gpa().raw()).unwrap_or(0), SeqCst);
                READS.fetch_add(1, SeqCst);
            }
            1 => {
                // Any flags, now and then the right ones; the domain, the frame.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let good = state & 0x300 != 0;
                let bits = if good {
                    flags::PERMIT_ACCESS
                } else {
                    (state >> 16) as u16 & 0x3
                };
                word.u16(at + v1::FLAGS).store(bits, SeqCst);
                let page = if state & 0x400 == 0 { &PAGE } else { &OTHER };
                let gfn = u32::try_from(page.gfn().raw()).unwrap_or(0);
                word.u32(at + v1::FRAME).store(gfn, SeqCst);
            }
            _ => break,
        }
    }
    STOPPED.store(true, SeqCst);
}

/// Waits until vCPU 1 has read twice more: the second time it began after the call.
fn let_it_read() {
    let before = READS.load(SeqCst);
    while READS.load(SeqCst) < before + 2 {
        core::hint::spin_loop();
    }
}

fn run(t: &mut Report) {
    let me = xen::domid();
    check!(t, grants::table().is_ok(), "the table's first frame");
    check_eq!(t, smp::start_by_hypercall(other), Ok(0), "the other vCPU");
    unmapped_is_unseen(t, me);
    MODE.store(1, SeqCst);
    rewritten(t, me);
    MODE.store(2, SeqCst);
    while !STOPPED.load(SeqCst) {
        core::hint::spin_loop();
    }
    grants::write_entry(GREF, flags::PERMIT_ACCESS, me, PAGE.gfn());
    let last = grants::map(me, GREF, HOLE, false);
    check!(t, last.is_ok(), "mapping at the end ({last:?})");
    let unmapped = grants::unmap(last.unwrap_or(u32::MAX), HOLE);
    check_eq!(t, unmapped, status::OKAY, "and unmapping");
    let at = GREF.0 as usize * v1::ENTRY_SIZE;
    let left = grants::frame().u16(at).load(SeqCst);
    check_eq!(t, left, flags::PERMIT_ACCESS, "no use is left");
}

fn unmapped_is_unseen(t: &mut Report, me: DomId) {
    grants::write_entry(GREF, flags::PERMIT_ACCESS, me, PAGE.gfn());
    let mut stale = 0;
    for round in 1..=ROUNDS {
        PAGE.view().u64(0).store(round, SeqCst);
        let Ok(handle) = grants::map(me, GREF, HOLE, false) else {
            check!(t, false, "mapping in round {round}");
            return;
        };
        let_it_read();
        check_eq!(t, SEEN.load(SeqCst), round, "the other vCPU sees the page");
        if grants::unmap(handle, HOLE) != status::OKAY {
            check!(t, false, "unmapping in round {round}");
            return;
        }
        let_it_read();
        stale += u64::from(SEEN.load(SeqCst) != u64::MAX);
    }
    check_eq!(t, stale, 0, "reads through a mapping that was gone");
}

fn rewritten(t: &mut Report, me: DomId) {
    let (mut mapped, mut copied) = (0, 0);
    let source = Side::Grant(me, GREF, 0);
    let own = Side::Frame(OWN.gfn(), 0);
    for round in 0..ROUNDS * 20 {
        match grants::map(me, GREF, HOLE, round % 2 == 0) {
            Ok(handle) => {
                mapped += 1;
                let unmapped = grants::unmap(handle, HOLE);
                check!(t, unmapped == status::OKAY, "unmapping ({unmapped})");
            }
            Err(status) => {
                check!(t, status == status::GENERAL_ERROR, "mapping ({status})");
            }
        }
        match grants::copy(source, own, 64) {
            status::OKAY => copied += 1,
            status => {
                check!(t, status == status::GENERAL_ERROR, "copying ({status})");
            }
        }
    }
    check!(
        t,
        mapped > 0 && copied > 0,
        "{mapped} mapped, {copied} copied"
    );
}
