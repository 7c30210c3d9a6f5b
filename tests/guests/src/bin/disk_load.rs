//! Fills its disk's ring again and again for `ms=` milliseconds, with as much as the ring holds: what
//! one event asks of the hypervisor must not hold up others. `xvda` is to have 4 MiB.
#![no_std]
#![no_main]

use abi::blkif::{RequestDiscard, op, status};
use abi::xenbus::XenbusState;
use guests::disk::{Disk, request, segment};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, runtime, say};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

guests::main!(run);

const XVDA: u32 = 51712;
const SECTORS: u64 = 8192;
/// Segments of a request, of a page each.
const SEGMENTS: usize = 11;
/// Sectors of one.
const STRETCH: u64 = 8 * SEGMENTS as u64;

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let Some(mut disk) = Disk::find(XVDA) else {
        check!(t, false, "a disk with a back end");
        return;
    };
    check_eq!(t, disk.connect(), XenbusState::Connected, "a connection");
    let whole = [segment(disk.grefs[0], 0, 7); SEGMENTS];
    let end = shared.now() + runtime::option("ms").unwrap_or(100) * 1_000_000;
    let (mut asked, mut done, mut sector) = (0_u64, 0_u64, 0);
    // Written for the first time, read, and let go.
    for kind in [op::WRITE, op::READ, op::DISCARD].into_iter().cycle() {
        if shared.now() >= end {
            break;
        }
        loop {
            let next = match kind {
                op::DISCARD => discard(),
                kind => request(kind, sector, &whole),
            };
            if !disk.push(&next) {
                break;
            }
            asked += 1;
            sector = (sector + STRETCH) % (SECTORS - STRETCH);
        }
        disk.kick();
        while let Some(answer) = disk.response() {
            done += u64::from(answer.status == status::OKAY);
        }
    }
    say!("{done} requests");
    check_eq!(
        t,
        done,
        asked,
        "requests done when their event has been sent"
    );
    check_eq!(t, disk.close(), XenbusState::InitWait, "the end");
}

/// A request to forget the whole disk.
fn discard() -> abi::blkif::Request {
    let mut discard = RequestDiscard::new_zeroed();
    discard.operation = op::DISCARD;
    discard.nr_sectors = SECTORS;
    let mut bytes = [0; size_of::<abi::blkif::Request>()];
    if let Some(place) = bytes.get_mut(..size_of::<RequestDiscard>()) {
        place.copy_from_slice(discard.as_bytes());
    }
    abi::blkif::Request::read_from_bytes(&bytes)
        .unwrap_or_else(|_| abi::blkif::Request::new_zeroed())
}
