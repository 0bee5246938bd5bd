//! The answer to a handshake: read, checked against what the client asked for, rendered for the client.

use std::io::Write;

use bytes::Bytes;
use http::{Response, Version, header, response::Parts};

use super::{
    deflate::Deflate,
    head::{BadLength, content_length, headers},
    request::{Handshake, has_token, stays_here, text, write_field},
};
use crate::{NodeState, contract};

/// The head of an answer.
#[derive(Debug)]
pub struct ResponseHead {
    /// The head, parsed.
    pub parts: Parts,
    /// As it came: names in their own case, fields in their own order.
    raw: Bytes,
}

impl ResponseHead {
    /// The most bytes of an answer's head: 32 KiB.
    pub const MAX_LEN: usize = 32 * 1024;
    /// The most header fields of an answer: 100.
    pub const MAX_FIELDS: usize = 100;

    /// Parses the head at the beginning of `bytes`: `None` while it is incomplete, else the head and its length.
    ///
    /// # Errors
    ///
    /// [`Nonsense`] when this is no HTTP/1 answer, or a longer one than is bearable.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Nonsense> {
        let bytes = &bytes[..bytes.len().min(Self::MAX_LEN)];
        let mut fields = [httparse::EMPTY_HEADER; Self::MAX_FIELDS];
        let mut raw = httparse::Response::new(&mut fields);
        let len = match raw.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() == Self::MAX_LEN => {
                return Err(Nonsense("more than 32 KiB of head"));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Nonsense("more than 100 header fields")),
            Err(_) => return Err(Nonsense("not an HTTP/1.1 answer")),
        };
        let version = if raw.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let response = Response::builder().status(raw.code.unwrap_or_default()).version(version).body(());
        let mut response = response.map_err(|_| Nonsense("not a status"))?;
        *response.headers_mut() = headers(raw.headers).ok_or(Nonsense("an invalid header field"))?;
        let (parts, ()) = response.into_parts();
        Ok(Some((Self { parts, raw: Bytes::copy_from_slice(&bytes[..len]) }, len)))
    }

    /// How the body of this answer ends.
    ///
    /// # Errors
    ///
    /// [`Nonsense`] when two readers might see two different ends.
    pub fn framing(&self) -> Result<Framing, Nonsense> {
        let headers = &self.parts.headers;
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let (coding, None) = (codings.next(), codings.next()) else {
            return Err(Nonsense("two Transfer-Encodings"));
        };
        let length = content_length(headers).map_err(|BadLength| Nonsense("not one Content-Length"))?;
        if self.parts.status.is_informational() || matches!(self.parts.status.as_u16(), 204 | 304) {
            return Ok(Framing::Empty);
        }
        match (coding, length) {
            (None, None) => Ok(Framing::UntilClose),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), Some(_)) => Err(Nonsense("both a Content-Length and a Transfer-Encoding")),
            (Some(_), None) if self.parts.version == Version::HTTP_10 => {
                Err(Nonsense("a Transfer-Encoding in HTTP/1.0"))
            }
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            (Some(_), None) => Err(Nonsense("a Transfer-Encoding other than chunked")),
        }
    }

    /// Whether the connection may carry another request.
    pub(crate) fn persists(&self) -> bool {
        self.parts.version == Version::HTTP_11
            && !has_token(&self.parts.headers, &header::CONNECTION, "close")
            && self.framing() != Ok(Framing::UntilClose)
    }

    /// The state that a sidecar tells of itself. A plain node tells none.
    #[must_use]
    pub fn state(&self) -> Option<NodeState> {
        self.parts.headers.get(contract::STATE)?.to_str().ok()?.parse().ok()
    }

    /// Why the sidecar refuses, if this is its own refusal and not the app's answer.
    #[must_use]
    pub fn sidecar_error(&self) -> Option<&str> {
        self.parts.headers.get(contract::ERROR).map(|why| why.to_str().unwrap_or("unreadable"))
    }

    /// The app's refusal as the client gets it: unchanged but for hop-by-hop headers and ours. The connection is to be
    /// closed after its body.
    #[must_use]
    pub fn render(&self) -> Bytes {
        let mut out = self.begin();
        let chunked = matches!(self.framing(), Ok(Framing::Chunked));
        self.each_field(|name, value| {
            if !stays_here(&self.parts.headers, name) {
                write_field(&mut out, name, value);
            }
        });
        if chunked {
            write_field(&mut out, "Transfer-Encoding", b"chunked");
        }
        match self.parts.headers.get(header::UPGRADE) {
            // A 426 says with it what the app would speak.
            Some(upgrade) if self.parts.status.as_u16() == 426 => {
                write_field(&mut out, "Connection", b"Upgrade, close");
                write_field(&mut out, "Upgrade", upgrade.as_bytes());
            }
            _ => write_field(&mut out, "Connection", b"close"),
        }
        out.extend_from_slice(b"\r\n");
        out.into()
    }

    fn begin(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw.len() + 256);
        let line =
            self.raw.split(|&b| b == b'\n').find(|line| line.starts_with(b"HTTP/")).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        out.extend_from_slice(b"HTTP/1.1");
        out.extend_from_slice(line.get(8..).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
        out
    }

    fn each_field(&self, mut f: impl FnMut(&str, &[u8])) {
        let mut fields = [httparse::EMPTY_HEADER; Self::MAX_FIELDS];
        let mut raw = httparse::Response::new(&mut fields);
        // It was parsed before, so it parses again.
        if raw.parse(&self.raw).is_ok() {
            raw.headers.iter().for_each(|field| f(field.name, field.value));
        }
    }
}

