//! The HTTP API of a sidecar: for its own app, and, where a peer asks, of what this node holds itself.
//!
//! Reading order: `service` (connections and routes), `tower` (the same for a server that is there already), then one
//! file for each resource: `messages`, `bulk`, `keys`, `holders`; `said` (the one table from verdict to answer), `body`,
//! `idempotency`, `openapi`.

mod body;
mod bulk;
mod holders;
mod idempotency;
mod keys;
mod lines;
mod messages;
mod openapi;
mod query;
mod rewind;
mod said;
mod service;
mod tower;

pub(crate) use said::result as send_result;
pub use service::{Api, Caller};
