//! `POST /v1/holders`, between peers only: a node holds connections of keys that this one owns.

use http::Response;
use http_body_util::{BodyExt, Empty};
use serde::Deserialize;

use super::{
    Api,
    body::{self, RequestBody},
};
use crate::{
    admin::{Answer, Problem},
    key::Key,
};

/// The largest body, in bytes: a thousand keys of the greatest length, escaped.
const MOST: usize = 4 << 20;

#[derive(Deserialize)]
struct Told {
    node: String,
    keys: Vec<String>,
}

pub(super) async fn note(api: &Api, request: impl RequestBody) -> Result<Answer, Problem> {
    let bytes = body::read(request, MOST).await?;
    let bad = |_| Problem::new(400, "bad-body", "expected {\"node\": ID, \"keys\": [KEY, …]}");
    let told: Told = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let node = told.node.parse().map_err(|_| bad(String::new()))?;
    api.deliver().here().holders.note(&node, told.keys.iter().filter_map(|key| Key::new(key).ok()));
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = http::StatusCode::NO_CONTENT;
    Ok(answer)
}
