//! Reads the head of an HTTP/1.1 request, and refuses what two servers might understand differently.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts, uri};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::proxy::error::Refusal;

/// What a head may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a head, its last empty line included. Default: 16 KiB.
    pub head: usize,
    /// The most header fields, [`Limits::MAX_FIELDS`] at most. Default: 100.
    pub fields: usize,
    /// The longest time from the connection to the end of the head. Default: 10 s.
    pub timeout: Duration,
    /// Whether a leg's head, told by its `ws-routing-key`, may have 4 KiB and 16 fields more: a balancer adds to what
    /// its clients send, and must not be refused what it was right to accept. Default: no.
    pub legs: bool,
}

impl Limits {
    /// The highest limit of header fields.
    pub const MAX_FIELDS: usize = 128;

    const fn with_leg(self) -> Self {
        Self { head: self.head + 4096, fields: self.fields + 16, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 16 * 1024, fields: 100, timeout: Duration::from_secs(10), legs: false }
    }
}

/// What the first bytes of a connection turned out to be.
#[derive(Debug)]
pub enum Arrived {
    /// An HTTP/1 request, upgrade or not.
    Http1(Box<RequestHead>),
    /// HTTP/2 with prior knowledge: all bytes read so far, its preface first.
    Http2(Bytes),
}

/// The head of an HTTP/1 request, with the bytes that came with it.
#[derive(Debug)]
pub struct RequestHead {
    /// The head, parsed.
    pub parts: Parts,
    buffer: Bytes,
    len: usize,
}

impl RequestHead {
    /// All bytes read so far, head first: what another HTTP server needs to take the connection over.
    #[must_use]
    pub fn into_buffer(self) -> Bytes {
        self.buffer
    }

    /// What was read beyond the head.
    #[must_use]
    pub fn leftover(&self) -> Bytes {
        self.buffer.slice(self.len..)
    }
}

/// Reads from `io` until the head of the first request is complete.
///
/// Costs 2 KiB while nothing comes, and less than twice [`Limits::head`] at most.
///
/// # Errors
///
/// [`HeadError`]; only [`HeadError::Refused`] is to be answered.
///
/// # Cancel safety
///
/// Not cancel safe: what was read is lost with the future.
pub async fn read_request(io: &mut (impl AsyncRead + Unpin), limits: Limits) -> Result<Arrived, HeadError> {
    let arrived = timeout(limits.timeout, read_until_complete(io, limits)).await;
    arrived.unwrap_or(Err(HeadError::Refused(Refusal::HandshakeTimeout)))
}

async fn read_until_complete(
    io: &mut (impl AsyncRead + Unpin),
    limits: Limits,
) -> Result<Arrived, HeadError> {
    let mut buffer = BytesMut::with_capacity(2048);
    loop {
        let old = buffer.len();
        buffer.reserve(1024);
        if io.read_buf(&mut buffer).await? == 0 {
            return Err(HeadError::Closed);
        }
        if buffer.starts_with(HTTP2) {
            return Ok(Arrived::Http2(buffer.freeze()));
        }
        // Parsing begins anew each time, so it waits for the end of a line: many tiny reads stay cheap.
        let was_undecided = HTTP2.starts_with(&buffer[..old]);
        let worthwhile = was_undecided || buffer.len() >= limits.head || buffer[old..].contains(&b'\n');
        let undecided = HTTP2.starts_with(&buffer);
        if worthwhile
            && !undecided
            && let Some((request, len)) = parse_request(&buffer, limits)?
        {
            let (parts, ()) = request.into_parts();
            return Ok(Arrived::Http1(Box::new(RequestHead { parts, buffer: buffer.freeze(), len })));
        }
    }
}

/// HTTP/2's preface. It has to be whole: what takes the connection over would wait for its rest for ever.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why no request was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// To be answered with this, then closed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The client closed before its head was complete. There is nobody to answer.
    #[error("closed before the request was complete")]
    Closed,
    /// The connection failed. There is nobody to answer.
    #[error("connection lost before the request was complete")]
    Io(#[from] io::Error),
}

/// Parses the head at the beginning of `bytes`: `None` while it is incomplete, else the head and its length.
///
/// Whatever way the bytes are split, and however often this is called, the outcome for the whole is the same.
///
/// # Errors
///
/// [`Refusal::TooLarge`] and [`Refusal::Malformed`].
pub fn parse_request(bytes: &[u8], limits: Limits) -> Result<Option<(Request<()>, usize)>, Refusal> {
    match parse(bytes, limits) {
        Err(Refusal::TooLarge { .. }) if limits.legs && is_leg(&bytes[..bytes.len().min(limits.head)]) => {
            parse(bytes, limits.with_leg())
        }
        parsed => parsed,
    }
}

