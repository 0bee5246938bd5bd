//! What an application's answer to a message means.

use http::{HeaderMap, header};

use super::{AppError, messages::Message};
use crate::proxy::connect::{OpenError, PumpError};

/// What is to be done about a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was handled, and this is for the client.
    Reply(Message),
    /// It was handled.
    Handled,
    /// The application does not want it: the next one may be different.
    Dropped,
    /// It is to be handed over again.
    Again,
    /// The application does not want this client any more.
    Gone,
    /// What was answered is no answer.
    Nonsense(&'static str),
}

/// Judges an answer by its status, and whether a body of it would be text. `None`: the body was too long.
pub(super) fn judge(status: u16, text: bool, body: Option<Vec<u8>>) -> Verdict {
    match (status, body) {
        (200..=299, None) => Verdict::Nonsense("an answer over the limit of a message"),
        (200..=299, Some(body)) if body.is_empty() => Verdict::Handled,
        (200..=299, Some(payload)) => reply(text, payload),
        (500..=599, _) => Verdict::Again,
        (410, _) => Verdict::Gone,
        (300..=499, _) => Verdict::Dropped,
        _ => Verdict::Nonsense("a status that is no answer"),
    }
}

fn reply(text: bool, payload: Vec<u8>) -> Verdict {
    if text && std::str::from_utf8(&payload).is_err() {
        return Verdict::Nonsense("text that is not UTF-8");
    }
    Verdict::Reply(Message { text, payload })
}

/// `text/*` and JSON go to the client as text.
pub(super) fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    is_text_type(kind.unwrap_or_default())
}

/// The same of the value of a `Content-Type`.
pub(super) fn is_text_type(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/") || kind == "application/json" || kind.ends_with("+json")
}

impl From<&AppError> for Verdict {
    fn from(error: &AppError) -> Self {
        match error {
            AppError::Open(OpenError::Nonsense(what)) => Self::Nonsense(what.what()),
            AppError::Open(_) | AppError::Dial(_) => Self::Again,
        }
    }
}

impl From<&PumpError> for Verdict {
    fn from(error: &PumpError) -> Self {
        match error {
            PumpError::Nonsense(what) => Self::Nonsense(what.what()),
            PumpError::Stalled | PumpError::Upstream(_) | PumpError::Client(_) => Self::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, kind: Option<&'static str>, body: Option<&[u8]>) -> Verdict {
        let headers = kind.map(|kind| (header::CONTENT_TYPE, kind.parse().unwrap()));
        judge(status, is_text(&headers.into_iter().collect()), body.map(Vec::from))
    }

    #[test]
    fn a_status_decides() {
        assert_eq!(judged(204, None, Some(b"")), Verdict::Handled);
        assert_eq!(judged(200, None, Some(b"")), Verdict::Handled);
        assert_eq!(judged(500, None, Some(b"x")), Verdict::Again);
        assert_eq!(judged(503, None, None), Verdict::Again);
        assert_eq!(judged(410, None, Some(b"")), Verdict::Gone);
        for status in [302, 400, 404, 413, 429] {
            assert_eq!(judged(status, None, Some(b"x")), Verdict::Dropped);
        }
        for (status, body) in [(101, Some(&b""[..])), (600, Some(b"")), (200, None)] {
            assert!(matches!(judged(status, None, body), Verdict::Nonsense(_)), "{status}");
        }
    }

    #[test]
    fn a_content_type_decides_whether_it_is_text() {
        for kind in ["text/plain", "TEXT/HTML; charset=utf-8", "application/json;x=y", "application/ld+json"]
        {
            let message = Message { text: true, payload: b"{}".into() };
            assert_eq!(judged(200, Some(kind), Some(b"{}")), Verdict::Reply(message), "{kind}");
        }
        for kind in [None, Some("application/octet-stream"), Some("image/png")] {
            let message = Message { text: false, payload: b"\xff".into() };
            assert_eq!(judged(200, kind, Some(b"\xff")), Verdict::Reply(message), "{kind:?}");
        }
        assert!(matches!(judged(200, Some("text/plain"), Some(b"\xff")), Verdict::Nonsense(_)));
    }
}
