//! The one table from failure to status (before the upgrade) or close code (after it).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    contract,
    key::{BadKey, InvalidKey, InvalidToken},
    node::NodeState,
};

/// Why a handshake is answered by us and not by the app.
///
/// Every refusal ends its connection: the client's next bytes might have been meant for the app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// 426: a request that asks for no WebSocket.
    #[error(
        "expected a WebSocket handshake (Upgrade: websocket, Connection: Upgrade; with HTTP/2 CONNECT, :protocol websocket)"
    )]
    NotUpgrade,
    /// 426: a WebSocket of another version than 13.
    #[error("expected Sec-WebSocket-Version: 13")]
    BadVersion,
    /// 400: not the HTTP/1.1 that a handshake must be; the text names what was expected.
    #[error("bad request: {0}")]
    Malformed(&'static str),
    /// 400: a leg whose header of this name is there twice, or is not what it should be.
    #[error("bad leg: expected {0} once, with a valid value")]
    BadLeg(&'static str),
    /// 400: none of the configured sources holds a key; the text lists them.
    #[error("no routing key: expected one of {0}")]
    NoKey(Box<str>),
    /// 400: a source holds something that cannot be a key.
    #[error("bad routing key: {0}")]
    BadKey(#[from] InvalidKey),
    /// 401: a token that is not valid; the text says what is wrong with it.
    #[error("not authorized: {0}")]
    Unauthorized(#[from] InvalidToken),
    /// 403: an `Origin` that is not among the allowed ones.
    #[error("this origin is not allowed")]
    Forbidden,
    /// 408: the head was not complete in time.
    #[error("the request head was not complete in time")]
    HandshakeTimeout,
    /// 431: the head has too many bytes or fields; the text names the limit.
    #[error("request head too large: expected at most {bytes} bytes and {fields} header fields")]
    TooLarge {
        /// The most bytes that a head may have.
        bytes: usize,
        /// The most header fields that a head may have.
        fields: usize,
    },
    /// 503: the ring has no members.
    #[error("no member is known that could serve this key; try again")]
    NoMembers,
    /// 503: every member is suspect.
    #[error("no member can be reached now; try again")]
    AllSuspect,
    /// 503: this process is on its way out.
    #[error("draining; connect again")]
    Draining,
    /// 503: the limit of connections is reached.
    #[error("too many connections; try again later")]
    TooManyConnections,
    /// 502: the nodes that were tried could not be reached, or refused.
    #[error("no node that may serve this key could be reached")]
    Unreachable,
    /// 502: the app's answer breaks the protocol; the text says how.
    #[error("the application answered nonsense: {0}")]
    AppNonsense(&'static str),
    /// A sidecar's own refusal, marked with `ws-routing-error`, so that a balancer tries the next node.
    #[error(transparent)]
    Sidecar(#[from] SidecarRefusal),
}

/// Why a sidecar refuses a leg. Its text is the value of `ws-routing-error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarRefusal {
    /// 502: the app refuses connections.
    #[error("the application cannot be reached")]
    AppUnreachable,
    /// 502: the app ended the connection without an answer. That may be this one client's doing: the next node is tried,
    /// but the node is not suspect.
    #[error("the application ended the connection without an answer")]
    AppSilent,
    /// 504: the app has not answered in time.
    #[error("the application did not answer in time")]
    AppTimedOut,
    /// 503: the sidecar is draining, and another node is ready.
    #[error("draining")]
    Draining,
    /// 401: the leg's proof is wrong.
    #[error("wrong proof")]
    BadProof,
}

impl Refusal {
    /// The status that the client sees.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NotUpgrade | Self::BadVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Malformed(_) | Self::BadLeg(_) | Self::NoKey(_) | Self::BadKey(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Unauthorized(_) | Self::Sidecar(SidecarRefusal::BadProof) => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::HandshakeTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoMembers
            | Self::AllSuspect
            | Self::Draining
            | Self::TooManyConnections
            | Self::Sidecar(SidecarRefusal::Draining) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable
            | Self::AppNonsense(_)
            | Self::Sidecar(SidecarRefusal::AppUnreachable | SidecarRefusal::AppSilent) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Sidecar(SidecarRefusal::AppTimedOut) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Seconds after which another try may succeed: the `Retry-After` of every 503, and of nothing else.
    #[must_use]
    pub const fn retry_after(&self) -> Option<u16> {
        match self {
            Self::NoMembers | Self::Draining | Self::Sidecar(SidecarRefusal::Draining) => Some(1),
            Self::AllSuspect | Self::TooManyConnections => Some(5),
            _ => None,
        }
    }

    /// The whole answer, as an HTTP server takes it. It asks for the connection to be closed.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        let body = Bytes::from(format!("{self}\n"));
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        let length = HeaderValue::from(response.body().len());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, length);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade, close"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, self.challenge());
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::Sidecar(why) = self {
            // The texts above are plain ASCII, so this cannot fail.
            if let Ok(why) = HeaderValue::try_from(why.to_string()) {
                headers.insert(contract::ERROR, why);
            }
        }
        response
    }

    /// What RFC 6750 has a client told that brought no good token.
    fn challenge(&self) -> HeaderValue {
        let Self::Unauthorized(error) = self else { return HeaderValue::from_static("Bearer") };
        let told = format!("Bearer error=\"invalid_token\", error_description=\"{error}\"");
        // The texts are plain ASCII without quotes, so this cannot fail.
        HeaderValue::try_from(told).unwrap_or(HeaderValue::from_static("Bearer error=\"invalid_token\""))
    }

    /// The same from a sidecar, which tells its state with every answer of its own.
    #[must_use]
    pub fn render_from(&self, state: NodeState) -> Bytes {
        let mut response = self.response();
        response.headers_mut().insert(contract::STATE, HeaderValue::from_static(state.as_str()));
        render(&response)
    }

    /// The same from a sidecar to a client that came without a balancer: who relays it may try another node where the
    /// fault is neither the client's nor the app's own.
    #[must_use]
    pub fn render_to_own_client(&self) -> Bytes {
        let mut response = self.response();
        if matches!(
            self,
            Self::Unreachable
                | Self::Draining
                | Self::NoMembers
                | Self::AllSuspect
                | Self::TooManyConnections
        ) && let Ok(why) = HeaderValue::try_from(self.to_string())
        {
            response.headers_mut().insert(contract::ERROR, why);
        }
        render(&response)
    }

    /// The whole answer, as it goes to a socket, which is closed after it.
    #[must_use]
    pub fn render(&self) -> Bytes {
        render(&self.response())
    }
}

impl From<BadKey> for Refusal {
    fn from(bad: BadKey) -> Self {
        match bad {
            BadKey::Invalid(invalid) => invalid.into(),
            BadKey::Token(invalid) => invalid.into(),
        }
    }
}

/// An answer of ours as HTTP/1.1 bytes, head and body.
#[must_use]
pub fn render(response: &Response<Bytes>) -> Bytes {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.body());
    out.into()
}

/// Why an established connection is closed by us and not by one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// 1002: the client breaks the protocol; the text says how.
    #[error("protocol error: {0}")]
    ClientProtocol(&'static str),
    /// 1003: a message of a kind that cannot be handled here.
    #[error("unsupported data")]
    Unsupported,
    /// 1007: a text message that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// 1008: the client has not read for the stall timeout.
    #[error("client does not read")]
    Stalled,
    /// 1008: the client does not answer pings.
    #[error("client does not answer")]
    Unresponsive,
    /// 1008: the client broke a rule of ours; the text names it.
    #[error("{0}")]
    Policy(&'static str),
    /// 1008: the app behind the new node no longer accepts the client's handshake.
    #[error("the application no longer accepts this client")]
    NotAccepted,
    /// 1009: a message over the limit.
    #[error("message too big")]
    TooBig,
    /// 1011: the app was lost again and again at nodes that still answer.
    #[error("application failed")]
    AppFailed,
    /// 1011: the same message was redelivered twice and its app died each time.
    #[error("message kills the application")]
    Poisonous,
    /// 1012: this process is draining.
    #[error("restarting, reconnect")]
    Restart,
    /// 1012: the connection had to move and could not; the text says why.
    #[error("moving failed, reconnect: {0}")]
    NotMovable(&'static str),
    /// 1012: the leg was lost inside a long message to the client.
    #[error("message torn, reconnect")]
    Torn,
    /// 1013: nobody has taken the connection over within the orphan grace.
    #[error("no owner, try again later")]
    NoOwner,
    /// 1013: too much to do.
    #[error("overloaded, try again later")]
    Overload,
    /// 1014: the app breaks the protocol.
    #[error("application answered nonsense")]
    AppNonsense,
}

impl CloseReason {
    /// The longest reason that fits into a Close frame, in bytes.
    pub const MAX_REASON: usize = 123;

    /// The close code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::ClientProtocol(_) => 1002,
            Self::Unsupported => 1003,
            Self::NotUtf8 => 1007,
            Self::Stalled | Self::Unresponsive | Self::Policy(_) | Self::NotAccepted => 1008,
            Self::TooBig => 1009,
            Self::AppFailed | Self::Poisonous => 1011,
            Self::Restart | Self::NotMovable(_) | Self::Torn => 1012,
            Self::NoOwner | Self::Overload => 1013,
            Self::AppNonsense => 1014,
        }
    }

    /// The text beside the code, cut to [`CloseReason::MAX_REASON`] bytes.
    #[must_use]
    pub fn reason(self) -> String {
        let mut text = self.to_string();
        let fits = |&end: &usize| text.is_char_boundary(end);
        text.truncate((0..=text.len().min(Self::MAX_REASON)).rev().find(fits).unwrap_or(0));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::handshake::{Framing, ResponseHead};

    #[test]
    fn every_refusal_is_a_whole_answer_that_says_what_was_expected() {
        let refusals = [
            (Refusal::NotUpgrade, 426, "WebSocket"),
            (Refusal::BadVersion, 426, "13"),
            (Refusal::NoKey("header:ws-user-id".into()), 400, "header:ws-user-id"),
            (Refusal::TooLarge { bytes: 16384, fields: 100 }, 431, "16384"),
            (InvalidToken::Expired.into(), 401, "expired"),
            (Refusal::HandshakeTimeout, 408, "in time"),
            (Refusal::NoMembers, 503, "try again"),
            (Refusal::AppNonsense("x"), 502, "x"),
            (SidecarRefusal::AppTimedOut.into(), 504, "in time"),
        ];
        for (refusal, status, text) in refusals {
            let bytes = refusal.render();
            let (head, len) = ResponseHead::parse(&bytes).unwrap().unwrap();
            let field =
                |name| head.parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
            assert_eq!(head.parts.status.as_u16(), status);
            assert_eq!(head.framing(), Ok(Framing::Length((bytes.len() - len) as u64)));
            assert!(String::from_utf8_lossy(&bytes[len..]).contains(text), "{refusal}");
            assert!(field("connection").is_some_and(|value| value.ends_with("close")));
            assert_eq!(field("retry-after").is_some(), status == 503);
            assert_eq!(
                field("www-authenticate").is_some_and(|it| it.contains("invalid_token")),
                status == 401
            );
            assert_eq!(field("sec-websocket-version").is_some(), status == 426);
            assert_eq!(head.sidecar_error().is_some(), matches!(refusal, Refusal::Sidecar(_)));
        }
    }

    #[test]
    fn a_close_reason_fits_its_frame() {
        let long: &'static str = "é".repeat(200).leak();
        for reason in [CloseReason::Policy(long), CloseReason::ClientProtocol(long), CloseReason::NoOwner] {
            assert!(reason.reason().len() <= CloseReason::MAX_REASON);
        }
        assert_eq!(CloseReason::ClientProtocol("x").reason(), "protocol error: x");
    }
}