/// Whether this is the beginning of a leg's head. What makes it one is written first in it.
fn is_leg(bytes: &[u8]) -> bool {
    const FIELD: &[u8] = b"\r\nws-routing-key: ";
    bytes.windows(FIELD.len()).any(|window| window == FIELD)
}

fn parse(bytes: &[u8], limits: Limits) -> Result<Option<(Request<()>, usize)>, Refusal> {
    let too_large = Refusal::TooLarge { bytes: limits.head, fields: limits.fields };
    let bytes = &bytes[..bytes.len().min(limits.head)];
    let mut fields = [httparse::EMPTY_HEADER; Limits::MAX_FIELDS];
    let fields = &mut fields[..limits.fields.min(Limits::MAX_FIELDS)];
    let mut raw = httparse::Request::new(fields);
    let len = match raw.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() == limits.head => return Err(too_large),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large),
        Err(error) => return Err(Refusal::Malformed(expected(error))),
    };
    let mut request = Request::new(());
    *request.method_mut() = method(raw.method.unwrap_or_default())?;
    *request.uri_mut() = target(raw.path.unwrap_or_default())?;
    *request.version_mut() = if raw.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers(raw.headers).ok_or(Refusal::Malformed("invalid header field"))?;
    framing(request.headers(), request.version())?;
    Ok(Some((request, len)))
}

/// What a head had in place of what was expected.
const fn expected(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "expected header fields as name, colon, value, each on one line",
        httparse::Error::HeaderValue => "expected header values without control characters",
        httparse::Error::NewLine => "expected CR LF at the end of a line",
        httparse::Error::Status => "expected a status of three digits",
        httparse::Error::Version => "expected HTTP/1.1",
        httparse::Error::Token | httparse::Error::TooManyHeaders => "expected an HTTP/1.1 request line",
    }
}

fn method(text: &str) -> Result<Method, Refusal> {
    Method::from_bytes(text.as_bytes()).map_err(|_| Refusal::Malformed("expected a method"))
}

/// Only the origin form: a path and a query. The others are for proxies of another kind.
fn target(text: &str) -> Result<Uri, Refusal> {
    let malformed = Refusal::Malformed("expected a request target that is a path: /path?query");
    if !text.starts_with('/') || text.contains('#') {
        return Err(malformed);
    }
    let path = uri::PathAndQuery::try_from(text).map_err(|_| malformed)?;
    Ok(Uri::from(path))
}

/// The fields as a map, which keeps their order by name and their number.
pub(super) fn headers(raw: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(raw.len());
    for field in raw {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        map.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(map)
}

/// Checks the fields by which servers tell where a request ends and for whom it is.
///
/// # Errors
///
/// [`Refusal::Malformed`] when another server might see another request: more than one `Host` or none, doubled or
/// odd `Transfer-Encoding` or `Content-Length`, or both.
pub fn framing(headers: &HeaderMap, version: Version) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(host) => {}
        (None, _) if version == Version::HTTP_10 => {}
        _ => return Err(Refusal::Malformed("expected exactly one valid Host")),
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        _ => return Err(Refusal::Malformed("expected no Transfer-Encoding but one chunked")),
    };
    match content_length(headers) {
        Ok(None) if !chunked || version != Version::HTTP_10 => Ok(()),
        Ok(Some(_)) if !chunked => Ok(()),
        Ok(_) => Err(Refusal::Malformed("expected Content-Length or Transfer-Encoding, not both")),
        Err(BadLength) => Err(Refusal::Malformed("expected at most one Content-Length, a number")),
    }
}

fn is_authority(host: &HeaderValue) -> bool {
    let Ok(authority) = uri::Authority::try_from(host.as_bytes()) else { return false };
    // A user's name would stand before the host, so that this is no prefix.
    let port = authority.as_str().strip_prefix(authority.host());
    let digits = |n: &str| n.bytes().all(|b| b.is_ascii_digit()) && n.parse::<u16>().is_ok();
    let is_port = |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(digits);
    !authority.host().is_empty() && port.is_some_and(is_port)
}

/// The one `Content-Length`, if there is any.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, BadLength> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match (digits.and_then(|text| text.parse().ok()), lengths.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(BadLength),
    }
}

/// Not one number.
#[derive(Debug)]
pub(super) struct BadLength;
