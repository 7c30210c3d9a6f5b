//! One serial line for everybody: who is shown how, and who gets what is typed.
//!
//! The line has a focus: one domain's console, or the hypervisor's log. What the focus writes
//! goes out as it is; what others write goes out line by line, marked with its writer's name.
//! Ctrl-] and a key is for the multiplexer itself; Ctrl-] twice sends one on.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use abi::DomId;
use lists::TryPush as _;

/// The character that begins a command: Ctrl-].
pub const ESCAPE: u8 = 0x1d;

/// The longest line of an unfocused console that is kept together.
const LINE_LIMIT: usize = 512;

/// Who writes, or is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// The hypervisor's log.
    Log,
    /// A domain.
    Domain(DomId),
}

/// What a typed byte means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Nothing, or it was dealt with.
    Nothing,
    /// A byte for a domain.
    Byte(DomId, u8),
    /// A domain is to be asked for something.
    Ask(DomId, Wish),
    /// End the run.
    Quit,
}

/// What the hypervisor asks a guest to do by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Shut down.
    Poweroff,
    /// Shut down and start anew.
    Reboot,
    /// Take more of the memory that it may have.
    MoreMemory,
    /// Give memory back.
    LessMemory,
}

#[derive(Debug)]
struct Source {
    id: DomId,
    name: String,
    line: Vec<u8>,
}

/// The multiplexer. It writes through the closure given to each call.
#[derive(Debug, Default)]
pub struct Mux {
    sources: Vec<Source>,
    focus: Option<DomId>,
    /// True when the focus has written part of a line.
    mid_line: bool,
    escaped: bool,
}

impl Mux {
    /// A multiplexer with no domains, showing the log.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sources: Vec::new(),
            focus: None,
            mid_line: false,
            escaped: false,
        }
    }

    /// Adds a domain's console; the first one becomes the focus.
    pub fn add(&mut self, id: DomId, name: &str) {
        self.sources.push(Source {
            id,
            name: String::from(name),
            line: Vec::new(),
        });
        if self.focus.is_none() && self.sources.len() == 1 {
            self.focus = Some(id);
        }
    }

    /// Removes a domain's console, writing what is left of its last line. The focus moves to
    /// the first of the others.
    pub fn remove(&mut self, id: DomId, out: &mut dyn FnMut(&[u8])) {
        let Some(at) = self.sources.iter().position(|source| source.id == id) else {
            return;
        };
        let source = self.sources.remove(at);
        if !source.line.is_empty() {
            self.whole_line(&source.name, &source.line, out);
        }
        if self.focus == Some(id) {
            self.end_line(out);
            self.focus = self.sources.first().map(|source| source.id);
            self.announce(out);
        }
    }

    /// Shows bytes that a party wrote.
    pub fn output(&mut self, from: Party, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        match from {
            Party::Log => {
                self.end_line(out);
                out(bytes);
            }
            Party::Domain(id) if self.focus == Some(id) => {
                out(bytes);
                if let Some(last) = bytes.last() {
                    self.mid_line = *last != b'\n';
                }
            }
            Party::Domain(id) => self.buffered(id, bytes, out),
        }
    }

    fn buffered(&mut self, id: DomId, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        let Some(at) = self.sources.iter().position(|source| source.id == id) else {
            return;
        };
        for &byte in bytes {
            let Some(source) = self.sources.get_mut(at) else {
                return;
            };
            match byte {
                b'\n' => {
                    let line = core::mem::take(&mut source.line);
                    let name = core::mem::take(&mut source.name);
                    self.whole_line(&name, &line, out);
                    if let Some(source) = self.sources.get_mut(at) {
                        source.name = name;
                    }
                }
                b'\r' => {}
                _ if source.line.len() < LINE_LIMIT => {
                    // Without memory for it, as beyond the limit, a line loses its end.
                    let _ = source.line.try_push(byte);
                }
                _ => {}
            }
        }
    }

    /// Takes a byte that was typed.
    pub fn input(&mut self, byte: u8, out: &mut dyn FnMut(&[u8])) -> Input {
        if !core::mem::take(&mut self.escaped) {
            if byte == ESCAPE {
                self.escaped = true;
                return Input::Nothing;
            }
            return self.to_focus(byte);
        }
        match byte {
            ESCAPE => return self.to_focus(ESCAPE),
            b'0' | b'l' => self.set_focus(None, out),
            b'1'..=b'9' => {
                let index = usize::from(byte.wrapping_sub(b'1'));
                match self.sources.get(index).map(|source| source.id) {
                    Some(id) => self.set_focus(Some(id), out),
                    None => self.note(format_args!("there is no console {}", index + 1), out),
                }
            }
            b'q' => return Input::Quit,
            b'p' => return self.ask(Wish::Poweroff, out),
            b'r' => return self.ask(Wish::Reboot, out),
            b'+' => return self.ask(Wish::MoreMemory, out),
            b'-' => return self.ask(Wish::LessMemory, out),
            _ => self.help(out),
        }
        Input::Nothing
    }

    fn to_focus(&self, byte: u8) -> Input {
        self.focus
            .map_or(Input::Nothing, |id| Input::Byte(id, byte))
    }

    /// Has the domain shown asked for something.
    fn ask(&mut self, wish: Wish, out: &mut dyn FnMut(&[u8])) -> Input {
        if let Some(id) = self.focus {
            return Input::Ask(id, wish);
        }
        self.note(
            format_args!("no domain is shown: Ctrl-] and 1-9 first"),
            out,
        );
        Input::Nothing
    }

    fn set_focus(&mut self, focus: Option<DomId>, out: &mut dyn FnMut(&[u8])) {
        self.end_line(out);
        self.focus = focus;
        if let Some(source) = self
            .sources
            .iter_mut()
            .find(|source| Some(source.id) == focus)
        {
            let line = core::mem::take(&mut source.line);
            self.announce(out);
            self.mid_line = !line.is_empty();
            out(&line);
        } else {
            self.announce(out);
        }
    }

    fn announce(&mut self, out: &mut dyn FnMut(&[u8])) {
        self.end_line(out);
        let mut sources = self.sources.iter();
        let shown = sources.find(|source| Some(source.id) == self.focus);
        let name = shown.map_or("the hypervisor's log", |source| &source.name);
        say(format_args!("console: {name} (Ctrl-] h for help)"), out);
    }

    fn help(&mut self, out: &mut dyn FnMut(&[u8])) {
        self.note(
            format_args!("Ctrl-] and: 1-9 a domain's console, l the log, q quit"),
            out,
        );
        self.note(
            format_args!("for the domain shown: p power off, r reboot, + and - memory"),
            out,
        );
        let list = fmt::from_fn(|f| {
            for (number, source) in (1..usize::MAX).zip(&self.sources) {
                let is_shown = self.focus == Some(source.id);
                let shown = if is_shown { " (shown)" } else { "" };
                write!(f, " {number}: {}{shown}", source.name)?;
            }
            Ok(())
        });
        say(format_args!("consoles:{list}"), out);
    }

    fn note(&mut self, text: fmt::Arguments<'_>, out: &mut dyn FnMut(&[u8])) {
        self.end_line(out);
        say(text, out);
    }

    fn whole_line(&mut self, name: &str, line: &[u8], out: &mut dyn FnMut(&[u8])) {
        self.end_line(out);
        out(b"(");
        out(name.as_bytes());
        out(b") ");
        out(line);
        out(b"\r\n");
    }

    fn end_line(&mut self, out: &mut dyn FnMut(&[u8])) {
        if core::mem::take(&mut self.mid_line) {
            out(b"\r\n");
        }
    }
}

