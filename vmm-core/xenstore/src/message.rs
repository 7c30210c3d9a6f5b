//! Messages on their way: a request as its bytes come in, replies and events until they are sent.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use abi::xs_wire::{MsgHeader, PAYLOAD_MAX, kind};
use lists::TryPush as _;
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::quota::OVERHEAD;
use crate::{Error, text};

/// A request claims to be longer than any may be: nothing behind it can be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Oversized;

/// The request that is coming in.
#[derive(Debug)]
pub struct Inbox {
    header: MsgHeader,
    /// Bytes of header and body that are there.
    have: usize,
    body: Vec<u8>,
}

const HEADER: usize = size_of::<MsgHeader>();

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            header: MsgHeader::new_zeroed(),
            have: 0,
            body: Vec::new(),
        }
    }

    /// Takes bytes by `pull`, which puts as many as there are into the slice that it gets and
    /// says how many. True when a request is complete; false when more bytes have to come, or
    /// memory.
    ///
    /// # Errors
    /// [`Oversized`] as `Ok(Err(_))`, and what `pull` returns.
    pub fn fill<E>(
        &mut self,
        mut pull: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Result<bool, Oversized>, E> {
        while let Some(rest) = self.header.as_mut_bytes().get_mut(self.have..) {
            if rest.is_empty() {
                break;
            }
            let got = pull(rest)?;
            if got == 0 {
                return Ok(Ok(false));
            }
            self.have = self.have.saturating_add(got);
        }
        if self.header.len > PAYLOAD_MAX {
            return Ok(Err(Oversized));
        }
        let len = self.header.len as usize;
        // Nothing any more when the body comes in pieces and this is not the first.
        if lists::grow_zeroed(&mut self.body, len).is_err() {
            return Ok(Ok(false));
        }
        while let Some(rest) = self.body.get_mut(self.have.saturating_sub(HEADER)..) {
            if rest.is_empty() {
                break;
            }
            let got = pull(rest)?;
            if got == 0 {
                return Ok(Ok(false));
            }
            self.have = self.have.saturating_add(got);
        }
        Ok(Ok(true))
    }

    /// Takes the complete request out.
    pub(crate) fn take(&mut self) -> (MsgHeader, Vec<u8>) {
        self.have = 0;
        (self.header, core::mem::take(&mut self.body))
    }
}

/// The body of a message: short ones need no memory, so that a refusal can always be sent.
#[derive(Debug)]
enum Body {
    Short(heapless::Vec<u8, 16>),
    Long(Vec<u8>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }

    fn new(bytes: &[u8]) -> Result<Self, Error> {
        let mut short = heapless::Vec::new();
        if bytes.iter().all(|&byte| short.push(byte).is_ok()) {
            Ok(Self::Short(short))
        } else {
            text::bytes(bytes).map(Self::Long)
        }
    }
}

#[derive(Debug)]
struct Message {
    header: MsgHeader,
    body: Body,
}

impl Message {
    const fn is_event(&self) -> bool {
        self.header.kind == kind::WATCH_EVENT
    }

    fn cost(&self) -> usize {
        OVERHEAD.saturating_add(self.body.bytes().len())
    }
}

/// What waits to be sent to a domain.
#[derive(Debug)]
pub struct Outbox {
    queue: VecDeque<Message>,
    /// Bytes of the first message that are sent.
    sent: usize,
    events: usize,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            sent: 0,
            events: 0,
        }
    }

    /// The next bytes to send; nothing when all is sent.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        let Some(message) = self.queue.front() else {
            return &[];
        };
        let header = message.header.as_bytes();
        match header.get(self.sent..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => message
                .body
                .bytes()
                .get(self.sent.saturating_sub(HEADER)..)
                .unwrap_or(&[]),
        }
    }

    /// Notes that `count` of the bytes of [`Outbox::front`] were sent. Answers with the memory
    /// that became free.
    pub(crate) fn advance(&mut self, count: usize) -> usize {
        self.sent = self.sent.saturating_add(count);
        let done = self
            .queue
            .front()
            .is_some_and(|message| self.sent >= HEADER.saturating_add(message.body.bytes().len()));
        if !done {
            return 0;
        }
        self.sent = 0;
        let Some(message) = self.queue.pop_front() else {
            return 0;
        };
        if message.is_event() {
            self.events = self.events.saturating_sub(1);
        }
        message.cost()
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Events that wait.
    pub(crate) const fn events(&self) -> usize {
        self.events
    }

    /// Replies that wait.
    pub(crate) fn replies(&self) -> usize {
        self.queue.len().saturating_sub(self.events)
    }

    /// Makes room for one more message, so that the next reply that is short can be queued.
    ///
    /// # Errors
    /// [`Error::Enomem`].
    pub(crate) fn reserve(&mut self) -> Result<(), Error> {
        Ok(self.queue.try_reserve(1)?)
    }

    /// Queues a reply; answers with the memory it takes.
    ///
    /// # Errors
    /// [`Error::Enomem`], never for sixteen bytes or less after [`Outbox::reserve`].
    pub(crate) fn reply(&mut self, header: MsgHeader, body: &[u8]) -> Result<usize, Error> {
        self.queue(header, Body::new(body)?)
    }

    fn queue(&mut self, header: MsgHeader, body: Body) -> Result<usize, Error> {
        let len = u32::try_from(body.bytes().len()).map_err(|_| Error::E2big)?;
        let header = MsgHeader { len, ..header };
        let message = Message { header, body };
        let cost = message.cost();
        self.queue.try_push(message)?;
        Ok(cost)
    }

    /// Queues an event, unless the same one waits already; answers with the memory it takes.
    ///
    /// # Errors
    /// [`Error::Enomem`].
    pub(crate) fn event(&mut self, path: &str, token: &[u8]) -> Result<usize, Error> {
        let len = path.len().saturating_add(token.len()).saturating_add(2);
        let matches = |message: &&Message| {
            let body = message.body.bytes();
            message.is_event() && body.len() == len && is_event(body, path, token)
        };
        // The first may be on its way already.
        if self.queue.iter().skip(1).any(|message| matches(&message)) {
            return Ok(0);
        }
        let mut body = Vec::new();
        body.try_reserve_exact(len)?;
        for part in [path.as_bytes(), &[0], token, &[0]] {
            lists::append(&mut body, part)?;
        }
        let header = MsgHeader {
            kind: kind::WATCH_EVENT,
            req_id: 0,
            tx_id: 0,
            len: 0,
        };
        let cost = self.queue(header, Body::Long(body))?;
        self.events = self.events.saturating_add(1);
        Ok(cost)
    }
}

