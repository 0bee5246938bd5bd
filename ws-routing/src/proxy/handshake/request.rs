//! What is kept of a client's handshake, and how the next hop sees it.

use std::{fmt, io::Write, net::IpAddr, ops::Range};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request::Parts};
use sha1::{Digest, Sha1};

use super::{
    deflate::Offer,
    head::{content_length, framing},
    leg::LegHeaders,
    strip,
};
use crate::{
    contract,
    key::Credential,
    proxy::error::Refusal,
    trace::{SpanContext, TRACEPARENT},
};

/// A client's handshake, checked, and ready to be replayed at any node for as long as the connection lives.
///
/// It is one allocation of about the size of the client's head; clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    bytes: Bytes,
    ends: Ends,
}

/// Where the parts of [`Handshake::bytes`] end; each begins where the one before it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    target: u32,
    key: u32,
    protocols: u32,
    offers: u32,
}

/// Where a client entered: what the first process of ours adds to its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The client's address, for `x-forwarded-for`.
    pub client: IpAddr,
    /// Whether the client came by TLS, for `x-forwarded-proto`.
    pub secure: bool,
    /// Random bytes for a new `traceparent`, if the client sends none: 16 for the trace, 8 for the span.
    pub trace: [u8; 24],
}

impl Handshake {
    /// Takes a request as a WebSocket handshake that can be forwarded.
    ///
    /// Hop-by-hop headers and everything of ours (`ws-routing-*`, in either spelling) are left out, extensions are
    /// reduced to the valid offers of permessage-deflate. With `edge`, `x-forwarded-for` is appended to,
    /// `x-forwarded-proto`, `x-forwarded-host` and `traceparent` are added if they are absent; a new trace is marked
    /// as sampled, so that an app which follows its parent keeps tracing. Without `edge` these pass as they came: an
    /// earlier process of ours has seen to them.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotUpgrade`], [`Refusal::BadVersion`] and [`Refusal::Malformed`].
    pub fn check(parts: &Parts, edge: Option<&Edge>) -> Result<Self, Refusal> {
        let headers = &parts.headers;
        check_request(parts)?;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut bytes = Vec::with_capacity(target.len() + headers.len() * 48 + 128);
        let mut ends = Ends::default();
        bytes.extend_from_slice(target.as_bytes());
        ends.target = mark(&bytes)?;
        bytes.extend_from_slice(websocket_key(headers)?.as_bytes());
        ends.key = mark(&bytes)?;
        join(&mut bytes, headers, &header::SEC_WEBSOCKET_PROTOCOL);
        ends.protocols = mark(&bytes)?;
        write_offers(&mut bytes, &text(headers, &header::SEC_WEBSOCKET_EXTENSIONS), false);
        ends.offers = mark(&bytes)?;
        write_fields(&mut bytes, headers, edge);
        bytes.shrink_to_fit();
        Ok(Self { bytes: bytes.into(), ends })
    }

    /// Asks the app not to keep its compression window over messages (`server_no_context_takeover`), so that messages
    /// of it can be left out. To be called before the first [`Handshake::to_node`] or [`Handshake::to_app`].
    #[must_use]
    pub fn without_server_context(mut self) -> Self {
        let mut bytes = self.bytes[..self.ends.protocols as usize].to_vec();
        write_offers(&mut bytes, &String::from_utf8_lossy(self.offers()), true);
        // A head that grows by a few words cannot come near 4 GiB; were it to, it stays as it is.
        let Ok(offers) = mark(&bytes) else { return self };
        bytes.extend_from_slice(self.fields());
        self.bytes = bytes.into();
        self.ends.offers = offers;
        self
    }

    /// Declines all extensions: for who reads the messages. To be called before the first [`Handshake::to_app`].
    #[must_use]
    pub(crate) fn without_extensions(mut self) -> Self {
        let head = &self.bytes[..self.ends.protocols as usize];
        self.bytes = [head, self.fields()].concat().into();
        self.ends.offers = self.ends.protocols;
        self
    }

    /// Leaves out a credential: the app does not see it, nor is it replayed at another. To be called before the first
    /// [`Handshake::to_node`] or [`Handshake::to_app`].
    #[must_use]
    pub fn without(mut self, credential: &Credential) -> Self {
        let mut parts = [
            self.part(0..self.ends.target).to_vec(),
            self.part(self.ends.target..self.ends.key).to_vec(),
            self.part(self.ends.key..self.ends.protocols).to_vec(),
            self.offers().to_vec(),
            self.fields().to_vec(),
        ];
        match credential {
            Credential::Bearer => parts[4] = strip::bearer(&parts[4]),
            Credential::Query => parts[0] = strip::parameter(&parts[0], Credential::ACCESS_TOKEN),
            Credential::Protocol(offered) => parts[2] = strip::item(&parts[2], offered),
        }
        // Each is shorter than it was, so that the sums fit as they did.
        let mut end = 0;
        let mut ends = parts.iter().map(|part| {
            end += part.len() as u32;
            end
        });
        let mut next = || ends.next().unwrap_or_default();
        self.ends = Ends { target: next(), key: next(), protocols: next(), offers: next() };
        self.bytes = parts.concat().into();
        self
    }

