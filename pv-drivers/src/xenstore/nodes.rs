//! A guest's usual questions: nodes by their path, values as text.

use core::fmt::{Display, Write as _};

use abi::xs_wire::kind;
use heapless::String;

use super::{Client, ClientError};

/// A path or a value.
pub type Text = String<128>;

/// Formats what goes into a message.
pub(crate) fn text(value: impl Display) -> Result<Text, ClientError> {
    let mut text = Text::new();
    write!(text, "{value}").map_err(|_| ClientError::TooLong)?;
    Ok(text)
}

impl Client {
    /// A node's value.
    ///
    /// # Errors
    /// [`ClientError`]; `Refused("ENOENT")` when there is no such node.
    pub fn read(&mut self, path: impl Display) -> Result<Text, ClientError> {
        self.question(kind::READ, path, "")
    }

    /// Sets a node's value, and makes the node if there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn write(&mut self, path: impl Display, value: impl Display) -> Result<(), ClientError> {
        self.question(kind::WRITE, path, value).map(drop)
    }

    /// Removes a node and all below it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn remove(&mut self, path: impl Display) -> Result<(), ClientError> {
        self.question(kind::RM, path, "").map(drop)
    }

    /// Asks for events about a node and all below it; `token` comes with each of them. The first
    /// one comes at once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn watch(&mut self, path: impl Display, token: &str) -> Result<(), ClientError> {
        let token = text(format_args!("{token}\0"))?;
        self.question(kind::WATCH, path, token).map(drop)
    }

    fn question(
        &mut self,
        kind: u32,
        path: impl Display,
        value: impl Display,
    ) -> Result<Text, ClientError> {
        let (path, value) = (text(path)?, text(value)?);
        let mut answer = [0; 128];
        let words = [path.as_bytes(), &[0], value.as_bytes()];
        let len = self.ask(kind, 0, &words, &mut answer)?;
        let bytes = answer.get(..len).unwrap_or_default();
        let mut text = Text::new();
        for byte in bytes {
            text.push(char::from(*byte))
                .map_err(|_| ClientError::TooLong)?;
        }
        Ok(text)
    }
}
