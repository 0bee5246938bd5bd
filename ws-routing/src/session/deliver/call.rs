//! A call as it travels between peers: the request, and the reply in its answer.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    here::{Message, Op, Told},
    plan::Reply,
    reply::{Heard, Id},
};
use crate::{contract, key::Key, metrics::Ack, node::NodeId};

/// One of many calls.
pub(crate) struct Line<'a> {
    pub(crate) key: &'a Key,
    pub(crate) op: &'a Op,
    pub(crate) told: Told,
}

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
    request
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
    Told {
        served: items(contract::SERVED).map(Id::from).collect(),
        asked: items(contract::ASKED).filter_map(|node| node.parse().ok()).collect(),
    }
}

/// The reply in an answer's body: its member `hop`.
pub(super) fn reply(body: &[u8]) -> Reply {
    let hop =
        serde_json::from_slice::<Value>(body).ok().and_then(|mut body| Some(body.get_mut("hop")?.take()));
    match hop.and_then(Heard::from_json) {
        Some(heard) => Reply::Heard(heard),
        // It refused the request as such: it has done nothing.
        None => Reply::Unreachable,
    }
}

/// The request of many calls: a line each.
pub(super) fn bulk_request(lines: &[Line<'_>]) -> Request<Full<Bytes>> {
    let body: String = lines.iter().map(|line| format!("{}\n", describe(line))).collect();
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static("/v1/messages");
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    request
}

fn describe(line: &Line<'_>) -> Value {
    let (message, ack, to) = match line.op {
        Op::Send { message, ack } => (message, *ack, "client"),
        Op::ToApp(message) => (message, Ack::Written, "app"),
        // Nothing else is sent in lines.
        Op::Close { .. } | Op::List => return Value::Null,
    };
    let served: Vec<&Id> = line.told.served.iter().collect();
    let asked: Vec<&str> = line.told.asked.iter().map(NodeId::as_str).collect();
    let mut value =
        json!({"key": line.key.as_str(), "ack": ack.as_str(), "to": to, "served": served, "asked": asked});
    let Message { text, payload } = message;
    match std::str::from_utf8(payload).ok().filter(|_| *text) {
        Some(text) => value["text"] = text.into(),
        None => value["base64"] = BASE64_STANDARD.encode(payload).into(),
    }
    value
}

/// The replies in the lines of an answer.
pub(super) fn bulk_replies(body: &[u8], count: usize) -> Vec<Reply> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut replies: Vec<Reply> = lines.take(count).map(reply).collect();
    let missing = if replies.is_empty() { Reply::Unreachable } else { Reply::Lost };
    replies.resize(count, missing);
    replies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_arrives() {
        let told = Told {
            served: ["a", "b"].map(Id::from).into(),
            asked: vec!["10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap()],
        };
        let op = Op::Close { code: 4000, reason: "a b&c".into() };
        let request = request(&Key::new("k/ü").unwrap(), &op, &told);
        assert_eq!(request.uri(), "/v1/keys/k%2F%C3%BC?code=4000&reason=a%20b%26c");
        let arrived = super::told(request.headers());
        assert_eq!((arrived.served, arrived.asked), (told.served, told.asked));
    }

    #[test]
    fn a_reply_arrives() {
        let heard = Heard {
            served: vec!["a".into()],
            pending: vec![("b".into(), "10.0.0.1:1".parse().unwrap())],
            names: vec!["10.0.0.2:1".parse().unwrap()],
            ..Heard::nothing("1".parse().unwrap())
        };
        let body = json!({"key": "k", "hop": heard.to_json()}).to_string();
        let Reply::Heard(arrived) = reply(body.as_bytes()) else { panic!("{body}") };
        assert_eq!(arrived, heard);
        assert!(matches!(reply(b"{}"), Reply::Unreachable));
    }
}
