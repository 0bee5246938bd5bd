//! Events as NATS messages: CloudEvents 1.0, binary content mode; and what comes back.

use std::fmt;

use async_nats::{HeaderMap, Message as Taken};
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::{
    app::{
        event::{Events, Headers, Place},
        messages::Message,
        verdict::{Verdict, is_text_type, judge},
    },
    contract,
    key::Key,
    node::NodeId,
    proxy::handshake::{Handshake, LegHeaders},
};

/// Where the events of one connection go, and from where it is spoken to.
#[derive(Debug)]
pub(super) struct Subjects {
    events: Events,
    into: String,
    out: String,
    connection: Box<str>,
}

/// A message for the server.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

impl Subjects {
    pub(super) fn new(prefix: &str, node: &NodeId, leg: &LegHeaders) -> Self {
        let token = token(&leg.key);
        Self {
            events: Events::new(node, leg),
            into: format!("{prefix}.in.{token}"),
            out: format!("{prefix}.out.{token}"),
            connection: leg.connection.as_deref().unwrap_or("-").into(),
        }
    }

    /// Where replies and pushes come from.
    pub(super) fn out(&self) -> String {
        self.out.clone()
    }

    pub(super) fn connection(&self) -> Box<str> {
        self.connection.clone()
    }

    pub(super) fn connect(&self, handshake: &Handshake, leg: &LegHeaders) -> Request {
        self.request(Bytes::new(), |headers| self.events.connect(handshake, leg, headers))
    }

    pub(super) fn message(&self, place: Place, message: &Message) -> Request {
        let payload = Bytes::copy_from_slice(&message.payload);
        self.request(payload, |headers| self.events.message(place, message, headers))
    }

    pub(super) fn disconnect(&self, number: u64, code: u16, reason: &str) -> Request {
        self.request(Bytes::new(), |headers| self.events.disconnect(number, code, reason, headers))
    }

    /// Tells whoever serves this connection from now on where its part of what is pushed begins.
    pub(super) fn moved(&self) -> Request {
        let mut headers = HeaderMap::new();
        headers.insert(contract::NATS_MOVED, &*self.connection);
        Request { subject: self.out(), headers, payload: Bytes::new() }
    }

    fn request(&self, payload: Bytes, event: impl FnOnce(&mut HeaderMap)) -> Request {
        let mut headers = HeaderMap::new();
        self.events.common(&mut headers);
        event(&mut headers);
        Request { subject: self.into.clone(), headers, payload }
    }
}

impl Request {
    /// Its length, as the server counts it.
    pub(super) fn len(&self) -> usize {
        let lines = self.headers.iter().flat_map(|(name, values)| {
            values.iter().map(|value| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4)
        });
        "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>() + self.payload.len()
    }
}

/// A key as one word of a subject: all but ASCII letters, digits, `-`, `_` and `~` percent-encoded.
fn token(key: &Key) -> String {
    key.encoded().to_string().replace('.', "%2E")
}

impl Headers for HeaderMap {
    fn put(&mut self, name: &'static str, value: impl fmt::Display) {
        self.insert(name, &*value.to_string());
    }

    fn put_lines(&mut self, lines: &[u8]) {
        for line in lines.split(|&byte| byte == b'\n') {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            // A header of the client's that is no text is not for NATS, where headers are.
            if let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) {
                self.append(name.to_ascii_lowercase(), value);
            }
        }
    }
}

/// What the application answers, or pushes.
#[derive(Debug)]
pub(super) struct Answer {
    /// The header `ws-status`; 200 without one, 0 when it is no number.
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) payload: Bytes,
}

impl From<Taken> for Answer {
    fn from(taken: Taken) -> Self {
        let mut headers = http::HeaderMap::new();
        for (name, values) in taken.headers.iter().flat_map(HeaderMap::iter) {
            let Ok(name) = HeaderName::try_from(AsRef::<str>::as_ref(name)) else { continue };
            for value in values.iter().filter_map(|value| HeaderValue::from_str(value.as_str()).ok()) {
                headers.append(name.clone(), value);
            }
        }
        let status = headers.remove(contract::NATS_STATUS);
        let status =
            status.map_or(200, |value| value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(0));
        Self { status, headers, payload: taken.payload }
    }
}

impl Answer {
    /// What it means for the message that it answers; messages have at most `most` bytes.
    pub(super) fn judge(self, most: usize) -> Verdict {
        let text = self.is_text();
        judge(self.status, text, (self.payload.len() <= most).then(|| self.payload.into()))
    }

    /// What it is for a client.
    pub(super) fn into_message(self) -> Message {
        Message { text: self.is_text(), payload: self.payload.into() }
    }

    /// The connection that it is for; `None`: every one of the key.
    pub(super) fn connection(&self) -> Option<&str> {
        self.header("ce-connectionid")
    }

    /// The connection that ends here at its old node and begins at its new one.
    pub(super) fn moved(&self) -> Option<&str> {
        self.header(contract::NATS_MOVED)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// As the content type says; without one it is text if it is UTF-8.
    fn is_text(&self) -> bool {
        let utf8 = || str::from_utf8(&self.payload).is_ok();
        self.header("content-type").map_or_else(utf8, |kind| is_text_type(kind) && utf8())
    }
}
