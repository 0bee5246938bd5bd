//! `GET /v1/keys/{key}`: who is connected. `DELETE /v1/keys/{key}`: closes them.

use http::request::Parts;
use serde_json::json;

use super::{Api, Caller, query, said::Said};
use crate::{
    admin::{Answer, Problem},
    key::Key,
    session::deliver::{
        call,
        here::Op,
        plan::{Asking, Verdict},
    },
};

/// Describes the connections of a key.
pub(super) async fn show(api: &Api, caller: Caller, key: &Key, parts: &Parts) -> Answer {
    let (verdict, connections, hop) = ask(api, caller, key, &Op::List, parts).await;
    let mut said = Said::of(key, &verdict, "connected", api.owner(key).as_ref());
    if let Verdict::Delivered { node, .. } = &verdict {
        said.body = json!({"key": key.as_str(), "node": node.as_str(), "connections": connections});
    }
    with_hop(said, hop).into_answer()
}

/// Closes the connections of a key.
pub(super) async fn close(api: &Api, caller: Caller, key: &Key, parts: &Parts) -> Result<Answer, Problem> {
    let code = query::get(parts, "code")?.filter(|code| !code.is_empty());
    let code = code.map_or(Ok(1000), |text| {
        let code = text.parse().ok().filter(|code| is_sendable(*code));
        code.ok_or_else(|| query::bad("code", &text, "1000, 1001, 1003, 1007 to 1014 or 3000 to 4999"))
    })?;
    let reason = query::get(parts, "reason")?.unwrap_or_default();
    if reason.len() > MAX_REASON {
        return Err(query::bad("reason", &reason, "at most 123 bytes"));
    }
    let op = Op::Close { code, reason: reason.into() };
    let (verdict, _, hop) = ask(api, caller, key, &op, parts).await;
    let said = Said::of(key, &verdict, "closed", api.owner(key).as_ref());
    Ok(with_hop(said, hop).into_answer())
}

/// The longest reason that fits into a Close, in bytes.
const MAX_REASON: usize = 123;

/// Whether a Close may have that code (RFC 6455 §7.4).
fn is_sendable(code: u16) -> bool {
    matches!(code, 1000 | 1001 | 1003 | 1007..=1014 | 3000..=4999)
}

type Found = (Verdict, Vec<serde_json::Value>, Option<serde_json::Value>);

async fn ask(api: &Api, caller: Caller, key: &Key, op: &Op, parts: &Parts) -> Found {
    match caller {
        Caller::App => {
            let delivered = api.deliver().call(key, op).await;
            (delivered.verdict, delivered.connections, None)
        }
        Caller::Peer => {
            let here = api.deliver().here();
            let heard = here.answer(key, op, &call::told(&parts.headers)).await;
            let (hop, mut connections) = (heard.to_json(), heard.connections.clone());
            connections.iter_mut().for_each(|connection| connection["node"] = here.node.as_str().into());
            (Asking::alone(&here.node, heard), connections, Some(hop))
        }
    }
}

fn with_hop(mut said: Said, hop: Option<serde_json::Value>) -> Said {
    if let Some(hop) = hop {
        said.body["hop"] = hop;
    }
    said
}