/// Writes a line of the hypervisor's own.
fn say(text: fmt::Arguments<'_>, out: &mut dyn FnMut(&[u8])) {
    struct Out<'a>(&'a mut dyn FnMut(&[u8]));

    impl fmt::Write for Out<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            (self.0)(text.as_bytes());
            Ok(())
        }
    }

    // The writer takes everything.
    let _ = write!(Out(out), "tessera: {text}\r\n");
}

#[cfg(test)]
mod tests {
    use super::{ESCAPE, Input, Mux, Party, Wish};
    use abi::DomId;
    use alloc::string::String;
    use alloc::vec::Vec;

    const A: DomId = DomId(1);
    const B: DomId = DomId(2);

    fn two() -> Mux {
        let mut mux = Mux::new();
        mux.add(A, "alpha");
        mux.add(B, "beta");
        mux
    }

    fn shown(act: impl FnOnce(&mut dyn FnMut(&[u8]))) -> String {
        let mut text = Vec::new();
        act(&mut |bytes: &[u8]| text.extend_from_slice(bytes));
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_focus_is_shown_as_it_writes_and_others_by_line() {
        let mut mux = two();
        let text = shown(|out| {
            mux.output(Party::Domain(A), b"~ # ", out);
            mux.output(Party::Domain(B), b"half a ", out);
            mux.output(Party::Domain(B), b"line\r\n", out);
            mux.output(Party::Domain(A), b"ls\r\n", out);
        });
        assert_eq!(text, "~ # \r\n(beta) half a line\r\nls\r\n");
    }

    #[test]
    fn typed_bytes_go_to_the_focus() {
        let mut mux = two();
        let mut none = |_: &[u8]| {};
        assert_eq!(mux.input(3, &mut none), Input::Byte(A, 3));
        assert_eq!(mux.input(ESCAPE, &mut none), Input::Nothing);
        assert_eq!(mux.input(b'2', &mut none), Input::Nothing);
        assert_eq!(mux.input(b'x', &mut none), Input::Byte(B, b'x'));
        assert_eq!(mux.input(ESCAPE, &mut none), Input::Nothing);
        assert_eq!(mux.input(ESCAPE, &mut none), Input::Byte(B, ESCAPE));
        mux.input(ESCAPE, &mut none);
        assert_eq!(mux.input(b'q', &mut none), Input::Quit);
        mux.input(ESCAPE, &mut none);
        assert_eq!(mux.input(b'r', &mut none), Input::Ask(B, Wish::Reboot));
        mux.input(ESCAPE, &mut none);
        mux.input(b'l', &mut none);
        assert_eq!(mux.input(b'x', &mut none), Input::Nothing);
        mux.input(ESCAPE, &mut none);
        assert_eq!(mux.input(b'r', &mut none), Input::Nothing);
    }

    #[test]
    fn a_domain_that_ends_hands_the_focus_on() {
        let mut mux = two();
        let text = shown(|out| mux.remove(A, out));
        assert_eq!(text, "tessera: console: beta (Ctrl-] h for help)\r\n");
        assert_eq!(mux.input(b'x', &mut |_| {}), Input::Byte(B, b'x'));
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut mux = two();
        for _ in 0..1000 {
            mux.output(Party::Domain(B), b"0123456789", &mut |_| {});
        }
        let text = shown(|out| mux.output(Party::Domain(B), b"\n", out));
        assert!(text.len() < 600, "{} bytes", text.len());
    }
}
