//! What a stream asks for, as the handshake of HTTP/1.1 that the nodes know.

use base64::{Engine, engine::general_purpose::STANDARD};
use h2::ext::Protocol;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header, request::Parts};

use crate::proxy::{error::Refusal, handshake::head::Limits};

/// The handshake that a `CONNECT` with `:protocol` websocket stands for. `nonce` is its key, as the client sends none.
///
/// # Errors
///
/// [`Refusal::NotUpgrade`] when it asks for something else, [`Refusal::TooLarge`], and [`Refusal::Malformed`] for what
/// has two hosts.
pub(super) fn as_http1(mut parts: Parts, limits: Limits, nonce: [u8; 16]) -> Result<Parts, Refusal> {
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    if parts.method != Method::CONNECT || protocol != Some("websocket") {
        return Err(Refusal::NotUpgrade);
    }
    // Their bytes were bounded when they were read.
    if parts.headers.len() > limits.fields {
        return Err(Refusal::TooLarge { bytes: limits.head, fields: limits.fields });
    }
    let headers = &mut parts.headers;
    host(headers, &parts.uri)?;
    join_cookies(headers)?;
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_KEY, value(STANDARD.encode(nonce).as_bytes())?);
    parts.uri = parts.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    (parts.method, parts.version) = (Method::GET, Version::HTTP_11);
    Ok(parts)
}

/// `:authority` is the host; a `Host` beside it has to be the same.
fn host(headers: &mut HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let Some(authority) = uri.authority() else { return Ok(()) };
    if headers.get_all(header::HOST).iter().any(|host| host.as_bytes() != authority.as_str().as_bytes()) {
        return Err(Refusal::Malformed("expected no Host but the :authority"));
    }
    headers.insert(header::HOST, value(authority.as_str().as_bytes())?);
    Ok(())
}

/// HTTP/2 may split them, so that they are compressed better.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1 {
        let joined = value(&cookies.join(&b"; "[..]))?;
        headers.insert(header::COOKIE, joined);
    }
    Ok(())
}

fn value(bytes: &[u8]) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_bytes(bytes).map_err(|_| Refusal::Malformed("invalid header field"))
}