fn is_event(body: &[u8], path: &str, token: &[u8]) -> bool {
    body.strip_prefix(path.as_bytes())
        .and_then(|rest| rest.strip_prefix(&[0]))
        .and_then(|rest| rest.strip_prefix(token))
        .is_some_and(|rest| rest == [0])
}

#[cfg(test)]
mod tests {
    use super::{Inbox, Outbox, Oversized};
    use abi::xs_wire::{MsgHeader, PAYLOAD_MAX, kind};
    use core::convert::Infallible;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::vec::Vec;
    use zerocopy::IntoBytes as _;

    fn message(kind: u32, body: &[u8]) -> Vec<u8> {
        let header = MsgHeader {
            kind,
            req_id: 7,
            tx_id: 0,
            len: u32::try_from(body.len()).unwrap(),
        };
        [header.as_bytes(), body].concat()
    }

    /// Feeds a stream of bytes in pieces; answers with the requests that it held.
    fn requests(stream: &[u8], piece: usize) -> Vec<(u32, Vec<u8>)> {
        let mut inbox = Inbox::new();
        let mut found = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let (mut now, later) = rest.split_at(piece.min(rest.len()));
            rest = later;
            loop {
                let complete = inbox.fill(|out| {
                    let count = out.len().min(now.len());
                    out[..count].copy_from_slice(&now[..count]);
                    now = &now[count..];
                    Ok::<_, Infallible>(count)
                });
                if complete != Ok(Ok(true)) {
                    break;
                }
                let (header, body) = inbox.take();
                found.push((header.kind, body));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn requests_come_out_however_their_bytes_are_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6),
            piece in 1usize..50,
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| message(2, body)).collect();
            let expected: Vec<_> = bodies.into_iter().map(|body| (2, body)).collect();
            prop_assert_eq!(requests(&stream, piece), expected);
        }
    }

    #[test]
    fn an_oversized_request_is_told_apart() {
        let header = MsgHeader {
            kind: 0,
            req_id: 0,
            tx_id: 0,
            len: PAYLOAD_MAX + 1,
        };
        let mut inbox = Inbox::new();
        let filled = inbox.fill(|out| {
            out.copy_from_slice(header.as_bytes());
            Ok::<_, Infallible>(out.len())
        });
        assert_eq!(filled, Ok(Err(Oversized)));
    }

    #[test]
    fn messages_are_sent_in_order_and_equal_events_once() {
        let mut outbox = Outbox::new();
        let header = MsgHeader {
            kind: kind::READ,
            req_id: 1,
            tx_id: 0,
            len: 0,
        };
        outbox.reply(header, b"a value of some length").unwrap();
        assert!(outbox.event("/a", b"t").unwrap() > 0);
        assert_eq!(outbox.event("/a", b"t"), Ok(0));
        assert!(outbox.event("/a", b"u").unwrap() > 0);
        assert_eq!((outbox.events(), outbox.replies()), (2, 1));
        let mut sent = Vec::new();
        while !outbox.is_empty() {
            let some = outbox.front().len().min(5);
            sent.extend_from_slice(&outbox.front()[..some]);
            outbox.advance(some);
        }
        let mut expected = message(kind::READ, b"a value of some length");
        expected[4] = 1;
        for token in [b"/a\0t\0", b"/a\0u\0"] {
            let mut event = message(kind::WATCH_EVENT, token);
            event[4] = 0;
            expected.extend(event);
        }
        assert_eq!(sent, expected);
        assert_eq!(outbox.events(), 0);
    }
}
