//! `POST /v1/keys/{key}/messages`: sends a message to every connection of a key, or to the key's app.

use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use tokio::time::Instant;

use super::{
    Api, Caller,
    body::{self, RequestBody},
    idempotency::{Claim, Scope},
    query,
    said::{self, Said},
};
use crate::{
    admin::{Answer, Problem},
    key::Key,
    metrics::{Ack, SendResult},
    session::deliver::{
        call,
        here::{Message, Op},
        plan::Asking,
    },
};

/// Sends one message.
pub(super) async fn send(
    api: &Api,
    caller: Caller,
    key: Key,
    parts: Parts,
    request: impl RequestBody,
) -> Result<Answer, Problem> {
    let began = Instant::now();
    let (op, ack) = match read(api, &parts, request).await {
        Ok(read) => read,
        Err(problem) => {
            if caller == Caller::App {
                api.metrics().sends(Ack::Written, SendResult::Refused).inc();
            }
            return Err(problem);
        }
    };
    if caller == Caller::Peer {
        return Ok(answer_peer(api, &key, &op, &parts.headers).await);
    }
    let said = match scope(&key, &op, &parts.headers)? {
        None => deliver(api, &key, &op, ack).await,
        Some(scope) => once(api, scope, key, op, ack).await?,
    };
    api.metrics().send_duration().observe(began.elapsed());
    Ok(said.into_answer())
}

async fn read(api: &Api, parts: &Parts, request: impl RequestBody) -> Result<(Op, Ack), Problem> {
    let ack = parse_ack(query::get(parts, "ack")?.as_deref())?;
    let to_app = parse_to(query::get(parts, "to")?.as_deref())?;
    let payload = body::read(request, api.settings().max_message).await?;
    let message = Message { text: is_text(&parts.headers), payload };
    check(&message)?;
    let op = if to_app { Op::ToApp(message) } else { Op::Send { message, ack } };
    Ok((op, ack))
}

/// Checks that a text message is text.
pub(super) fn check(message: &Message) -> Result<(), Problem> {
    match message.text && std::str::from_utf8(&message.payload).is_err() {
        true => Err(Problem::new(400, "not-utf8", "a text message must be UTF-8")),
        false => Ok(()),
    }
}

pub(super) fn parse_ack(text: Option<&str>) -> Result<Ack, Problem> {
    match text {
        None | Some("" | "written") => Ok(Ack::Written),
        Some("received") => Ok(Ack::Received),
        Some(other) => Err(query::bad("ack", other, "written or received")),
    }
}

/// Whether the app is meant, and not the client.
pub(super) fn parse_to(text: Option<&str>) -> Result<bool, Problem> {
    match text {
        None | Some("" | "client") => Ok(false),
        Some("app") => Ok(true),
        Some(other) => Err(query::bad("to", other, "client or app")),
    }
}

/// Whether the content type makes the body a text message.
fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/") || kind == "application/json"
}

fn scope(key: &Key, op: &Op, headers: &HeaderMap) -> Result<Option<Scope>, Problem> {
    let to = if matches!(op, Op::ToApp(_)) { "app" } else { "client" };
    Scope::read(headers, key.as_str(), to)
}

async fn answer_peer(api: &Api, key: &Key, op: &Op, headers: &HeaderMap) -> Answer {
    let here = api.deliver().here();
    let heard = here.answer(key, op, &call::told(headers)).await;
    let hop = heard.to_json();
    let mut said = Said::of(key, &Asking::alone(&here.node, heard), "delivered", api.owner(key).as_ref());
    said.body["hop"] = hop;
    said.into_answer()
}

async fn deliver(api: &Api, key: &Key, op: &Op, ack: Ack) -> Said {
    let verdict = api.deliver().call(key, op).await.verdict;
    api.metrics().sends(ack, said::result(&verdict)).inc();
    Said::of(key, &verdict, "delivered", api.owner(key).as_ref())
}

/// Sends it unless that was done already. It goes on when its caller has gone: a repeat must find the result.
async fn once(api: &Api, scope: Scope, key: Key, op: Op, ack: Ack) -> Result<Said, Problem> {
    let payload = match &op {
        Op::Send { message, .. } | Op::ToApp(message) => message.payload.clone(),
        Op::Close { .. } | Op::List => Bytes::new(),
    };
    match api.idempotency().claim(scope, &payload).await? {
        Claim::Said(said) => Ok(said),
        Claim::First(first) => {
            let sender = api.clone();
            let sent = async move {
                let said = deliver(&sender, &key, &op, ack).await;
                first.said(&said);
                said
            };
            api.finish(sent).await
        }
    }
}
