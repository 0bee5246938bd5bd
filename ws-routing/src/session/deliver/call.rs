//! A call as it travels between peers: the request, and the reply in its answer.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    here::{Op, Told},
    plan::Reply,
    reply::{Heard, Id},
};
use crate::{contract, key::Key, metrics::Ack, node::NodeId};

/// The request of one call.
pub(super) fn request(key: &Key, op: &Op, told: &Told) -> Request<Full<Bytes>> {
    let path = format!("/v1/keys/{}", key.encoded());
    let (method, target, message) = match op {
        Op::Send { message, ack } => {
            (Method::POST, format!("{path}/messages?ack={}", ack.as_str()), Some(message))
        }
        Op::ToApp(message) => (Method::POST, format!("{path}/messages?to=app"), Some(message)),
        Op::Close { code, reason } => {
            let reason = utf8_percent_encode(reason, NON_ALPHANUMERIC);
            (Method::DELETE, format!("{path}?code={code}&reason={reason}"), None)
        }
        Op::List => (Method::GET, path, None),
    };
    let mut request = Request::new(Full::new(message.map_or_else(Bytes::new, |m| m.payload.clone())));
    *request.method_mut() = method;
    // A path that we encode is a valid one.
    *request.uri_mut() = target.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Some(message) = message {
        let kind = if message.text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    }
    list(headers, contract::SERVED, told.served.iter().map(|id| &**id));
    list(headers, contract::ASKED, told.asked.iter().map(NodeId::as_str));
    if let Some(left) = told.left {
        headers.insert(contract::LEFT, millis(left).into());
    }
    request
}

fn millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

fn list<'a>(headers: &mut HeaderMap, name: &'static str, items: impl Iterator<Item = &'a str>) {
    let text = items.collect::<Vec<_>>().join(",");
    if !text.is_empty()
        && let Ok(value) = text.try_into()
    {
        headers.insert(name, value);
    }
}

/// What a peer's request says of the call so far.
pub(crate) fn told(headers: &HeaderMap) -> Told {
    let items = |name| {
        let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty())
    };
    let left = headers.get(contract::LEFT).and_then(|value| value.to_str().ok()?.parse().ok());
    Told {
        served: items(contract::SERVED).map(Id::from).collect(),
        asked: items(contract::ASKED).filter_map(|node| node.parse().ok()).collect(),
        left: left.map(Duration::from_millis),
    }
}

/// The reply in an answer's body: its member `hop`.
pub(super) fn reply(body: &[u8]) -> Reply {
    numbered(body).1
}

/// The reply in a line of an answer, and the number of its call.
pub(super) fn numbered(line: &[u8]) -> (Option<usize>, Reply) {
    let (number, heard) = Heard::read(line);
    // Without one it refused the request as such: it has done nothing.
    (number, heard.map_or(Reply::Unreachable, Reply::Heard))
}

/// The request of many calls, of which `body` has the lines.
pub(super) fn lines_request(body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(contract::LINES);
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    request
}

/// A call as a line; `None` for what is not sent in lines.
pub(super) fn line(key: &Key, op: &Op, told: &Told) -> Option<String> {
    let (message, ack, to) = match op {
        Op::Send { message, ack } => (message, *ack, "client"),
        Op::ToApp(message) => (message, Ack::Written, "app"),
        Op::Close { .. } | Op::List => return None,
    };
    let text = std::str::from_utf8(&message.payload).ok().filter(|_| message.text);
    let written = Written {
        key: key.as_str(),
        text,
        base64: text.is_none().then(|| BASE64_STANDARD.encode(&message.payload)),
        ack: ack.as_str(),
        to,
        served: told.served.iter().map(|id| &**id).collect(),
        asked: told.asked.iter().map(NodeId::as_str).collect(),
        left: told.left.map(millis),
    };
    serde_json::to_string(&written).ok()
}

#[derive(Serialize)]
struct Written<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    ack: &'a str,
    to: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    served: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    asked: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_arrives() {
        let told = Told {
            served: ["a", "b"].map(Id::from).into(),
            asked: vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()],
            left: Some(Duration::from_millis(4200)),
        };
        let op = Op::Close { code: 4000, reason: "a b&c".into() };
        let request = request(&Key::new("k/ü").unwrap(), &op, &told);
        assert_eq!(request.uri(), "/v1/keys/k%2F%C3%BC?code=4000&reason=a%20b%26c");
        let arrived = super::told(request.headers());
        assert_eq!(arrived, told);
    }

    #[test]
    fn a_reply_arrives() {
        let heard = Heard {
            served: vec!["a".into()],
            pending: vec![("b".into(), "10.0.0.1:1".parse().unwrap())],
            names: vec!["10.0.0.2:1".parse().unwrap()],
            ..Heard::nothing("1".parse().unwrap())
        };
        let body = serde_json::json!({"key": "k", "hop": heard.to_json()}).to_string();
        let Reply::Heard(arrived) = reply(body.as_bytes()) else { panic!("{body}") };
        assert_eq!(arrived, heard);
        let line = heard.to_line(7);
        assert!(matches!(numbered(line.as_bytes()), (Some(7), Reply::Heard(arrived)) if arrived == heard));
        assert!(matches!(reply(b"{}"), Reply::Unreachable));
    }
}
