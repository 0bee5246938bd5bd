//! permessage-deflate (RFC 7692): what clients offer, and what apps may agree to.

use std::fmt;

/// The parameters of permessage-deflate that a connection has agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deflate {
    /// The app forgets its window after each message.
    pub server_no_context_takeover: bool,
    /// The client forgets its window after each message: what makes a move possible.
    pub client_no_context_takeover: bool,
    /// The size of the app's window, as a power of two. Absent: 15.
    pub server_max_window_bits: Option<u8>,
    /// The size of the client's window, as a power of two. Absent: 15.
    pub client_max_window_bits: Option<u8>,
}

impl Deflate {
    /// Reads an app's `Sec-WebSocket-Extensions`: `None` unless it is one permessage-deflate with valid parameters.
    pub(super) fn agreed(text: &str) -> Option<Self> {
        let mut elements = elements(text, ',');
        let (element, None) = (elements.next()?, elements.next()) else { return None };
        let read = Offer::read(element)?;
        // A size of its own window is a hint in a client's offer only.
        let client_max_window_bits = match read.client_max_window_bits {
            Some(None) => return None,
            bits => bits.flatten(),
        };
        Some(Self {
            server_no_context_takeover: read.server_no_context_takeover,
            client_no_context_takeover: read.client_no_context_takeover,
            server_max_window_bits: read.server_max_window_bits,
            client_max_window_bits,
        })
    }
}

impl fmt::Display for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Offer {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits: self.server_max_window_bits,
            client_max_window_bits: self.client_max_window_bits.map(Some),
        }
        .fmt(f)
    }
}

/// One way to compress that a client offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Whether the app may choose the client's window, and the size that the client hints at.
    client_max_window_bits: Option<Option<u8>>,
}

impl Offer {
    /// The valid offers of permessage-deflate in a client's `Sec-WebSocket-Extensions`; others are declined.
    pub(super) fn read_all(text: &str) -> impl Iterator<Item = Self> {
        elements(text, ',').filter_map(Self::read)
    }

    fn read(element: &str) -> Option<Self> {
        let mut parameters = elements(element, ';');
        if !parameters.next()?.eq_ignore_ascii_case("permessage-deflate") {
            return None;
        }
        let mut offer = Self::default();
        for parameter in parameters {
            offer.take(parameter)?;
        }
        Some(offer)
    }

    /// Takes one parameter in: `None` if it is unknown, twice there, or has a value that it cannot have.
    fn take(&mut self, parameter: &str) -> Option<()> {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(window_bits(value.trim())?)),
            None => (parameter, None),
        };
        match (name.to_ascii_lowercase().as_str(), value) {
            ("server_no_context_takeover", None) => set(&mut self.server_no_context_takeover),
            ("client_no_context_takeover", None) => set(&mut self.client_no_context_takeover),
            ("server_max_window_bits", Some(bits)) => fill(&mut self.server_max_window_bits, bits),
            ("client_max_window_bits", hint) => fill(&mut self.client_max_window_bits, hint),
            _ => None,
        }
    }

    /// Whether `agreed` is an answer that RFC 7692 allows to this offer.
    pub(super) fn allows(&self, agreed: &Deflate) -> bool {
        let server_window = match (self.server_max_window_bits, agreed.server_max_window_bits) {
            (None, _) => true,
            (Some(most), Some(bits)) => bits <= most,
            (Some(_), None) => false,
        };
        let client_window = match (self.client_max_window_bits, agreed.client_max_window_bits) {
            (_, None) | (Some(None), _) => true,
            (None, Some(_)) => false,
            (Some(Some(most)), Some(bits)) => bits <= most,
        };
        let server_forgets = agreed.server_no_context_takeover || !self.server_no_context_takeover;
        server_window && client_window && server_forgets
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("permessage-deflate")?;
        if self.server_no_context_takeover {
            f.write_str("; server_no_context_takeover")?;
        }
        if self.client_no_context_takeover {
            f.write_str("; client_no_context_takeover")?;
        }
        if let Some(bits) = self.server_max_window_bits {
            write!(f, "; server_max_window_bits={bits}")?;
        }
        match self.client_max_window_bits {
            Some(Some(bits)) => write!(f, "; client_max_window_bits={bits}"),
            Some(None) => f.write_str("; client_max_window_bits"),
            None => Ok(()),
        }
    }
}

/// The elements between `separator`s that stand outside of quotes, trimmed, without empty ones.
fn elements(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let outside = !quoted;
        (quoted, escaped) = match c {
            _ if escaped => (quoted, false),
            '"' => (!quoted, false),
            '\\' => (quoted, quoted),
            _ => (quoted, false),
        };
        outside && c == separator
    })
    .map(|element| element.trim_matches([' ', '\t']))
    .filter(|element| !element.is_empty())
}

/// 8 to 15, in decimal without leading zeros, with or without quotes.
fn window_bits(value: &str) -> Option<u8> {
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    ["8", "9", "10", "11", "12", "13", "14", "15"]
        .iter()
        .zip(8..)
        .find(|(text, _)| **text == value)
        .map(|(_, n)| n)
}

fn set(flag: &mut bool) -> Option<()> {
    (!std::mem::replace(flag, true)).then_some(())
}

fn fill<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}
