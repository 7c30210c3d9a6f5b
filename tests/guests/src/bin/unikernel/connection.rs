//! HTTP (RFC 9112), as much of it as a browser or wget needs: GET, and one answer after another on
//! a connection.

use core::fmt::Write as _;

use abi::blkif::SECTOR_SIZE;
use heapless::{String, Vec};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use static_cell::ConstStaticCell;

use crate::Machine;
use crate::disk::{self, Load, PIECE};
use crate::page::{Answer, Facts};

/// Connections at a time.
pub(crate) const CONNECTIONS: usize = 8;

const PORT: u16 = 80;
/// Bytes that TCP keeps of a connection, each way.
const RECEIVED: usize = 2048;
const SENT: usize = 32 * 1024;

static RX: ConstStaticCell<[[u8; RECEIVED]; CONNECTIONS]> =
    ConstStaticCell::new([[0; RECEIVED]; CONNECTIONS]);
static TX: ConstStaticCell<[[u8; SENT]; CONNECTIONS]> =
    ConstStaticCell::new([[0; SENT]; CONNECTIONS]);
static TEXTS: ConstStaticCell<[Texts; CONNECTIONS]> =
    ConstStaticCell::new([const { Texts::new() }; CONNECTIONS]);

/// What a connection hears and says.
#[derive(Debug)]
struct Texts {
    request: String<1024>,
    /// The head of an answer, and its body if that is text.
    answer: Answer,
}

impl Texts {
    const fn new() -> Self {
        Self {
            request: String::new(),
            answer: Answer::new(),
        }
    }
}

/// One connection, or the wait for one.
#[derive(Debug)]
pub(crate) struct Connection {
    number: usize,
    handle: SocketHandle,
    texts: &'static mut Texts,
    answer: Option<Sending>,
}

/// An answer on its way.
#[derive(Debug)]
struct Sending {
    /// Bytes of the text.
    sent: usize,
    /// Sectors of the disk that follow.
    body: Option<Body>,
    /// Whether another request may follow.
    goes_on: bool,
}

#[derive(Clone, Copy, Debug)]
struct Body {
    /// The first sector that was not asked for yet, and the end.
    next: u64,
    end: u64,
    /// Of the piece that is there or on its way: bytes sent, bytes.
    piece: Option<(usize, usize)>,
}

/// Makes all connections.
pub(crate) fn all(sockets: &mut SocketSet<'_>) -> Vec<Connection, CONNECTIONS> {
    let buffers = RX.take().iter_mut().zip(TX.take());
    let mut all = Vec::new();
    for ((number, texts), (rx, tx)) in (0..).zip(TEXTS.take()).zip(buffers) {
        let socket = tcp::Socket::new(
            tcp::SocketBuffer::new(&mut rx[..]),
            tcp::SocketBuffer::new(&mut tx[..]),
        );
        // There are as many buffers as connections.
        let _ = all.push(Connection {
            number,
            handle: sockets.add(socket),
            texts,
            answer: None,
        });
    }
    all
}

/// Has somebody listen, if need be instead of waiting for what may be left of an old connection.
pub(crate) fn keep_listening(connections: &[Connection], sockets: &mut SocketSet<'_>) {
    let mut old = None;
    for connection in connections {
        match sockets.get::<tcp::Socket<'_>>(connection.handle).state() {
            tcp::State::Listen | tcp::State::Closed => return,
            tcp::State::TimeWait => old = Some(connection.handle),
            _ => {}
        }
    }
    if let Some(handle) = old {
        sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
    }
}

impl Connection {
    /// Goes on as far as that goes without waiting; true when there is something to send.
    pub(crate) fn serve(
        &mut self,
        sockets: &mut SocketSet<'_>,
        machine: &mut Machine,
        facts: &Facts,
    ) -> bool {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        if !socket.is_open() {
            self.texts.request.clear();
            self.answer = None;
            // A closed socket can listen.
            let _ = socket.listen(PORT);
            return false;
        }
        if self.answer.is_none() {
            self.hear(socket, machine, facts);
        }
        let before = socket.send_queue();
        self.say(socket, machine);
        socket.send_queue() != before
    }

    /// Takes what has come of a request; when it is whole, there is an answer.
    fn hear(&mut self, socket: &mut tcp::Socket<'_>, machine: &mut Machine, facts: &Facts) {
        let Texts { request, answer } = &mut *self.texts;
        let mut fits = true;
        while fits && socket.can_recv() && !request.ends_with("\r\n\r\n") {
            let taken = socket.recv(|bytes| match bytes.first() {
                Some(byte) => {
                    fits = request.push(char::from(*byte)).is_ok();
                    (1, ())
                }
                None => (0, ()),
            });
            fits &= taken.is_ok();
        }
        if request.ends_with("\r\n\r\n") {
            self.answer = Some(respond(request, answer, machine, facts));
            request.clear();
        } else if !fits {
            self.answer = Some(text(
                answer,
                "431 Request Header Fields Too Large",
                "too long\n",
                false,
            ));
        } else if socket.state() == tcp::State::CloseWait {
            // Nothing more will come.
            socket.close();
        }
    }

