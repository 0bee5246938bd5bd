//! `POST /v1/messages`: many messages at once, a line each, and a line of answer for each.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{future::join_all, stream::FuturesUnordered};
use http::{HeaderValue, header, request::Parts};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, Caller,
    body::{self, RequestBody},
    idempotency::{Claim, Scope},
    lines::Lines,
    messages::{check, parse_ack, parse_to},
    said::{self, Said},
};
use crate::{
    admin::{Answer, Problem, answer},
    contract,
    key::Key,
    metrics::{Ack, SendResult},
    session::deliver::{
        here::{Message, Op, Told},
        plan::Asking,
    },
};

/// How many messages one request may hold.
const LINES: usize = 10_000;

/// The largest body, in messages of the greatest size; a peer's has more around it.
const BODY: usize = 16;

/// What a body may have in any case, in bytes.
const LEAST_BODY: usize = 16 << 20;

#[derive(Deserialize)]
struct Line {
    key: String,
    text: Option<String>,
    base64: Option<String>,
    ack: Option<String>,
    to: Option<String>,
    /// From peers only.
    #[serde(default)]
    served: Vec<Box<str>>,
    #[serde(default)]
    asked: Vec<String>,
    left: Option<u64>,
}

/// A line that makes sense.
struct Good {
    key: Key,
    op: Op,
    ack: Ack,
    told: Told,
}

pub(super) async fn send(
    api: &Api,
    caller: Caller,
    parts: &Parts,
    request: impl RequestBody,
) -> Result<Answer, Problem> {
    let most = LEAST_BODY.max(BODY * api.settings().max_message);
    let most = if caller == Caller::App { most } else { 4 * most };
    let bytes = body::read(request, most).await?;
    let count = lines(&bytes).count();
    if count > LINES {
        return Err(Problem::new(413, "too-large", format!("expected at most {LINES} lines")));
    }
    if caller == Caller::Peer && parts.uri.query() == contract::LINES.split('?').nth(1) {
        return Ok(answer_numbered(api, &bytes));
    }
    let told = match (caller, Scope::read(&parts.headers, "", "bulk")?) {
        (Caller::Peer, _) => answer_peer(api, &bytes).await,
        (Caller::App, None) => answer_app(api, &bytes, &[]).await,
        (Caller::App, Some(scope)) => match api.idempotency().claim(scope, &bytes).await? {
            Claim::Said(said) if said.status != 200 => return Ok(said.into_answer()),
            Claim::Said(said) => said.body.as_array().cloned().unwrap_or_default(),
            Claim::First(first) => {
                let sender = api.clone();
                let sent = async move {
                    let earlier = first.earlier().and_then(|said| said.body.as_array().cloned());
                    let told = answer_app(&sender, &bytes, &earlier.unwrap_or_default()).await;
                    let said = Said { status: 200, body: told.clone().into() };
                    match told.iter().any(may_be_tried_again) {
                        true => first.said_in_part(&said),
                        false => first.said(&said),
                    }
                    told
                };
                api.finish(sent).await?
            }
        },
    };
    let text: String = told.iter().map(|line| format!("{line}\n")).collect();
    Ok(answer("application/x-ndjson", text))
}

fn lines(bytes: &Bytes) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

/// Whether that line of an answer says that surely nothing was delivered, and may be next time.
fn may_be_tried_again(line: &Value) -> bool {
    matches!(line["status"].as_u64(), Some(404 | 429 | 503))
}

/// Sends what `earlier` says nothing final of: the lines of the answer to the same body before.
async fn answer_app(api: &Api, bytes: &Bytes, earlier: &[Value]) -> Vec<Value> {
    let mut told = Vec::new();
    let mut calls = Vec::new();
    let mut places = Vec::new();
    for (n, line) in lines(bytes).enumerate() {
        if let Some(line) = earlier.get(n).filter(|line| !may_be_tried_again(line)) {
            told.push(line.clone());
            continue;
        }
        match read(api, line) {
            Ok(good) => {
                places.push((told.len(), good.ack));
                calls.push((good.key, good.op));
                told.push(Value::Null);
            }
            Err(refused) => {
                api.metrics().sends(Ack::Written, SendResult::Refused).inc();
                told.push(refused);
            }
        }
    }
    let verdicts = api.deliver().call_many(&calls).await;
    for (((at, ack), (key, _)), verdict) in places.into_iter().zip(&calls).zip(verdicts) {
        api.metrics().sends(ack, said::result(&verdict)).inc();
        told[at] = describe(&Said::of(key, &verdict, "delivered", None));
    }
    told
}

