//! The one table from what became of a call to what its caller is told.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    admin::{Answer, answer},
    key::Key,
    metrics::SendResult,
    node::NodeId,
    session::deliver::plan::Verdict,
};

/// An answer that can be given again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Said {
    /// What is told of a call; `done` is what was done to the connections: `delivered` or `closed`.
    pub(super) fn of(key: &Key, verdict: &Verdict, done: &str, owner: Option<&NodeId>) -> Self {
        match verdict {
            Verdict::Delivered { node, delivered, slow } => {
                let mut body = json!({"key": key.as_str(), "node": node.as_str(), done: delivered});
                if *slow > 0 {
                    body["slow"] = (*slow).into();
                }
                Self { status: 200, body }
            }
            Verdict::NotConnected => {
                let detail = "no client is connected under this key";
                let mut said = Self::problem(404, "not-connected", detail, key);
                said.body["owner"] = owner.map_or(Value::Null, |owner| owner.as_str().into());
                said
            }
            Verdict::Slow => {
                let detail = "the client takes too slowly; nothing was sent";
                Self::problem(429, "slow-consumer", detail, key)
            }
            Verdict::Moving => {
                let detail = "connections are moving, or a node cannot be reached; nothing was sent";
                Self::problem(503, "moving", detail, key)
            }
            Verdict::Unknown => {
                let detail = "no confirmation came in time; whether it was delivered is unknown";
                Self::problem(504, "ack-timeout", detail, key)
            }
        }
    }

    /// Of a call that a fault of ours has ended: what it did is not known.
    pub(super) fn given_up() -> Self {
        let detail = "the call was given up; whether it was delivered is unknown";
        Self { status: 504, body: json!({"type": "ack-timeout", "status": 504, "detail": detail}) }
    }

    fn problem(status: u16, kind: &str, detail: &str, key: &Key) -> Self {
        let body = json!({"type": kind, "status": status, "detail": detail, "key": key.as_str()});
        Self { status, body }
    }

    /// The answer.
    pub(super) fn into_answer(self) -> Answer {
        let problem = self.status >= 400;
        let kind = if problem { "application/problem+json" } else { "application/json" };
        let mut answer = answer(kind, Bytes::from(format!("{}\n", self.body)));
        *answer.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if matches!(self.status, 429 | 503) {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

/// How a send that ended so is counted.
pub(crate) fn result(verdict: &Verdict) -> SendResult {
    match verdict {
        Verdict::Delivered { .. } => SendResult::Delivered,
        Verdict::NotConnected => SendResult::NotConnected,
        Verdict::Slow => SendResult::SlowConsumer,
        Verdict::Moving => SendResult::Moving,
        Verdict::Unknown => SendResult::Unknown,
    }
}
