//! For `ms=` milliseconds asks the xenstore without a pause: as fast as replies come in, the ring
//! of requests is full again, so that something is always left over.
#![no_std]
#![no_main]

use abi::EvtchnPort;
use abi::hvm::param;
use abi::xs_wire::{MsgHeader, RING_SIZE, kind};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, cpu, memory, runtime, say};
use pv_drivers::guest::{event_channel, hvm};
use pv_drivers::xenstore::{Client, Front};
use zerocopy::IntoBytes;

guests::main!(run);

/// Requests that fit into the ring: each is a header alone.
const REQUESTS: usize = RING_SIZE as usize / size_of::<MsgHeader>();

fn run(t: &mut Report) {
    let port = hvm::get_param(param::STORE_EVTCHN);
    let port = port.ok().and_then(|port| u32::try_from(port).ok());
    let (Some(frame), Some(port)) = (Client::frame(), port.map(EvtchnPort)) else {
        check!(t, false, "a way to the store");
        return;
    };
    let page = memory::view(frame);
    let mut front = Front::connect(&page);
    let shared = SharedInfo::map();
    let end = shared.now() + runtime::option("ms").unwrap_or(1000) * 1_000_000;
    // Bochs does not let another CPU's interrupt end the turn of a guest that has them off.
    cpu::enable_interrupts();
    let request = MsgHeader {
        // Nothing to list: the answer is an error.
        kind: kind::DIRECTORY,
        req_id: 0,
        tx_id: 0,
        len: 0,
    };
    let requests = [request; REQUESTS];
    let mut replies = [0; RING_SIZE as usize];
    let (mut sent, mut received) = (0_usize, 0_usize);
    let mut quiet = 0;
    while shared.now() < end {
        // The ring takes whole requests, since it is emptied so too.
        let asked = front.send(&page, requests.as_bytes());
        let told = front.receive(&page, &mut replies);
        let (Ok(asked), Ok(told)) = (asked, told) else {
            check!(t, false, "the ring is whole");
            return;
        };
        (sent, received) = (sent + asked, received + told);
        quiet = if told == 0 { quiet + 1 } else { 0 };
        // Whoever is at work on what is left over needs no event.
        if quiet % 1000 == 0 {
            let _ = event_channel::send(port);
        }
    }
    say!("chatter: {sent} bytes asked, {received} bytes told");
    check!(t, received > RING_SIZE as usize, "{received} bytes told");
}
