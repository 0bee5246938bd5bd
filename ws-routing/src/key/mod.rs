//! The routing key, and where in a request it may be found.

#[cfg(feature = "jwt")]
pub mod jwt;
#[cfg(feature = "proxy")]
mod source;
#[cfg(feature = "proxy")]
mod token;

use std::{fmt, str::FromStr, sync::Arc};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

#[cfg(feature = "proxy")]
pub use source::{InvalidKeySource, KeySource, KeySources, PathTemplate};
#[cfg(feature = "proxy")]
pub use token::{BadKey, Credential, Found, InvalidToken, TokenReader};

/// What connections and messages are routed by: a user, device, document or room.
///
/// 1 to [`Key::MAX_LEN`] bytes of UTF-8, otherwise opaque. Cloning is a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 512;

    /// Takes `text` as a key.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] when it is empty or longer than [`Key::MAX_LEN`] bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidKey> {
        match text.as_ref() {
            "" => Err(InvalidKey(Fault::Empty)),
            long if long.len() > Self::MAX_LEN => Err(InvalidKey(Fault::TooLong(long.len()))),
            text => Ok(Self(text.into())),
        }
    }

    /// Undoes [`Key::encoded`]: percent-decodes `text`, then checks it as [`Key::new`] does.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] as [`Key::new`], or when a `%` is not followed by two hexadecimal digits or the decoded bytes are
    /// not UTF-8.
    pub fn decode(text: &str) -> Result<Self, InvalidKey> {
        if !is_well_escaped(text) {
            return Err(InvalidKey(Fault::BadEscape));
        }
        let text = percent_decode_str(text).decode_utf8().map_err(|_| InvalidKey(Fault::NotUtf8))?;
        Self::new(text)
    }

    /// Takes `bytes` as a key, as they are.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] as [`Key::new`], or when the bytes are not UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        Self::new(str::from_utf8(bytes).map_err(|_| InvalidKey(Fault::NotUtf8))?)
    }

    /// The key as it travels in a header or a path segment: all but unreserved characters percent-encoded.
    pub fn encoded(&self) -> impl fmt::Display + '_ {
        utf8_percent_encode(&self.0, ENCODED)
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether each `%` is followed by two hexadecimal digits.
pub(crate) fn is_well_escaped(text: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let mut parts = text.split('%').map(str::as_bytes);
    parts.next();
    parts.all(|part| is_hex(part.first()) && is_hex(part.get(1)))
}

/// All but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Self::new(text)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Text that cannot be a [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKey(Fault);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("the key is empty: expected 1 to 512 bytes of UTF-8")]
    Empty,
    #[error("the key has {0} bytes: expected 1 to 512")]
    TooLong(usize),
    #[error("the key is not UTF-8: expected 1 to 512 bytes of UTF-8")]
    NotUtf8,
    #[error("the key has a % without two hexadecimal digits: expected percent-encoding")]
    BadEscape,
}
