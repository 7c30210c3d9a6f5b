//! The one escape sequence that does not go to the machine: Ctrl-] x.

/// Ctrl-]: the hypervisor takes the key after it as a command.
const ESCAPE: u8 = 0x1d;

/// Looks at what is typed on its way to the machine. Ctrl-] is held back until the next key shows
/// whether it is for us.
#[derive(Debug, Default)]
pub(super) struct Escape {
    held: bool,
}

/// What to do with typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// Send these to the machine.
    pub(super) forward: Vec<u8>,
    /// Ctrl-] x was typed: kill the machine.
    pub(super) kill: bool,
}

impl Escape {
    /// Takes the next typed bytes.
    pub(super) fn feed(&mut self, typed: &[u8]) -> Typed {
        let mut forward = Vec::with_capacity(typed.len().saturating_add(1));
        for &key in typed {
            match (self.held, key) {
                (true, b'x' | b'X') => {
                    return Typed {
                        forward,
                        kill: true,
                    };
                }
                (true, _) => {
                    self.held = false;
                    forward.extend([ESCAPE, key]);
                }
                (false, ESCAPE) => self.held = true,
                (false, _) => forward.push(key),
            }
        }
        Typed {
            forward,
            kill: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ESCAPE, Escape, Typed};

    fn pass(bytes: &[u8]) -> Typed {
        Typed {
            forward: bytes.to_vec(),
            kill: false,
        }
    }

    #[test]
    fn everything_else_goes_through() {
        let mut escape = Escape::default();
        assert_eq!(escape.feed(b"ls\r\x03"), pass(b"ls\r\x03"));
        assert_eq!(
            escape.feed(&[ESCAPE, b'1', b'a']),
            pass(&[ESCAPE, b'1', b'a'])
        );
        assert_eq!(
            escape.feed(&[ESCAPE, ESCAPE, b'x']),
            pass(&[ESCAPE, ESCAPE, b'x'])
        );
    }

    #[test]
    fn kill_is_seen_across_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.feed(&[b'a', ESCAPE]), pass(b"a"));
        assert_eq!(
            escape.feed(b"xrest"),
            Typed {
                forward: Vec::new(),
                kill: true
            }
        );
    }

    #[test]
    fn a_held_escape_goes_with_the_next_key() {
        let mut escape = Escape::default();
        assert_eq!(escape.feed(&[ESCAPE]), pass(b""));
        assert_eq!(escape.feed(b"q"), pass(&[ESCAPE, b'q']));
        assert_eq!(escape.feed(b"x"), pass(b"x"));
    }
}
