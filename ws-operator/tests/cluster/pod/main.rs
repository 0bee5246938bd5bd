//! What runs in the pods of the cluster tests: the application, and the clients with the checker.
//!
//! `pod app` answers numbered messages, and tells the clients' pod what it has seen. `pod clients` connects, sends,
//! and is asked by HTTP what it and the applications have seen: `/state`, `/mark`, `/finish`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

mod app;
mod clients;
mod control;
mod events;
#[path = "../../../../ws-balancer/tests/support/mod.rs"]
mod support;

use std::env;

/// Where the clients' pod hears what applications have seen.
pub const EVENTS: u16 = 9000;
/// Where it is asked.
pub const CONTROL: u16 = 9001;

#[tokio::main]
async fn main() {
    match env::args().nth(1).as_deref() {
        Some("app") => app::run().await,
        Some("clients") => clients::run().await,
        other => panic!("app or clients, not {other:?}"),
    }
}

/// What the pod's manifest says.
fn told(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}
