//! Channels between two domains: who may bind what, events both ways, and how each end sees that
//! the other was closed or is gone.
#![no_std]
#![no_main]

use abi::event_channel::{ALLOC_UNBOUND, AllocUnbound, RESET, Reset, STATUS, Status, status};
use abi::hypercall::EVENT_CHANNEL_OP;
use abi::{DomId, Errno, EvtchnPort};
use guests::pair::{self, Pair};
use guests::report::Report;
use guests::{check, check_eq, events, say};
use pv_drivers::guest::event_channel;
use pv_drivers::hypercall::{Reply, command};
use zerocopy::FromZeros;

guests::main!(run);

/// Events sent each way.
const ROUNDS: u64 = 200;

fn run(t: &mut Report) {
    let pair = Pair::meet();
    strangers(t, pair);
    say!("alone with each other");
    echo(t, pair);
    say!("echoes over");
    if pair.first {
        closed_by_the_other(t, pair);
    } else {
        closes(t, pair);
    }
}

fn refused(t: &mut Report, reply: Reply, errno: Errno, what: &str) {
    let same = matches!(reply, Err(refused) if refused == errno);
    check!(t, same, "{what}: got {reply:?}, want {errno:?}");
}

/// What a domain may not do with another's ports.
fn strangers(t: &mut Report, pair: Pair) {
    let bind = |dom, port| pair::bind(dom, port).map(|port| port.0.into());
    refused(
        t,
        bind(DomId(0x7000), EvtchnPort(1)),
        Errno::Esrch,
        "a domain that is not",
    );
    refused(
        t,
        bind(pair.peer, EvtchnPort(1)),
        Errno::Einval,
        "the peer's console",
    );
    refused(
        t,
        bind(pair.peer, EvtchnPort(60)),
        Errno::Einval,
        "a port that is free",
    );
    refused(
        t,
        bind(pair.peer, EvtchnPort(u32::MAX)),
        Errno::Einval,
        "no port at all",
    );
    refused(
        t,
        bind(pair.peer, pair.meeting),
        Errno::Einval,
        "a port that is bound",
    );
    let mut theirs = Status::new_zeroed();
    theirs.dom = pair.peer.0;
    theirs.port = 1;
    let reply = command(EVENT_CHANNEL_OP, STATUS, &mut theirs);
    refused(t, reply, Errno::Eperm, "the status of another's port");
    let mut theirs = AllocUnbound {
        dom: pair.peer.0,
        remote_dom: DomId::SELF.0,
        port: 0,
    };
    let reply = command(EVENT_CHANNEL_OP, ALLOC_UNBOUND, &mut theirs);
    refused(t, reply, Errno::Eperm, "a port in another's name");
    let mut theirs = Reset { dom: pair.peer.0 };
    let reply = command(EVENT_CHANNEL_OP, RESET, &mut theirs);
    refused(t, reply, Errno::Eperm, "a reset of another's ports");
    // A port for a third domain is not the peer's to bind; it is told the number by being alike.
    let third = event_channel::alloc_unbound(DomId(0x7000));
    check!(
        t,
        third.is_ok(),
        "a port for a domain that is not ({third:?})"
    );
    pair.sync();
    if let Ok(port) = third {
        refused(
            t,
            bind(pair.peer, port),
            Errno::Einval,
            "a port for somebody else",
        );
        pair.sync();
        check!(t, event_channel::close(port).is_ok(), "closing it");
    }
}

/// Events there and back, each side asleep until its own comes.
fn echo(t: &mut Report, pair: Pair) {
    events::handle_callbacks(t);
    pair.sync();
    for round in 0..ROUNDS {
        if pair.first {
            let sent = event_channel::send(pair.port);
            check!(t, sent.is_ok() || round != 0, "sending ({sent:?})");
            events::sleep_past(pair.port, round);
        } else {
            events::sleep_past(pair.port, round);
            let _ = event_channel::send(pair.port);
        }
    }
    check_eq!(t, events::count(pair.port), ROUNDS, "events that came");
    // The second goes on when the first has seen its last event: another one would be the same.
    if pair.first {
        pair.tell();
    } else {
        pair.wait();
    }
}

/// The port that either domain makes after the one they meet at.
fn after(pair: Pair) -> EvtchnPort {
    EvtchnPort(pair.meeting.0 + 1)
}

/// The second domain closes its end, binds again, makes a channel of its own and ends.
fn closes(t: &mut Report, pair: Pair) {
    check!(t, event_channel::close(pair.port).is_ok(), "closing");
    // The first waits for us again.
    let again = pair::bind(pair.peer, pair.meeting);
    check_eq!(t, again, Ok(pair.port), "binding again");
    check!(
        t,
        pair.shared().is_pending(pair.port),
        "a new end is pending"
    );
    pair.shared().clear_pending(pair.port);
    pair.tell();
    // The first closes its end: ours waits for it.
    pair::until(|| !pair::is_bound(pair.port));
    let left = event_channel::status(pair.port);
    check!(
        t,
        left.is_ok_and(
            |left| left.status == status::UNBOUND && left.detail == u32::from(pair.peer.0)
        ),
        "our end after the peer's closing: {left:?}"
    );
    // Sending to nobody is no mistake.
    check!(
        t,
        event_channel::send(pair.port).is_ok(),
        "sending to nobody"
    );
    // That has been seen: the first may go on when it can bind this one.
    let seen = event_channel::alloc_unbound(pair.peer);
    check_eq!(t, seen, Ok(after(pair)), "a further port");
    // The first binds our end; it outlives us and sees us go.
    pair::until(|| pair::is_bound(pair.port));
    pair.tell();
}

/// The first domain's view of that.
fn closed_by_the_other(t: &mut Report, pair: Pair) {
    pair.wait();
    check!(t, pair::is_bound(pair.port), "bound again");
    check!(t, event_channel::close(pair.port).is_ok(), "closing");
    let gone = event_channel::send(pair.port);
    refused(
        t,
        gone,
        Errno::Einval,
        "sending through a port that was closed",
    );
    pair::until(|| pair::bind(pair.peer, after(pair)).is_ok());
    // The peer's end has the number that its first port had.
    let bound = pair::bind(pair.peer, pair.meeting);
    check!(t, bound.is_ok(), "binding the peer's end ({bound:?})");
    let port = bound.unwrap_or(EvtchnPort(0));
    check!(t, pair::is_bound(port), "bound to the peer's old end");
    pair::until(|| !pair::is_bound(port));
    let left = event_channel::status(port);
    check!(
        t,
        left.is_ok_and(
            |left| left.status == status::UNBOUND && left.detail == u32::from(pair.peer.0)
        ),
        "our end after the peer's: {left:?}"
    );
}