    /// The head for a node: the client's, and `leg`. A move is the same head again with another `leg`.
    #[must_use]
    pub fn to_node(&self, leg: &LegHeaders) -> Bytes {
        self.render("", |out| leg.write_to_node(out))
    }

    /// The head for the app: the client's path after `prefix`, and of `leg` what the app may see.
    ///
    /// A `/` at the end of `prefix` is left out, as the client's path begins with one. The client's `Host` is kept.
    #[must_use]
    pub fn to_app(&self, leg: &LegHeaders, prefix: &str) -> Bytes {
        self.render(prefix.strip_suffix('/').unwrap_or(prefix), |out| leg.write_to_app(out))
    }

    /// Adds the headers of the client and of the leg to a CloudEvent: all but `Host` (it is in `x-forwarded-host`), what
    /// describes a body, and what would pass for an attribute of the event (with `-` or `_`: many servers take one for the
    /// other).
    pub(crate) fn write_to_event(&self, leg: &LegHeaders, out: &mut Vec<u8>) {
        for line in self.fields().split_inclusive(|&b| b == b'\n') {
            let name = line.split(|&b| b == b':').next().unwrap_or_default();
            let begins = |with: &[u8]| name.get(..with.len()).is_some_and(|n| n.eq_ignore_ascii_case(with));
            let attribute = begins(b"ce-") || begins(b"ce_");
            if !name.eq_ignore_ascii_case(b"host") && !begins(b"content-") && !attribute {
                out.extend_from_slice(line);
            }
        }
        let protocols = self.part(self.ends.key..self.ends.protocols);
        if !protocols.is_empty() {
            write_field(out, "Sec-WebSocket-Protocol", protocols);
        }
        leg.write_to_app(out);
    }

    /// The client's path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        str::from_utf8(self.part(0..self.ends.target)).unwrap_or("/")
    }

    /// The subprotocols that the client offers, in its order.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        let text = str::from_utf8(self.part(self.ends.key..self.ends.protocols)).unwrap_or_default();
        text.split(',').map(|token| token.trim_matches([' ', '\t'])).filter(|token| !token.is_empty())
    }

    /// The `Sec-WebSocket-Accept` that this client expects.
    #[must_use]
    pub fn accept(&self) -> String {
        let mut hash = Sha1::new();
        hash.update(self.part(self.ends.target..self.ends.key));
        hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        BASE64.encode(hash.finalize())
    }

    /// The bytes that this handshake holds for as long as it is kept.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn deflate_offers(&self) -> impl Iterator<Item = Offer> {
        Offer::read_all(str::from_utf8(self.offers()).unwrap_or_default())
    }

    /// The leg comes first, so that a reader knows it for one before the head gets long.
    fn render(&self, prefix: &str, leg: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes.len() + prefix.len() + 640);
        for part in [b"GET ", prefix.as_bytes(), self.part(0..self.ends.target), b" HTTP/1.1\r\n"] {
            out.extend_from_slice(part);
        }
        leg(&mut out);
        out.extend_from_slice(self.fields());
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        write_field(&mut out, "Sec-WebSocket-Key", self.part(self.ends.target..self.ends.key));
        let protocols = self.part(self.ends.key..self.ends.protocols);
        for (name, value) in
            [("Sec-WebSocket-Protocol", protocols), ("Sec-WebSocket-Extensions", self.offers())]
        {
            if !value.is_empty() {
                write_field(&mut out, name, value);
            }
        }
        out.extend_from_slice(b"\r\n");
        out.into()
    }

    fn offers(&self) -> &[u8] {
        self.part(self.ends.protocols..self.ends.offers)
    }

    fn fields(&self) -> &[u8] {
        &self.bytes[self.ends.offers as usize..]
    }

    fn part(&self, range: Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

impl fmt::Debug for Handshake {
    /// Only what holds no credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target().split('?').next();
        f.debug_struct("Handshake").field("path", &path).field("size", &self.size()).finish_non_exhaustive()
    }
}

/// The standard alphabet; a key's last character may have spare bits set, as some clients draw it at random.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

