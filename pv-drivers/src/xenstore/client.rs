//! A guest's questions to the store, one at a time, and the events that come between.

use abi::hvm::param;
use abi::xs_wire::{MsgHeader, PAYLOAD_MAX, kind};
use abi::{EvtchnPort, Gfn};
use heapless::{Deque, String, Vec};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::Front;
use crate::guest::{event_channel, hvm, sched};
use crate::shared_page::SharedPage;

/// Bytes of a path or token that an event keeps; of longer ones the rest is lost.
const EVENT_TEXT: usize = 128;
/// Events that are kept until they are asked for; of more the oldest is lost.
const EVENTS: usize = 16;

/// A change of a node that is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The node, as the watch named it.
    pub path: String<EVENT_TEXT>,
    /// What the watch was given.
    pub token: String<EVENT_TEXT>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientError {
    /// The store refused: the error's name, such as `ENOENT`.
    Refused(String<16>),
    /// The store broke the protocol, or there is none.
    Broken,
    /// The request or its answer is longer than a message or the caller's buffer.
    TooLong,
}

/// A connection to the store. One request at a time.
#[derive(Debug)]
pub struct Client {
    page: SharedPage,
    port: EvtchnPort,
    front: Front,
    request: u32,
    events: Deque<Event, EVENTS>,
}

impl Client {
    /// Where the store's page is, for the caller to make a view of.
    #[must_use]
    pub fn frame() -> Option<Gfn> {
        let frame = hvm::get_param(param::STORE_PFN).ok()?;
        (frame != 0).then(|| Gfn::new(frame))
    }

    /// Connects through the page of [`Client::frame`].
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the domain has no port of the store.
    pub fn connect(page: SharedPage) -> Result<Self, ClientError> {
        let port = hvm::get_param(param::STORE_EVTCHN).ok();
        let port = port.and_then(|port| u32::try_from(port).ok());
        let port = port.filter(|&port| port != 0).ok_or(ClientError::Broken)?;
        Ok(Self {
            front: Front::connect(&page),
            page,
            port: EvtchnPort(port),
            request: 0,
            events: Deque::new(),
        })
    }

    /// The port of the connection: its event says that there is something to [`Client::poll`].
    #[must_use]
    pub const fn port(&self) -> EvtchnPort {
        self.port
    }

    /// Takes the events that have come, for [`Client::event`]. Does not wait for any.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub fn poll(&mut self) -> Result<(), ClientError> {
        let mut took = false;
        while self
            .front
            .waiting(&self.page)
            .map_err(|_| ClientError::Broken)?
            != 0
        {
            let mut header = MsgHeader::new_zeroed();
            self.receive(header.as_mut_bytes())?;
            if header.kind != kind::WATCH_EVENT || header.len > PAYLOAD_MAX {
                return Err(ClientError::Broken);
            }
            self.keep_event(header.len as usize)?;
            took = true;
        }
        if took {
            // The store may have waited for room.
            self.notify();
        }
        Ok(())
    }

    /// The next event, if one came.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Sends a request of one of [`kind`] and waits for the answer, which it puts into `answer`.
    /// Says how long it is. The words of `body` are sent as they are, NULs included.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(
        &mut self,
        kind: u32,
        transaction: u32,
        body: &[&[u8]],
        answer: &mut [u8],
    ) -> Result<usize, ClientError> {
        let len = body.iter().map(|part| part.len()).sum::<usize>();
        let len = u32::try_from(len).map_err(|_| ClientError::TooLong)?;
        if len > PAYLOAD_MAX {
            return Err(ClientError::TooLong);
        }
        self.request = self.request.wrapping_add(1);
        let header = MsgHeader {
            kind,
            req_id: self.request,
            tx_id: transaction,
            len,
        };
        self.send(header.as_bytes())?;
        for part in body {
            self.send(part)?;
        }
        self.notify();
        self.answer(answer)
    }

    /// Takes messages until one is the answer.
    fn answer(&mut self, answer: &mut [u8]) -> Result<usize, ClientError> {
        loop {
            let mut header = MsgHeader::new_zeroed();
            self.receive(header.as_mut_bytes())?;
            if header.len > PAYLOAD_MAX {
                return Err(ClientError::Broken);
            }
            let len = header.len as usize;
            match header.kind {
                kind::WATCH_EVENT => self.keep_event(len)?,
                _ if header.req_id != self.request => return Err(ClientError::Broken),
                kind::ERROR => return Err(self.refusal(len)),
                _ => {
                    let Some(room) = answer.get_mut(..len) else {
                        self.skip(len)?;
                        return Err(ClientError::TooLong);
                    };
                    self.receive(room)?;
                    return Ok(len);
                }
            }
        }
    }

    fn refusal(&mut self, len: usize) -> ClientError {
        let mut name = String::new();
        match self.text(len, &mut name) {
            Ok(()) => ClientError::Refused(name),
            Err(error) => error,
        }
    }

    /// Receives `len` bytes as text up to a NUL, and forgets what does not fit.
    fn text<const N: usize>(&mut self, len: usize, out: &mut String<N>) -> Result<(), ClientError> {
        for _ in 0..len {
            let mut byte = [0];
            self.receive(&mut byte)?;
            if byte[0] != 0 {
                // What does not fit is lost.
                let _ = out.push(char::from(byte[0]));
            }
        }
        Ok(())
    }

    fn keep_event(&mut self, len: usize) -> Result<(), ClientError> {
        let mut words: [Vec<u8, EVENT_TEXT>; 2] = [Vec::new(), Vec::new()];
        let mut word = 0usize;
        for _ in 0..len {
            let mut byte = [0];
            self.receive(&mut byte)?;
            if byte[0] == 0 {
                word = word.saturating_add(1);
            } else if let Some(text) = words.get_mut(word) {
                // What does not fit is lost.
                let _ = text.push(byte[0]);
            }
        }
        let [path, token] = words.map(|bytes| String::from_utf8(bytes).unwrap_or_default());
        if self.events.is_full() {
            self.events.pop_front();
        }
        // There is room now.
        let _ = self.events.push_back(Event { path, token });
        Ok(())
    }

    fn skip(&mut self, len: usize) -> Result<(), ClientError> {
        for _ in 0..len {
            self.receive(&mut [0])?;
        }
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let sent = self.front.send(&self.page, bytes);
            let sent = sent.map_err(|_| ClientError::Broken)?;
            bytes = bytes.get(sent..).unwrap_or(&[]);
            if sent == 0 {
                self.wait();
            }
        }
        Ok(())
    }

    /// Fills `out`, waiting for what is not there yet.
    fn receive(&mut self, mut out: &mut [u8]) -> Result<(), ClientError> {
        while !out.is_empty() {
            let got = self.front.receive(&self.page, out);
            let got = got.map_err(|_| ClientError::Broken)?;
            out = out.get_mut(got..).unwrap_or(&mut []);
            if got == 0 {
                self.wait();
            }
        }
        Ok(())
    }

    /// Has the store look at the rings, and others run.
    fn wait(&self) {
        self.notify();
        // A conforming hypervisor refuses neither.
        let _ = sched::yield_now();
    }

    fn notify(&self) {
        let _ = event_channel::send(self.port);
    }
}
