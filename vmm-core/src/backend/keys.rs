//! The two directories of a device in the xenstore (Xen, `docs/misc/xenstore-paths.pandoc`).

use core::fmt::{self, Display, Write as _};
use core::str;

use abi::DomId;
use abi::xenbus::XenbusState;
use heapless::String;
use xenstore::{Access, Control, Error, Perms};

use super::front::Refusal;
use crate::store;

/// What a path or a value of ours fits into.
type Text = String<128>;

/// A device's directories: the front end's, which its domain owns, and the back end's, which that
/// domain may read.
struct Paths {
    front: Text,
    back: Text,
}

/// A device's keys, with the store at hand.
pub(super) struct Keys<'a, 's> {
    control: &'a mut Control<'s>,
    paths: Paths,
}

/// The keys that a device has from the start. To write all of them takes long, so others have the store
/// and the pCPU in between.
pub(super) struct Announcement<'a> {
    paths: Paths,
    give_way: &'a mut dyn FnMut(),
}

/// The directory of all back ends of a kind for one domain.
pub(super) fn back_home(kind: &str, domain: DomId) -> Text {
    text(format_args!("/local/domain/0/backend/{kind}/{domain}"))
}

/// A text of ours. One that is too long is no path and no value that fits, and is refused later.
fn text(value: impl Display) -> Text {
    let mut text = Text::new();
    let _ = write!(text, "{value}");
    text
}

impl Paths {
    fn new(kind: &str, domain: DomId, number: u32) -> Self {
        let back = back_home(kind, domain);
        Self {
            front: text(format_args!(
                "/local/domain/{domain}/device/{kind}/{number}"
            )),
            back: text(format_args!("{back}/{number}")),
        }
    }
}

impl<'a> Announcement<'a> {
    pub(super) fn new(
        kind: &str,
        domain: DomId,
        number: u32,
        give_way: &'a mut dyn FnMut(),
    ) -> Self {
        Self {
            paths: Paths::new(kind, domain, number),
            give_way,
        }
    }

    /// Makes both directories, with what a toolstack writes for each kind of device.
    pub(super) fn make(&mut self, domain: DomId, kind: &str) -> Result<(), Error> {
        let readable = Perms::new(DomId::CONTROL, Access::empty()).with(domain, Access::READ);
        let above = text(format_args!("/local/domain/{domain}/device/{kind}"));
        let (front, back) = (self.paths.front.clone(), self.paths.back.clone());
        let own = Perms::new(domain, Access::empty());
        for (path, perms) in [(&above, readable.clone()), (&front, own), (&back, readable)] {
            self.change(|control| control.make(path, perms))?;
        }
        self.set("frontend", &front)?;
        self.set("frontend-id", domain)?;
        self.set("online", 1)?;
        self.set_front("backend", &back)?;
        self.set_front("backend-id", DomId::CONTROL)?;
        self.set_front("state", XenbusState::Initialising.text())
    }

    /// Sets a key of the back end's.
    pub(super) fn set(&mut self, key: &str, value: impl Display) -> Result<(), Error> {
        let path = text(format_args!("{}/{key}", self.paths.back));
        self.change(|control| control.write(&path, text(value).as_bytes()))
    }

    /// Sets a key of the front end's, before there is one.
    pub(super) fn set_front(&mut self, key: &str, value: impl Display) -> Result<(), Error> {
        let path = text(format_args!("{}/{key}", self.paths.front));
        self.change(|control| control.write(&path, text(value).as_bytes()))
    }

    fn change(
        &mut self,
        act: impl FnOnce(&mut Control<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        (self.give_way)();
        store::control(act).ok_or(Error::Enomem)?
    }
}

impl<'a, 's> Keys<'a, 's> {
    pub(super) fn new(
        control: &'a mut Control<'s>,
        kind: &str,
        domain: DomId,
        number: u32,
    ) -> Self {
        Self {
            control,
            paths: Paths::new(kind, domain, number),
        }
    }

    /// Sets a key of the back end's.
    pub(super) fn set(&mut self, key: &str, value: impl Display) -> Result<(), Error> {
        let path = text(format_args!("{}/{key}", self.paths.back));
        self.control.write(&path, text(value).as_bytes())
    }

    /// Has the store watch the front end's state.
    pub(super) fn watch_front(&mut self, number: u64) -> Result<(), Error> {
        let path = text(format_args!("{}/state", self.paths.front));
        self.control.watch(&path, number)
    }

    /// A key of the front end's.
    pub(super) fn front(&self, key: impl Display) -> Option<&[u8]> {
        self.control
            .read(&text(format_args!("{}/{key}", self.paths.front)))
    }

    /// A number of the front end's; `None` when there is no such key. `what` is how the key is
    /// called if it is no good.
    pub(super) fn front_number(
        &self,
        key: impl Display,
        what: &'static str,
    ) -> Result<Option<u32>, Refusal> {
        self.front(key)
            .map(|value| number(value).ok_or(Refusal::Key(what)))
            .transpose()
    }
}

/// The directory of a queue's keys: one of its own, or the device's if that has one queue only.
#[derive(Clone, Copy)]
pub(super) struct Prefix(pub(super) Option<u16>);

impl Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "queue-{number}/"),
            None => Ok(()),
        }
    }
}

/// A number in decimal.
fn number(value: &[u8]) -> Option<u32> {
    let digits = value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"4294967295"), Some(u32::MAX));
        for bad in [
            &b""[..],
            b"4294967296",
            b"+1",
            b"-1",
            b" 1",
            b"1\n",
            b"0x1",
            b"\xff",
        ] {
            assert_eq!(number(bad), None);
        }
    }
}