fn check_request(parts: &Parts) -> Result<(), Refusal> {
    let headers = &parts.headers;
    framing(headers, parts.version)?;
    if !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err(Refusal::NotUpgrade);
    }
    if parts.version != Version::HTTP_11 {
        return Err(Refusal::Malformed("expected HTTP/1.1"));
    }
    if parts.method != Method::GET {
        return Err(Refusal::Malformed("expected GET"));
    }
    if parts.uri.authority().is_some() || !parts.uri.path().starts_with('/') {
        return Err(Refusal::Malformed("expected a request target that is a path: /path?query"));
    }
    let length = content_length(headers).ok().flatten().unwrap_or(0);
    if length > 0 || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Refusal::Malformed("expected a handshake without a body"));
    }
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    match (versions.next(), versions.next()) {
        (Some(version), None) if version == "13" => Ok(()),
        _ => Err(Refusal::BadVersion),
    }
}

fn websocket_key(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(Refusal::Malformed("expected exactly one Sec-WebSocket-Key"));
    };
    let valid = |key: &&str| BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16);
    key.to_str()
        .ok()
        .filter(valid)
        .ok_or(Refusal::Malformed("expected a Sec-WebSocket-Key of 16 bytes in base64"))
}

/// Whether a header with a comma-separated list has `token` in it.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    lines
        .flat_map(|line| line.split(|&b| b == b','))
        .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether a header ends at this hop, or is never taken over from the one before.
pub(super) fn stays_here(headers: &HeaderMap, name: &str) -> bool {
    const HOP_BY_HOP: [&str; 10] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    ];
    HOP_BY_HOP.iter().any(|hop| hop.eq_ignore_ascii_case(name))
        || contract::is_ours(name)
        || has_token(headers, &header::CONNECTION, name)
}

/// A header with a comma-separated list as one line of text, without the lines that are not text.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let lines: Vec<_> = headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    lines.join(",")
}

fn mark(bytes: &[u8]) -> Result<u32, Refusal> {
    u32::try_from(bytes.len()).map_err(|_| Refusal::Malformed("expected a head of less than 4 GiB"))
}

fn join(out: &mut Vec<u8>, headers: &HeaderMap, name: &HeaderName) {
    for (i, line) in headers.get_all(name).iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"" } else { b", " });
        out.extend_from_slice(line.as_bytes());
    }
}

fn write_offers(out: &mut Vec<u8>, text: &str, server_no_context_takeover: bool) {
    for (i, mut offer) in Offer::read_all(text).enumerate() {
        offer.server_no_context_takeover |= server_no_context_takeover;
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}{offer}", if i == 0 { "" } else { ", " });
    }
}

pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// All fields that pass, but for those of the handshake itself.
fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap, edge: Option<&Edge>) {
    let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    write_field(out, "Host", host);
    let traced = edge.is_none() || SpanContext::of(headers).is_some();
    for (name, value) in headers {
        let ours = match *name {
            header::HOST | header::CONTENT_LENGTH => true,
            header::SEC_WEBSOCKET_KEY | header::SEC_WEBSOCKET_VERSION => true,
            header::SEC_WEBSOCKET_PROTOCOL | header::SEC_WEBSOCKET_EXTENSIONS => true,
            _ if *name == FORWARDED_FOR => edge.is_some(),
            _ if *name == FORWARDED_PROTO || *name == FORWARDED_HOST => false,
            _ if *name == TRACEPARENT || *name == TRACESTATE => !traced,
            _ => stays_here(headers, name.as_str()),
        };
        if !ours {
            write_field(out, name.as_str(), value.as_bytes());
        }
    }
    let Some(edge) = edge else { return };
    write_forwarded(out, headers, host, edge);
    if !traced {
        write_field(out, TRACEPARENT.as_str(), &sampled(&edge.trace));
    }
}

fn write_forwarded(out: &mut Vec<u8>, headers: &HeaderMap, host: &[u8], edge: &Edge) {
    let mut chain = Vec::new();
    join(&mut chain, headers, &FORWARDED_FOR);
    if !chain.is_empty() {
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(edge.client.to_canonical().to_string().as_bytes());
    write_field(out, FORWARDED_FOR.as_str(), &chain);
    if !headers.contains_key(FORWARDED_PROTO) {
        write_field(out, FORWARDED_PROTO.as_str(), if edge.secure { b"https" } else { b"http" });
    }
    if !headers.contains_key(FORWARDED_HOST) {
        write_field(out, FORWARDED_HOST.as_str(), host);
    }
}

/// A `traceparent` that begins a sampled trace. Formatting it byte by byte would be a tenth of a whole handshake.
fn sampled(trace: &[u8; 24]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (trace, span) = trace.split_at(16);
    let mut out = b"00-".to_vec();
    for (bytes, end) in [(trace, &b"-"[..]), (span, b"-01")] {
        out.extend(bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| DIGITS[usize::from(digit)]));
        out.extend_from_slice(end);
    }
    out
}
