//! An answer that was made for HTTP/1.1, as HTTP/2 has it.

use http::{HeaderMap, HeaderName, Response, StatusCode, header};

use crate::proxy::{error::Refusal, handshake::ResponseHead};

/// The head of an answer that was rendered for HTTP/1.1. A 101 is a 200 here.
pub(super) fn head(rendered: &[u8]) -> Response<()> {
    let mut response = Response::new(());
    match ResponseHead::parse(rendered) {
        Ok(Some((head, _))) => {
            let accepted = head.parts.status == StatusCode::SWITCHING_PROTOCOLS;
            *response.status_mut() = if accepted { StatusCode::OK } else { head.parts.status };
            *response.headers_mut() = without_connection(head.parts.headers);
        }
        // What we have rendered can be read; were it not, the client would hear of it.
        Ok(None) | Err(_) => *response.status_mut() = Refusal::Unreachable.status(),
    }
    response
}

/// What is of no meaning, and not allowed, where a stream is not a connection.
pub(super) fn without_connection(mut headers: HeaderMap) -> HeaderMap {
    const MORE: [HeaderName; 2] =
        [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
    let names = [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
        header::TE,
        header::SEC_WEBSOCKET_ACCEPT,
    ];
    for name in names.into_iter().chain(MORE) {
        headers.remove(name);
    }
    headers
}