async fn answer_peer(api: &Api, bytes: &Bytes) -> Vec<Value> {
    let here = api.deliver().here();
    let answers = lines(bytes).map(|line| async move {
        let good = match read(api, line) {
            Ok(good) => good,
            Err(refused) => return refused,
        };
        let heard = here.answer(&good.key, &good.op, &good.told).await;
        let hop = heard.to_json();
        let verdict = Asking::alone(&here.node, heard);
        let mut line = describe(&Said::of(&good.key, &verdict, "delivered", None));
        line["hop"] = hop;
        line
    });
    join_all(answers).await
}

/// Answers a peer line by line, as soon as something is known: one that waits keeps no other waiting.
fn answer_numbered(api: &Api, bytes: &Bytes) -> Answer {
    let replies: FuturesUnordered<_> = lines(bytes)
        .enumerate()
        .map(|(n, line)| {
            let (api, good) = (api.clone(), read(api, line));
            async move {
                match good {
                    Ok(Good { key, op, told, .. }) => {
                        api.deliver().here().answer(&key, &op, &told).await.to_line(n)
                    }
                    Err(mut refused) => {
                        refused["n"] = n.into();
                        refused.to_string()
                    }
                }
            }
        })
        .collect();
    let mut answer = Answer::new(Lines::new(replies, api.guard()).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer
}

/// The line of an answer: the key, the status, and what it comes to.
fn describe(said: &Said) -> Value {
    let mut line = json!({"key": said.body["key"], "status": said.status});
    let delivered = said.body.get("delivered").cloned().unwrap_or_else(|| 0.into());
    line["delivered"] = delivered;
    for name in ["node", "slow", "type"] {
        if let Some(value) = said.body.get(name) {
            line[name] = value.clone();
        }
    }
    line
}

fn read(api: &Api, line: &[u8]) -> Result<Good, Value> {
    let parsed: Line = serde_json::from_slice(line).map_err(|error| {
        refuse(
            &Value::Null,
            400,
            "bad-line",
            &format!("expected {{\"key\", \"text\" or \"base64\"}}: {error}"),
        )
    })?;
    let name = Value::from(parsed.key.as_str());
    let bad = |kind, detail: &str| refuse(&name, 400, kind, detail);
    let key = Key::new(&parsed.key).map_err(|error| bad("bad-key", &error.to_string()))?;
    let message = match (parsed.text, parsed.base64) {
        (Some(text), None) => Message { text: true, payload: text.into() },
        (None, Some(encoded)) => {
            let payload = BASE64_STANDARD.decode(encoded).map_err(|_| bad("bad-line", "not base64"))?;
            Message { text: false, payload: payload.into() }
        }
        _ => return Err(bad("bad-line", "expected one of text and base64")),
    };
    if message.payload.len() > api.settings().max_message {
        let most = format!("expected at most {} bytes", api.settings().max_message);
        return Err(refuse(&name, 413, "too-large", &most));
    }
    let unfit = |_| bad("bad-line", "expected ack written or received, to client or app");
    check(&message).map_err(unfit)?;
    let ack = parse_ack(parsed.ack.as_deref()).map_err(unfit)?;
    let to_app = parse_to(parsed.to.as_deref()).map_err(unfit)?;
    let op = if to_app { Op::ToApp(message) } else { Op::Send { message, ack } };
    let asked = parsed.asked.iter().filter_map(|node| node.parse().ok()).collect();
    let left = parsed.left.map(Duration::from_millis);
    Ok(Good { key, op, ack, told: Told { served: parsed.served.into_iter().collect(), asked, left } })
}

fn refuse(key: &Value, status: u16, kind: &str, detail: &str) -> Value {
    json!({"key": key, "status": status, "delivered": 0, "type": kind, "detail": detail})
}