    /// Sends as much of the answer as there is room for.
    fn say(&mut self, socket: &mut tcp::Socket<'_>, machine: &mut Machine) {
        let Some(answer) = &mut self.answer else {
            return;
        };
        let text = self.texts.answer.as_bytes();
        let rest = text.get(answer.sent..).unwrap_or_default();
        answer.sent += socket.send_slice(rest).unwrap_or(0);
        if answer.sent < text.len() {
            return;
        }
        let done = match &mut answer.body {
            None => Ok(true),
            Some(body) => body.send(self.number, socket, machine),
        };
        match done {
            Ok(false) => {}
            Ok(true) => {
                if !answer.goes_on {
                    socket.close();
                }
                self.answer = None;
            }
            // All that is left is not to pretend that this was everything.
            Err(Unreadable) => socket.abort(),
        }
    }
}

/// The disk does not give what was asked for.
struct Unreadable;

impl Body {
    /// Sends what is there and asks for more; true when all is sent.
    fn send(
        &mut self,
        number: usize,
        socket: &mut tcp::Socket<'_>,
        machine: &mut Machine,
    ) -> Result<bool, Unreadable> {
        let disk = machine.disk.as_mut().ok_or(Unreadable)?;
        loop {
            let Some((sent, len)) = &mut self.piece else {
                let count = self.end.saturating_sub(self.next).min(PIECE);
                if count == 0 {
                    return Ok(true);
                }
                if !disk.load(&mut machine.bus, number, self.next, count) {
                    return Err(Unreadable);
                }
                self.piece = Some((0, bytes(count)));
                self.next += count;
                continue;
            };
            match disk.state(number) {
                Load::Pending => return Ok(false),
                Load::Failed => return Err(Unreadable),
                Load::Done => {}
            }
            while sent < len {
                let copied = socket.send(|room| {
                    let room_len = room.len().min(*len - *sent);
                    let copied = disk::read(number, *sent, &mut room[..room_len]);
                    (copied, copied)
                });
                match copied {
                    Ok(0) => return Ok(false),
                    Ok(copied) => *sent += copied,
                    Err(_) => return Err(Unreadable),
                }
            }
            self.piece = None;
        }
    }
}

fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors).unwrap_or(0) * SECTOR_SIZE
}

/// The answer to a request.
fn respond(request: &str, answer: &mut Answer, machine: &mut Machine, facts: &Facts) -> Sending {
    let mut words = request.lines().next().unwrap_or("").split(' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    let closes = |line: &str| {
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        key.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close")
    };
    let goes_on = version == Some("HTTP/1.1") && !request.lines().any(closes);
    let (Some("GET"), Some(path)) = (method, path) else {
        return text(answer, "405 Method Not Allowed", "GET only\n", false);
    };
    let sectors = machine.disk.as_ref().and_then(|disk| disk.sectors());
    let range = match (path, path.strip_prefix("/sector/")) {
        ("/disk", _) => sectors.map(|sectors| (0, sectors)),
        (_, Some(number)) => number
            .parse()
            .ok()
            .filter(|number: &u64| sectors.is_some_and(|sectors| *number < sectors))
            .map(|number| (number, number + 1)),
        _ => None,
    };
    match (path, range) {
        ("/", _) => {
            let page = facts.page(machine);
            let sending = head(answer, "200 OK", "text/html", page.len(), goes_on);
            // Both fit: a page is shorter than an answer by far more than a head.
            let _ = answer.push_str(&page);
            sending
        }
        (_, Some((first, end))) => Sending {
            body: Some(Body {
                next: first,
                end,
                piece: None,
            }),
            ..head(
                answer,
                "200 OK",
                "application/octet-stream",
                bytes(end - first),
                goes_on,
            )
        },
        _ => text(answer, "404 Not Found", "there is no such page\n", goes_on),
    }
}

fn text(answer: &mut Answer, status: &str, text: &str, goes_on: bool) -> Sending {
    let sending = head(answer, status, "text/plain", text.len(), goes_on);
    // Short as they are, both fit.
    let _ = answer.push_str(text);
    sending
}

fn head(answer: &mut Answer, status: &str, kind: &str, length: usize, goes_on: bool) -> Sending {
    let connection = if goes_on { "keep-alive" } else { "close" };
    answer.clear();
    // It fits.
    let _ = write!(
        answer,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n"
    );
    Sending {
        sent: 0,
        body: None,
        goes_on,
    }
}
