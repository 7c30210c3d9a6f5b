//! Names of nodes: checked, absolute paths.

use core::fmt::Write as _;

use abi::DomId;
use abi::xs_wire::{ABS_PATH_MAX, REL_PATH_MAX};

use crate::Error;

/// Room for a relative path made absolute: `/local/domain/`, a number and a slash in front.
const BUFFER: usize = REL_PATH_MAX + 24;
/// The most components. What a path costs grows with its depth, and no device goes half as deep.
const DEPTH_MAX: usize = 64;

/// Where [`Path::parse`] puts together what a relative path stands for.
#[derive(Debug, Default)]
pub struct PathBuf(heapless::String<BUFFER>);

/// A checked path: absolute, no empty component, no slash at its end. Or a special name, which
/// begins with `@`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path<'a>(&'a str);

/// The prefix of a domain's own nodes.
const HOMES: &str = "/local/domain/";

impl<'a> Path<'a> {
    /// The root.
    pub const ROOT: Self = Self("/");

    /// Checks a path that a client names. A relative one lies below `/local/domain/<home>`.
    ///
    /// # Errors
    /// [`Error::Einval`]: a character that names do not have, an empty component, a slash at the
    /// end, too long, too deep.
    pub fn parse(text: &'a [u8], home: DomId, buffer: &'a mut PathBuf) -> Result<Self, Error> {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-/_@".contains(b);
        if text.is_empty() || text.len() > ABS_PATH_MAX || !text.iter().all(allowed) {
            return Err(Error::Einval);
        }
        let text = core::str::from_utf8(text).map_err(|_| Error::Einval)?;
        let path = if text.starts_with(['/', '@']) {
            Self(text)
        } else {
            buffer.0.clear();
            write!(buffer.0, "{HOMES}{home}/{text}").map_err(|_| Error::Einval)?;
            Self(&buffer.0)
        };
        if path.well_formed() {
            Ok(path)
        } else {
            Err(Error::Einval)
        }
    }

    /// A path of the hypervisor's own making.
    ///
    /// # Errors
    /// As [`Path::parse`].
    pub fn absolute(text: &'a str) -> Result<Self, Error> {
        let path = Self(text);
        let plain = text.starts_with('/') && text.len() <= ABS_PATH_MAX;
        if plain && path.well_formed() {
            Ok(path)
        } else {
            Err(Error::Einval)
        }
    }

    /// A path that was checked when it was stored.
    pub(crate) const fn stored(text: &'a str) -> Self {
        Self(text)
    }

    fn well_formed(self) -> bool {
        let inside_home = self.0.strip_prefix(HOMES).map(|rest| {
            rest.trim_start_matches(|c: char| c.is_ascii_digit())
                .trim_start_matches('/')
        });
        self.is_root()
            || (!self.0.ends_with('/')
                && !self.0.as_bytes().windows(2).any(|pair| pair == b"//")
                && inside_home.unwrap_or(self.0).len() <= REL_PATH_MAX
                && self.components().nth(DEPTH_MAX).is_none())
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// True for `/`.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.0 == "/"
    }

    /// True for names such as `@releaseDomain`, which no node has.
    #[must_use]
    pub fn is_special(self) -> bool {
        self.0.starts_with('@')
    }

    /// The components, from the root's child on.
    pub fn components(self) -> impl Iterator<Item = &'a str> {
        let mut rest = Some(self.0);
        let parts = core::iter::from_fn(move || {
            let text = rest?;
            let slash = text.as_bytes().iter().position(|&byte| byte == b'/');
            let cut = slash.and_then(|at| cut(text, at));
            let (part, behind) = cut.unzip();
            rest = behind;
            Some(part.unwrap_or(text))
        });
        parts.filter(|part| !part.is_empty())
    }

    /// The paths of all that lies above, and the path itself, from the root's child on.
    pub(crate) fn prefixes(self) -> impl Iterator<Item = Path<'a>> {
        let text = if self.is_root() { "" } else { self.0 };
        let ends = text
            .char_indices()
            .skip(1)
            .filter_map(|(at, c)| (c == '/').then_some(at));
        let whole = (!text.is_empty()).then_some(text.len());
        ends.chain(whole)
            .filter_map(move |end| text.get(..end).map(Path))
    }

    /// The path above; the root's is the root.
    #[must_use]
    pub fn parent(self) -> Self {
        match self.last_cut() {
            Some((above, _)) if !above.is_empty() => Self(above),
            _ => Self::ROOT,
        }
    }

    /// The last component; nothing for the root.
    #[must_use]
    pub fn name(self) -> &'a str {
        self.last_cut().map_or("", |(_, name)| name)
    }

    /// What is before the last slash, and what is behind it.
    fn last_cut(self) -> Option<(&'a str, &'a str)> {
        let slash = self.0.as_bytes().iter().rposition(|&byte| byte == b'/');
        cut(self.0, slash?)
    }

    /// True when `self` is `other` or lies above it.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        if self.is_root() {
            return !other.is_special();
        }
        other
            .0
            .strip_prefix(self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What is before the slash at `at`, and what is behind it.
fn cut(text: &str, at: usize) -> Option<(&str, &str)> {
    Some((text.get(..at)?, text.get(at.saturating_add(1)..)?))
}

#[cfg(test)]
mod tests {
    use super::{Path, PathBuf};
    use crate::Error;
    use abi::DomId;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn parse(text: &str) -> Result<String, Error> {
        let mut buffer = PathBuf::default();
        Path::parse(text.as_bytes(), DomId(7), &mut buffer).map(|path| path.as_str().to_string())
    }

    #[test]
    fn a_relative_path_lies_below_the_domains_own() {
        assert_eq!(parse("device/vbd"), Ok("/local/domain/7/device/vbd".into()));
        assert_eq!(parse("/local"), Ok("/local".into()));
        assert_eq!(parse("@releaseDomain"), Ok("@releaseDomain".into()));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for bad in ["", "a b", "/a/", "a//b", "a\0", "/a.b", "ä", "//"] {
            assert_eq!(parse(bad), Err(Error::Einval), "{bad:?}");
        }
        assert!(parse("/").is_ok());
        assert!(parse(&"/x".repeat(64)).is_ok());
        assert_eq!(parse(&"/x".repeat(65)), Err(Error::Einval));
        assert!(parse(&"x".repeat(2048)).is_ok());
        assert_eq!(parse(&"x".repeat(2049)), Err(Error::Einval));
        assert_eq!(
            parse(&("/".to_string() + &"x".repeat(2048))),
            Err(Error::Einval)
        );
        assert!(parse(&("/local/domain/12345/".to_string() + &"x".repeat(2048))).is_ok());
    }

    #[test]
    fn a_path_knows_what_is_above() {
        let path = Path::absolute("/a/b/c").unwrap();
        let prefixes: Vec<_> = path.prefixes().map(Path::as_str).collect();
        assert_eq!(prefixes, ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(Path::ROOT.prefixes().count(), 0);
        assert_eq!((path.parent().as_str(), path.name()), ("/a/b", "c"));
        assert_eq!(Path::absolute("/a").unwrap().parent(), Path::ROOT);
        assert!(path.parent().covers(path) && Path::ROOT.covers(path));
        assert!(!Path::absolute("/a/bb").unwrap().covers(path));
        assert!(Path::absolute("/a/b/").is_err());
    }
}