/// How the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What client and app have agreed. A move is possible only to a leg that agrees the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// The subprotocol.
    pub protocol: Option<Box<str>>,
    /// The parameters of permessage-deflate.
    pub deflate: Option<Deflate>,
}

/// A 101 that is a right answer to the client's handshake.
#[derive(Debug)]
pub struct Accepted {
    head: ResponseHead,
    agreed: Agreed,
    /// The subprotocol that the client is answered when the app agrees none.
    fallback: Option<Box<str>>,
}

impl Accepted {
    /// What was agreed.
    #[must_use]
    pub const fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// The state that a sidecar tells of itself. A plain node tells none.
    #[must_use]
    pub fn state(&self) -> Option<NodeState> {
        self.head.state()
    }

    /// Adds `client_no_context_takeover` to an agreed permessage-deflate: another app that takes the connection over
    /// later can then read what the client compresses. RFC 7692 lets a server ask for it unasked. What
    /// [`Accepted::agreed`] tells includes it.
    #[must_use]
    pub fn movable(mut self) -> Self {
        if let Some(deflate) = &mut self.agreed.deflate {
            deflate.client_no_context_takeover = true;
        }
        self
    }

    /// Answers the client that subprotocol when the app agrees none: one of the client's that the app was not offered.
    /// [`Accepted::agreed`] tells what the app says, as legs are compared by that.
    #[must_use]
    pub fn or_agreed(mut self, protocol: Box<str>) -> Self {
        self.fallback = Some(protocol);
        self
    }

    /// The 101 as the client gets it, with `state` if a sidecar answers its balancer.
    ///
    /// Unchanged, cookies included, but for hop-by-hop headers, ours, and the extension's parameters.
    #[must_use]
    pub fn render(&self, state: Option<NodeState>) -> Bytes {
        let mut out = self.head.begin();
        self.head.each_field(|name, value| {
            let rewritten = ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Content-Length"];
            let here = stays_here(&self.head.parts.headers, name);
            if !here && !rewritten.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                write_field(&mut out, name, value);
            }
        });
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        if let Some(protocol) = self.agreed.protocol.as_ref().or(self.fallback.as_ref()) {
            write_field(&mut out, "Sec-WebSocket-Protocol", protocol.as_bytes());
        }
        if let Some(deflate) = &self.agreed.deflate {
            // Writing to a vector cannot fail.
            let _ = write!(out, "Sec-WebSocket-Extensions: {deflate}\r\n");
        }
        if let Some(state) = state {
            write_field(&mut out, contract::STATE, state.as_str().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.into()
    }
}

impl Handshake {
    /// Checks a 101 against what the client asked for.
    ///
    /// # Errors
    ///
    /// [`Nonsense`] when it is no right answer: then the client must not see it.
    pub fn accepted(&self, head: ResponseHead) -> Result<Accepted, Nonsense> {
        let headers = &head.parts.headers;
        if head.parts.status.as_u16() != 101 || head.parts.version != Version::HTTP_11 {
            return Err(Nonsense("not a 101 of HTTP/1.1"));
        }
        let upgrade = text(headers, &header::UPGRADE);
        if !upgrade.eq_ignore_ascii_case("websocket") || !has_token(headers, &header::CONNECTION, "upgrade") {
            return Err(Nonsense("a 101 that does not upgrade to websocket"));
        }
        let mut accepts = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        match (accepts.next(), accepts.next()) {
            (Some(accept), None) if *accept == *self.accept() => {}
            _ => return Err(Nonsense("a 101 without the right Sec-WebSocket-Accept")),
        }
        let agreed = Agreed { protocol: self.agreed_protocol(&head)?, deflate: self.agreed_deflate(&head)? };
        Ok(Accepted { head, agreed, fallback: None })
    }

    fn agreed_protocol(&self, head: &ResponseHead) -> Result<Option<Box<str>>, Nonsense> {
        let mut lines = head.parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => {
                let offered = self.protocols().find(|protocol| line.as_bytes() == protocol.as_bytes());
                offered
                    .map(|p| Some(p.into()))
                    .ok_or(Nonsense("a 101 with a subprotocol that was not offered"))
            }
            _ => Err(Nonsense("a 101 with two subprotocols")),
        }
    }

    fn agreed_deflate(&self, head: &ResponseHead) -> Result<Option<Deflate>, Nonsense> {
        let extensions = &head.parts.headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
        if extensions.iter().all(|line| line.is_empty()) {
            return Ok(None);
        }
        let text = text(&head.parts.headers, &header::SEC_WEBSOCKET_EXTENSIONS);
        let agreed = Deflate::agreed(&text);
        let offered = agreed.filter(|agreed| self.deflate_offers().any(|offer| offer.allows(agreed)));
        offered.map(Some).ok_or(Nonsense("a 101 with an extension that was not offered"))
    }
}

/// What is wrong with an answer: it breaks the protocol, or is none that this handshake can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Nonsense(pub(crate) &'static str);

impl Nonsense {
    /// What was answered.
    #[must_use]
    pub const fn what(self) -> &'static str {
        self.0
    }
}
