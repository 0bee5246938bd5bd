//! The connections that a proxy holds.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::routes::{Answer, Call, Problem, Routes, json};
use crate::proxy::{Held, Proxy, Via};

/// How many connections one answer lists at most.
const MOST: usize = 10_000;

/// `GET /v1/connections?limit=`: `{"count", "connections": [{"id", "key", "node", "remote", "via", "since"}]}`, in no order.
///
/// `via` is `tcp`, `tls` or `http2`. `limit` is 1 to 10,000, default 1,000. `since` is in seconds of Unix time. Keys are hashed unless the proxy logs them
/// plainly.
#[must_use]
pub fn connections(proxy: Proxy) -> Routes {
    Routes::new().get("/v1/connections", move |call| {
        let listed = list(&call, &proxy);
        async move { listed }
    })
}

fn list(call: &Call, proxy: &Proxy) -> Result<Answer, Problem> {
    let limit = call.number("limit", 1..=MOST)?.unwrap_or(1_000);
    let (count, held) = proxy.held(limit);
    let connections: Vec<Value> = held.iter().map(shown).collect();
    Ok(json(&json!({"count": count, "connections": connections})))
}

fn shown(held: &Held) -> Value {
    let since = held.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    json!({
        "id": &*held.id,
        "key": held.key,
        "node": held.node.as_str(),
        "remote": held.remote.map(|addr| addr.to_string()),
        "via": held.via.map(Via::as_str),
        "since": since.as_secs_f64(),
    })
}
