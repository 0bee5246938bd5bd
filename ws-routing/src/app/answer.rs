//! The answers to a handshake that stand for those of an application which speaks something else.

use std::io::Write;

use bytes::BytesMut;
use http::{HeaderMap, header};

use crate::proxy::{
    LegStream,
    connect::{Answered, OpenError},
    handshake::{Handshake, Nonsense, ResponseHead},
};

/// The 101 that stands for the application's yes: with its headers, as far as they do not describe a body.
pub(super) fn switching_protocols(
    handshake: &Handshake,
    headers: &HeaderMap,
) -> Result<ResponseHead, OpenError> {
    let mut out = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        handshake.accept()
    )
    .into_bytes();
    put(&mut out, headers);
    out.extend_from_slice(b"\r\n");
    parse(&out)
}

/// The answer that stands for the application's no.
#[cfg_attr(not(feature = "nats"), allow(dead_code))] // over HTTP the application's own is passed on
pub(super) fn refused(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answered<LegStream>, OpenError> {
    let mut out = format!("HTTP/1.1 {status} \r\nConnection: close\r\n").into_bytes();
    put(&mut out, headers);
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        out.extend_from_slice(&[b"Content-Type: ", kind.as_bytes(), b"\r\n"].concat());
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
    let head = parse(&out)?;
    let (nothing, _) = tokio::io::duplex(1);
    Ok(Answered::new(head, LegStream::Local(nothing), BytesMut::from(body))?)
}

fn put(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers.iter().filter(|(name, _)| passes(name.as_str())) {
        out.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].into_iter().flatten());
    }
}

fn parse(out: &[u8]) -> Result<ResponseHead, OpenError> {
    let whole = ResponseHead::parse(out)?.ok_or(Nonsense("more than 32 KiB of head"))?;
    Ok(whole.0)
}

/// Whether a header of the application's answer is of use to the client.
fn passes(name: &str) -> bool {
    let of_the_answer = [
        header::CONNECTION.as_str(),
        header::UPGRADE.as_str(),
        header::TRANSFER_ENCODING.as_str(),
        header::TRAILER.as_str(),
        header::ETAG.as_str(),
        header::ACCEPT_RANGES.as_str(),
        "keep-alive",
    ];
    let websocket = name.starts_with("sec-websocket-") && name != header::SEC_WEBSOCKET_PROTOCOL.as_str();
    !of_the_answer.contains(&name) && !websocket && !name.starts_with("content-") && !name.starts_with("ce-")
}
